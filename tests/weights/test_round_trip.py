"""There and back, to the last bit; and whoever else reads what is written here computes the same features."""

import itertools
import json
import os
from pathlib import Path

import pytest
import timm
import torch
from jepakit_vit.positions import sincos_2d
from PIL import Image
from safetensors import safe_open
from transformers import AutoImageProcessor, AutoModel, IJepaForImageClassification
from transformers.utils import logging

import jepakit
from jepakit.errors import CheckpointError
from jepakit.types import Grid
from jepakit.weights import read
from tests.weights import files

EXACT = 1e-12
"""In float64, with the table of positions in float64 too."""
NEAR = 1e-5
"""In float32: two kernels add up in another order."""

KINDS = list(zip(files.MODELS, itertools.cycle(("online", "target")), strict=False))


@pytest.fixture(autouse=True)
def quiet():
    """Neither bars of progress nor reports about heads that are made anew."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def everything(found, source, which="target"):
    files.same(found, source)
    assert found.config == source.config
    assert list(found.backbones) == ["target", "online"]


@pytest.mark.parametrize("first", files.EVERYTHING)
@pytest.mark.parametrize("second", files.EVERYTHING)
def test_every_pair(first, second, tmp_path):
    there = files.exported(files.written(tmp_path), first, "there")
    everything(read(files.exported(there, second, "back")), files.model())


@pytest.mark.parametrize("name, which", KINDS)
def test_all_around(name, which, tmp_path):
    """Through all formats in a row: models of every kind, whichever backbone comes first."""
    place = files.written(tmp_path, files.model(name))
    for number, to in enumerate(("meta", "hf", "timm", "safetensors")):
        place = files.exported(place, to, f"way{number}", weights=which)
    everything(read(place), files.model(name))


@pytest.mark.parametrize("through", [("safetensors",), ("hf",), ("timm",), ("hf", "safetensors", "timm")])
def test_released_checkpoint(through, tmp_path):
    """Every tensor of a checkpoint of the released code is written back as it was, and every value."""
    place = files.meta(tmp_path)
    for number, to in enumerate(through):
        place = files.exported(place, to, f"way{number}", **({"heads": 3, "predictor_heads": 2} if not number else {}))
    before, after = (torch.load(f, weights_only=True) for f in (files.meta(tmp_path), files.exported(place, "meta")))
    assert json.loads(after.pop("jepakit_config"))["weights"] == "target"
    files.same_checkpoint(before, after)


def test_the_released_optimiser_goes_on(tmp_path):
    """AdamW of the released code's groups takes the state, and each parameter finds its moments."""
    encoder, predictor, optimizer = files.released()
    place = files.exported(files.meta(tmp_path), "safetensors", heads=3, predictor_heads=2)
    state = torch.load(files.exported(place, "meta"), weights_only=True)["opt"]
    groups = [{"params": group["params"]} for group in optimizer.param_groups]
    fresh = torch.optim.AdamW(groups)
    fresh.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        assert all(torch.equal(fresh.state[parameter][key], value) for key, value in kept.items())
    assert [group["weight_decay"] for group in fresh.param_groups] == [0.01, 0.01, 0, 0]


def features(place: Path, weights: str, double: bool = True):
    encoder = jepakit.load(place, weights=weights)
    encoder = encoder.double() if double else encoder
    images = torch.randn(2, 3, encoder.size, encoder.size, generator=torch.Generator().manual_seed(0))
    images = images.double() if double else images
    return encoder, images, encoder(images)


def exact_table(encoder) -> torch.Tensor:
    grid, native = encoder.grid, encoder.backbone.encoder.positions.native
    return sincos_2d(Grid(*grid), encoder.width, native).unsqueeze(0)


@pytest.mark.parametrize("name, which", KINDS)
def test_hugging_face_computes_the_same(name, which, tmp_path):
    source = files.written(tmp_path, files.model(name))
    folder = files.exported(source, "hf", weights=which)
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    encoder, images, expected = features(source, which, double=False)
    with torch.no_grad():
        assert (model.eval()(images).last_hidden_state - expected).abs().max() < NEAR
    encoder, images, expected = features(source, which)
    model.double().embeddings.position_embeddings.data = exact_table(encoder)
    with torch.no_grad():
        assert (model(images).last_hidden_state - expected).abs().max() < EXACT


@pytest.mark.parametrize("name, which", KINDS)
def test_timm_computes_the_same(name, which, tmp_path):
    source = files.written(tmp_path, files.model(name))
    folder = files.exported(source, "timm", weights=which)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    encoder, images, expected = features(source, which, double=False)
    with torch.no_grad():
        assert (model.forward_features(images) - expected).abs().max() < NEAR
    encoder, images, expected = features(source, which)
    model.double().pos_embed.data = exact_table(encoder)
    with torch.no_grad():
        assert (model.forward_features(images) - expected).abs().max() < EXACT
        assert (model(images) - expected.mean(1)).abs().max() < EXACT


