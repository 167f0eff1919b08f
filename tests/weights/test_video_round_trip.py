"""Video models there and back, to the last bit; and Hugging Face computes the same features and predictions."""

import itertools
import json
import os

import pytest
import torch
from jepakit_vit.predictor import VitPredictor
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoVideoProcessor, VJEPA2ForVideoClassification
from transformers.utils import logging

import jepakit
from jepakit.cli import main
from jepakit.errors import CheckpointError
from jepakit.types import Mask, Weights
from jepakit.weights import read
from tests.weights import files, video

PAIRS = [(name, *pair) for name in ("vjepa", "vjepa2") for pair in itertools.product(video.HOLD[name], repeat=2)]
EXACT, NEAR = 1e-12, 1e-5
HELD = [name for name, kinds in video.HOLD.items() if "hf_vjepa2" in kinds]


@pytest.fixture(autouse=True)
def quiet():
    logging.disable_progress_bar()
    logging.set_verbosity_error()


@pytest.mark.parametrize("name, first, second", PAIRS)
def test_every_pair(name, first, second, tmp_path):
    there = files.exported(video.written(tmp_path, name), first, "there")
    found, source = read(files.exported(there, second, "back", weights="online")), video.model(name)
    files.same(found, source)
    assert found.config == source.config and list(found.backbones) == ["target", "online"] and not found.extra


@pytest.mark.parametrize("name", sorted(video.HOLD.keys() - {"vjepa", "vjepa2"}))
def test_all_around(name, tmp_path):
    """Models of every kind through all formats that hold them, and back."""
    place, (own, *others) = video.written(tmp_path, name), video.HOLD[name]
    for number, to in enumerate((*others, *others[::-1], own)):
        place = files.exported(place, to, f"way{number}")
    found, source = read(place), video.model(name)
    files.same(found, source)
    assert found.config == source.config


def test_a_run_to_everything(trained_on_clips, tmp_path):
    source = read(trained_on_clips)
    for to in video.HOLD["vjepa2"]:
        out = tmp_path / f"{to}{files.SUFFIX[to]}"
        assert main(["export", f"run={trained_on_clips}", f"--to={to}", f"out={out}"]) == 0
        files.same(read(out), source)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types(dtype, tmp_path):
    source = video.model("vjepa2")
    cast = {part: {k: v.to(dtype) for k, v in state.items()} for part, state in source.backbones.items()}
    wanted = Weights(source.config, cast, {k: v.to(dtype) for k, v in source.predictor.items()})
    for to in video.HOLD["vjepa2"]:
        files.same(read(files.exported(files.written(tmp_path, wanted), to)), wanted)
        (tmp_path / "model.safetensors").unlink()


@pytest.mark.parametrize(
    "name, to, answer",
    [
        ("vjepa", "vjepa2", "its encoder has positions=sincos_3d; this format holds rope_tiled only"),
        ("vjepa", "hf_vjepa2", "its encoder has positions=sincos_3d; this format holds rope_tiled only"),
        ("vjepa2", "vjepa", "its encoder has positions=rope_tiled; this format holds sincos_3d only"),
        ("vjepa2 gated", "hf_vjepa2", "its encoder has mlp=swiglu; this format holds gelu only"),
        ("vjepa2 bare", "vjepa2", "its encoder has qkv_bias=False; this format holds True only"),
        ("vjepa2", "meta", "its tokenizer has tubelet=2; this format holds 1 only"),
    ],
)
def test_models_that_a_format_cannot_hold(name, to, answer, tmp_path, capsys):
    refused(video.written(tmp_path, name), to, answer, capsys)