def test_what_transformers_prepares(tmp_path):
    """Its processor makes of a picture what an evaluation here sees; timm is told the same."""
    source = files.written(tmp_path)
    folder, encoder = files.exported(source, "hf"), jepakit.load(source)
    noise = torch.randint(0, 256, (47, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(noise.numpy())
    made = AutoImageProcessor.from_pretrained(folder)(image, return_tensors="pt")["pixel_values"]
    assert (made - encoder.preprocess(image)).abs().max() < NEAR
    model = timm.create_model(f"local-dir:{files.exported(source, 'timm')}", pretrained=True)
    told = timm.data.resolve_model_data_config(model)
    assert told["input_size"] == (3, 32, 32) and told["interpolation"] == "bilinear"
    assert tuple(told["mean"]) == tuple(encoder.data["mean"]) and round(32 / told["crop_pct"]) == 36


@pytest.mark.parametrize("kind", ["saved again", "classifier in shards", "names in memory"])
def test_what_transformers_writes(kind, tmp_path):
    """Both schemes of names, a prefix and shards; what transformers saves knows nothing of jepakit."""
    folder, again = files.exported(files.written(tmp_path), "hf"), tmp_path / "again"
    model = (IJepaForImageClassification if "classifier" in kind else AutoModel).from_pretrained(folder)
    model.save_pretrained(again, **({"max_shard_size": "20KB"} if "shards" in kind else {}))
    if kind == "names in memory":
        (again / "model.safetensors").unlink()
        assert "layers.0.attention.q_proj.weight" in model.state_dict()
        torch.save(model.state_dict(), again / "pytorch_model.bin")
    assert (len(list(again.glob("*.safetensors"))) > 1) is (kind == "classifier in shards")
    found = read(again)
    files.same(found, type(found)(found.config, {"target": files.model().backbones["target"]}))
    assert found.about.get("left_out", []) == (["classifier.bias", "classifier.weight"] if "classifier" in kind else [])


def test_metadata(tmp_path):
    """What is written says which weights it holds."""
    source = files.written(tmp_path)
    for number, which in enumerate(("target", "online")):
        for to in ("hf", "timm"):
            folder = files.exported(source, to, f"{to}{number}", weights=which)
            with safe_open(folder / "model.safetensors", "pt") as file:
                assert json.loads(file.metadata()["jepakit_config"])["weights"] == which
            assert list(read(folder).backbones) == ["target", "online"]
            (folder / "jepakit.safetensors").unlink()
            assert list(read(folder).backbones) == [which]
    assert "* weights: online" in (tmp_path / "hf1" / "README.md").read_text()
    with safe_open(files.exported(source, "safetensors", weights="online"), "pt") as file:
        assert json.loads(file.metadata()["jepakit"])["weights"] == "online"


def test_a_companion_of_another_model(tmp_path):
    one, other = (
        files.exported(files.written(tmp_path, files.model(name)), "hf", name) for name in ("plain", "uneven")
    )
    os.replace(other / "jepakit.safetensors", one / "jepakit.safetensors")
    with pytest.raises(
        CheckpointError, match="jepakit.safetensors belongs to another model: encoder.depth is 2 there, 1"
    ):
        read(one)
    with pytest.raises(CheckpointError, match="it is the companion of a model in the same folder, without its target"):
        read(one / "jepakit.safetensors")


def test_a_whole_model_in_the_companions_place(tmp_path):
    source = files.written(tmp_path)
    folder = files.exported(source, "hf")
    os.replace(source, folder / "jepakit.safetensors")
    with pytest.raises(CheckpointError, match="jepakit.safetensors is no companion: it holds a whole model"):
        read(folder)


def test_tensors_in_one_place(tmp_path):
    """A file may keep both encoders in one place; what is written holds both."""
    state = files.released()[0].state_dict()
    torch.save({"encoder": state, "target_encoder": state}, tmp_path / "tied.pth.tar")
    source = files.exported(tmp_path / "tied.pth.tar", "safetensors", heads=3)
    found = read(source)
    for name, tensor in found.backbones["target"].items():
        assert torch.equal(tensor, found.backbones["online"][name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types(dtype, tmp_path):
    """Weights are written in the type that they have."""
    source = files.model()
    cast = {part: {k: v.to(dtype) for k, v in state.items()} for part, state in source.backbones.items()}
    wanted = type(source)(source.config, cast, {k: v.to(dtype) for k, v in source.predictor.items()})
    for to in files.EVERYTHING:
        files.same(read(files.exported(files.written(tmp_path, wanted), to)), wanted)
        (tmp_path / "model.safetensors").unlink()