@pytest.mark.parametrize(
    "changes, answer",
    [
        ({"encoder": {"positions": "rope"}}, "its encoder has positions=rope; this format holds rope_tiled only"),
        ({"predictor": {"positions": "rope"}}, "its predictor has positions=rope; this format holds rope_tiled only"),
        (
            {"encoder": {"native": [2, 2]}},
            "its encoder are scaled to 2 x 2 x 2 from 2 x 4 x 4; this format has no word",
        ),
        ({"encoder": {"layers": [0]}}, r"its encoder has layers=[0]; this format holds none only"),
        ({"predictor": {"recalls": True}}, "its predictor has recalls=True; this format holds False only"),
        ({"tokenizer": {"name": "joint"}}, "its tokenizer is 'joint'; this format holds 'patch'"),
        ({"data": {"frames": 5}}, "clips of 5 frames cannot be cut into its tubelets of 2"),
    ],
)
@pytest.mark.parametrize("to", ["vjepa2", "hf_vjepa2"])
def test_settings_that_a_format_cannot_hold(to, changes, answer, tmp_path, capsys):
    found = video.model("vjepa2")
    if "frames" in changes.get("data", {}):
        changes = {**changes, "encoder": {"native": [4, 4]}}
    config = {**found.config, **{part: {**found.config[part], **node} for part, node in changes.items()}}
    refused(files.written(tmp_path, Weights(config, found.backbones, found.predictor)), to, answer, capsys)


def refused(source, to, answer, capsys):
    assert main(["export", str(source), "--to", to, f"out={source.parent / 'out'}{files.SUFFIX[to]}"]) == 2
    assert answer in capsys.readouterr().err
    assert os.listdir(source.parent) == [source.name]


def parts(place, which: str, dtype: torch.dtype):
    """An encoder, its predictor, and what to ask them: clips, places that are seen, and places that are not."""
    found, encoder = read(place), jepakit.load(place, weights=which).to(dtype)
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in found.config["predictor"].items() if k != "name"}
    predictor = VitPredictor(encoder.width, **settings | {"share_mask_token": False}).to(dtype)
    predictor.load_state_dict({name: value.to(dtype) for name, value in found.predictor.items()})
    rng = torch.Generator().manual_seed(0)
    clips = torch.randn(2, 3, 4, 32, 32, generator=rng, dtype=dtype)
    order = torch.rand(2, encoder.grid.size, generator=rng).argsort(1)
    return encoder, predictor, clips, order[:, :9], order[:, 9:20]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, NEAR), (torch.float64, EXACT)])
@pytest.mark.parametrize("which", ["target", "online"])
@pytest.mark.parametrize("name", HELD)
def test_hugging_face_computes_the_same(name, which, dtype, tolerance, tmp_path):
    folder = files.exported(video.written(tmp_path, name), "hf_vjepa2", weights=which)
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    encoder, predictor, clips, context, target = parts(folder, which, dtype)
    with torch.no_grad():
        found = model.to(dtype).eval()(clips.transpose(1, 2), context_mask=[context], target_mask=[target])
        seen = encoder(clips)
        assert (found.last_hidden_state - seen).abs().max() < tolerance
        kept = seen.gather(1, context.unsqueeze(2).expand(-1, -1, encoder.width))
        kind = 1 % len(predictor.mask_token)  # the one that transformers takes
        guess = predictor(kept, Mask(context, target.unsqueeze(1), kind=kind), encoder.grid).squeeze(1)
        assert (found.predictor_output.last_hidden_state - guess).abs().max() < tolerance


def test_what_transformers_prepares(tmp_path):
    source = video.written(tmp_path, "vjepa2")
    clip = torch.randint(0, 256, (4, 3, 47, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    processor = AutoVideoProcessor.from_pretrained(files.exported(source, "hf_vjepa2"))
    made = processor(clip, return_tensors="pt")["pixel_values_videos"]
    assert (made.transpose(1, 2) - jepakit.load(source).preprocess(clip.transpose(0, 1))).abs().max() < NEAR


@pytest.mark.parametrize("kind", ["saved again", "classifier in shards"])
def test_what_transformers_writes(kind, tmp_path):
    """What it saves knows nothing of jepakit."""
    folder, again = files.exported(video.written(tmp_path, "vjepa2 tokens"), "hf_vjepa2"), tmp_path / "again"
    made = (VJEPA2ForVideoClassification if "classifier" in kind else AutoModel).from_pretrained(folder)
    made.save_pretrained(again, **({"max_shard_size": "20KB"} if "shards" in kind else {}))
    assert (len(list(again.glob("*.safetensors"))) > 1) is ("shards" in kind)
    found, source = read(again), video.model("vjepa2 tokens")
    files.same(found, Weights(found.config, {"target": source.backbones["target"]}, source.predictor))
    assert found.config["data"]["frames"] == 4 and found.config["data"]["size"] == 32
    heads = [name.split(".")[0] for name in found.about.get("left_out", [])]
    assert set(heads) == ({"classifier", "pooler"} if "classifier" in kind else set())


def test_the_predictor_of_the_folder_is_the_one_that_counts(tmp_path):
    """What was changed in the folder is not overruled by what lies beside it."""
    folder = files.exported(video.written(tmp_path, "vjepa2"), "hf_vjepa2")
    with safe_open(folder / "jepakit.safetensors", "pt") as file:
        assert {name.split("/")[0] for name in file.keys()} == {"online", "optimizer"}  # noqa: SIM118
    with safe_open(folder / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    state = load_file(folder / "model.safetensors")
    state["predictor.proj.bias"] += 1
    save_file(state, folder / "model.safetensors", metadata)
    assert torch.equal(read(folder).predictor["proj.bias"], video.model("vjepa2").predictor["proj.bias"] + 1)


def test_metadata(tmp_path):
    source = video.written(tmp_path, "vjepa2")
    for which in ("target", "online"):
        folder = files.exported(source, "hf_vjepa2", which, weights=which)
        with safe_open(folder / "model.safetensors", "pt") as file:
            assert json.loads(file.metadata()["jepakit_config"])["weights"] == which
        assert f"* weights: {which}" in (folder / "README.md").read_text()
        (folder / "jepakit.safetensors").unlink()
        assert list(read(folder).backbones) == [which]


@pytest.fixture
def folder(tmp_path):
    """A folder that says nothing of jepakit, as someone else's does."""
    folder = files.exported(video.written(tmp_path, "vjepa2"), "hf_vjepa2", companion="false")
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05 in its config.json; the model has 1e-06"),
        ({"hidden_act": "silu"}, "hidden_act is silu"),
        ({"num_attention_heads": 5}, "width 24 cannot be split over 5 heads"),
        ({"num_attention_heads": None}, "width 24 cannot be split over 16 heads"),
        ({"pred_num_attention_heads": 3}, "width 16 cannot be split over 3 heads"),
        ({"crop_size": 30}, "pictures of 30 pixels cannot be cut into its patches"),
        ({"model_type": "vit"}, "is of no known format"),
    ],
)
def test_other_models(changes, words, folder):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(CheckpointError, match=words):
        jepakit.load(folder)


@pytest.mark.parametrize(
    "name, words",
    [
        ("encoder.layer.0.attention.key.bias", "missing: .*attention.key.bias"),
        ("encoder.layernorm.weight", "missing: norm.weight"),
        ("predictor.embeddings.mask_tokens", "missing: mask_tokens.0"),
        ("predictor.proj.bias", "missing: proj.bias"),
    ],
)
def test_missing(name, words, folder):
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file({**state}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=words):
        read(folder)
    save_file({**state, "decoder.weight": torch.zeros(3)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="left over: decoder.weight"):
        read(folder)


def test_without_a_predictor(tmp_path, capsys):
    """A VJEPA2Model has one; Meta's files need not."""
    found = video.model("vjepa2")
    source = files.written(tmp_path, Weights({**found.config}, found.backbones))
    assert list(read(files.exported(source, "vjepa2")).backbones) == ["target", "online"]
    assert main(["export", str(source), "--to", "hf_vjepa2", f"out={tmp_path / 'hf'}"]) == 2
    assert "it has no predictor; a VJEPA2Model has one" in capsys.readouterr().err and not (tmp_path / "hf").exists()
