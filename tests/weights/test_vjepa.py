"""Checkpoints of the released video code: what is read of them, written back, and refused with the reason."""

import copy
import json

import pytest
import torch
from jepakit_vit.formats.settings import gated_ratio
from jepakit_vit.formats.vjepa import clip_of
from jepakit_vit.positions import sincos_3d

from jepakit.cli import main
from jepakit.errors import CheckpointError
from jepakit.types import Grid
from jepakit.weights import read
from jepakit.weights.content import open_content
from jepakit.weights.formats import formats, recognise
from tests.weights import files, video

RELEASED = {
    "vjepa": {},
    "vjepa2": {"tables": False, "tokens": 6},
    "vjepa2 with tables that nobody reads": {"tokens": 10},
    "vjepa2 gated": {"tables": False, "gated": True},
}
SECOND = {**video.GIVEN, "size": 32, "frames": 4}


def given(name: str) -> dict:
    return video.GIVEN if name == "vjepa" else SECOND


@pytest.mark.parametrize("name", RELEASED)
def test_states(name, tmp_path):
    encoder, predictor, _ = video.released(**RELEASED[name])
    found = read(video.checkpoint(tmp_path, **RELEASED[name]), given(name))
    state, online = encoder.state_dict(), found.backbones["online"]
    assert torch.equal(online["tokenizer.proj.weight"], state["patch_embed.proj.weight"].flatten(1))
    qkv, gated = "blocks.1.attn.qkv.weight", "gated" in name
    assert torch.equal(online[f"encoder.{qkv}"], state[qkv])
    assert torch.equal(found.backbones["target"][f"encoder.{qkv}"], state[qkv] * 0.5)
    for mine, released in (("fc1_g", "fc1"), ("fc1_x", "fc2"), ("fc2", "fc3")) if gated else (("fc2", "fc2"),):
        assert torch.equal(online[f"encoder.blocks.0.mlp.{mine}.weight"], state[f"blocks.0.mlp.{released}.weight"])
    assert torch.equal(found.predictor["mask_token"], torch.cat([*predictor.mask_tokens])[:, 0])
    assert torch.equal(found.predictor["embed.bias"], predictor.predictor_embed.bias)
    assert ("online/pos_embed" in found.extra) is ("nobody" in name)
    assert ("target/pos_embed" in found.extra) is (RELEASED[name].get("tables", True))


@pytest.mark.parametrize("name", RELEASED)
def test_moments(name, tmp_path):
    """AdamW numbers parameters group by group, tables and mask tokens among them; each moment finds its parameter."""
    encoder, predictor, optimizer = video.released(**RELEASED[name])
    found = read(video.checkpoint(tmp_path, **RELEASED[name]), given(name)).optimizer
    pairs = {
        "backbone.tokenizer.proj.weight": encoder.patch_embed.proj.weight,
        "backbone.encoder.blocks.1.norm2.bias": encoder.blocks[1].norm2.bias,
        "predictor.embed.weight": predictor.predictor_embed.weight,
        "predictor.blocks.0.attn.qkv.bias": predictor.predictor_blocks[0].attn.qkv.bias,
        "predictor.proj.weight": predictor.predictor_proj.weight,
    }
    if "gated" in name:
        pairs["backbone.encoder.blocks.1.mlp.fc1_x.weight"] = encoder.blocks[1].mlp.fc2.weight
    for mine, parameter in pairs.items():
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(found[f"{mine}/{key}"].flatten(), value.flatten()), mine
    for row, token in zip(found["predictor.mask_token/exp_avg"], predictor.mask_tokens, strict=True):
        known = optimizer.state[token].get("exp_avg", torch.zeros(1)) if token in optimizer.state else torch.zeros(1)
        assert torch.equal(row, known.flatten().expand_as(row))
    assert found["predictor.mask_token/step"] == 2


def test_settings_of_the_first(tmp_path):
    config = read(video.checkpoint(tmp_path), video.GIVEN).config
    assert config["tokenizer"] == {"name": "patch", "patch": 8, "tubelet": 2}
    assert {key: config["data"][key] for key in ("size", "frames", "stride")} == {"size": 32, "frames": 4, "stride": 4}
    assert config["encoder"] == {
        **{"name": "vit", "width": 24, "heads": 2, "depth": 2, "mlp_ratio": 4.0, "positions": "sincos_3d"}
    }
    assert config["predictor"]["mask_tokens"] == 2 and config["predictor"]["positions"] == "sincos_3d"


def test_settings_of_the_second(tmp_path, capsys):
    file = video.checkpoint(tmp_path, tables=False, tokens=10, gated=True)
    found = read(file, video.GIVEN)
    assert found.config["encoder"]["mlp"] == "swiglu" and found.config["encoder"]["mlp_ratio"] == 4.0
    assert found.config["encoder"]["positions"] == found.config["predictor"]["positions"] == "rope_tiled"
    assert found.config["predictor"]["mask_tokens"] == 10 and found.config["predictor"]["share_mask_token"]
    data = {"size": 256, "frames": 64, "fps": 4.0}
    assert {key: found.config["data"][key] for key in data} == data
    assert found.about["assumed"] == {"size": 256, "frames": 64}
    assert "assumed" not in read(file, SECOND).about
    assert main(["import", str(file), f"out={tmp_path / 'a.safetensors'}", "heads=2", "predictor_heads=1"]) == 0
    assert "assumed, since the file does not say it: size=256 frames=64" in capsys.readouterr().out
    assert main(["inspect", str(file), "heads=2", "predictor_heads=1", "size=32"]) == 0
    assert "clips of 64 x 32 x 32 (the file does not say it: frames=N)" in capsys.readouterr().out


@pytest.mark.parametrize("key, value", [("size", 64), ("frames", 8), ("heads", 4)])
def test_what_the_file_says_is_not_overruled(key, value, tmp_path):
    if key == "heads":
        file = video.written(tmp_path, "vjepa")
        with pytest.raises(CheckpointError, match=f"{key}={value}, and the file says 3$"):
            read(file, {key: value})
    else:
        with pytest.raises(CheckpointError, match=f"{key}={value}, and the file says "):
            read(video.checkpoint(tmp_path), {**video.GIVEN, key: value})


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_checkpoint_is_written_back_as_it_was(name, tmp_path):
    """Every tensor, the numbers of the optimiser, and every value; through jepakit's file, and where it can be held
    through Hugging Face's folder."""
    to = name.split()[0]
    place = files.exported(video.checkpoint(tmp_path, **RELEASED[name]), "safetensors", "way", **given(name))
    if to == "vjepa2" and "gated" not in name:
        place = files.exported(place, "hf_vjepa2")
    again = files.exported(place, to, "again")
    before, after = (torch.load(file, weights_only=True) for file in (tmp_path / "released.pt", again))
    assert json.loads(after.pop("jepakit_config"))["weights"] == "target"
    files.same_checkpoint(before, after)


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_optimiser_goes_on(name, tmp_path):
    _, _, optimizer = video.released(**RELEASED[name])
    place = files.exported(video.checkpoint(tmp_path, **RELEASED[name]), "safetensors", **given(name))
    state = torch.load(files.exported(place, name.split()[0]), weights_only=True)["opt"]
    fresh = torch.optim.AdamW([{"params": group["params"]} for group in optimizer.param_groups])
    fresh.load_state_dict(state)
    assert fresh.state.keys() == optimizer.state.keys()
    for parameter, kept in optimizer.state.items():
        assert all(torch.equal(fresh.state[parameter][key], value) for key, value in kept.items())


def test_mask_tokens_that_parted_ways(tmp_path):
    _, predictor, optimizer = video.released()
    state = copy.deepcopy(optimizer.state_dict())
    counted = [p for group in optimizer.param_groups for p in group["params"]]
    state["state"][[p is predictor.mask_tokens[1] for p in counted].index(True)]["step"] = torch.tensor(1.0)
    with pytest.raises(CheckpointError, match=r"mask tokens were trained for different numbers of steps \(2, 1\)"):
        read(video.checkpoint(tmp_path, opt=state), video.GIVEN)


@pytest.mark.parametrize("keys", [("encoder",), ("target_encoder",), ("encoder", "predictor")])
@pytest.mark.parametrize("name", ["vjepa", "vjepa2"])
def test_some_of_its_keys(keys, name, tmp_path):
    gone = {
        key: None for key in ("encoder", "target_encoder", "predictor", "opt", "scaler", "epoch") if key not in keys
    }
    found = read(video.checkpoint(tmp_path, **RELEASED[name], **gone), given(name))
    assert list(found.backbones) == ["online" if "encoder" in keys else "target"]
    assert bool(found.predictor) is ("predictor" in keys) and not found.optimizer


def test_the_teacher_by_its_other_name(tmp_path):
    state = video.released(False, 6)[0].state_dict()
    file = video.checkpoint(tmp_path, tables=False, tokens=6, target_encoder=None, ema_encoder=state)
    assert list(read(file, SECOND).backbones) == ["target", "online"]
    file = video.checkpoint(tmp_path, tables=False, tokens=6, ema_encoder=state)
    with pytest.raises(CheckpointError, match="two target encoders, target_encoder and ema_encoder"):
        read(file, SECOND)


@pytest.mark.parametrize(
    "part, changes, words",
    [
        ("encoder", {"blocks.0.norm1.bias": None}, "missing: encoder.blocks.0.norm1.bias$"),
        ("target_encoder", {"norm.weight": None}, "missing: norm.weight$"),
        ("encoder", {"pos_embed": None}, "missing: pos_embed$"),
        ("predictor", {"predictor_pos_embed": None}, "missing: predictor_pos_embed$"),
        ("predictor", {"mask_tokens.0": None}, "missing: mask_tokens.0$"),
        ("encoder", {"cls_token": torch.zeros(1, 1, 24)}, "left over: cls_token$"),
        ("encoder", {"norm.bias": torch.zeros(25)}, r"wrong shape: encoder.norm.bias \(25, not 24\)$"),
        ("encoder", {"pos_embed": video.table(24) + 0.01}, "learned or of another kind: pos_embed is up to 0.01 off"),
        ("target_encoder", {"pos_embed": torch.randn(1, 32, 24)}, "learned or of another kind: pos_embed"),
        ("target_encoder", {"pos_embed": video.table(24)[:, :31]}, "another kind: pos_embed of 31 tokens$"),
        ("predictor", {"predictor_pos_embed": torch.zeros(1, 16, 12)}, "wrong shape: predictor_pos_embed"),
        ("target_encoder", {"patch_embed.proj.weight": torch.zeros(24, 3, 2, 8, 4)}, "only squares of square patches"),
        ("target_encoder", {"patch_embed.proj.weight": torch.zeros(24, 1, 2, 8, 8)}, "it reads 1 channels"),
        ("predictor", {"action_encoder.weight": torch.zeros(12, 7)}, "an action-conditioned predictor .V-JEPA 2-AC."),
        ("encoder", {"norms_block.0.weight": torch.zeros(24)}, "norms of several layers .V-JEPA 2.1."),
        ("encoder", {"video_mod_embed": torch.zeros(1, 1, 24)}, "embeddings of modalities .V-JEPA 2.1., which cannot"),
    ],
)
def test_misfits(part, changes, words, tmp_path):
    file = video.checkpoint(tmp_path)
    found = torch.load(file, weights_only=True)
    for name, tensor in changes.items():
        found[part].pop(f"module.backbone.{name}", None)
        found[part] |= {} if tensor is None else {f"module.backbone.{name}": tensor}
    torch.save(found, file)
    with pytest.raises(CheckpointError, match=words) as caught:
        read(file, video.GIVEN)
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


def test_another_optimiser(tmp_path):
    encoder = video.released()[0]
    other = torch.optim.AdamW(encoder.parameters())
    other.state[encoder.norm.bias] = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(24)}
    with pytest.raises(CheckpointError, match="its optimiser counts 29 parameters, the model has 62"):
        read(video.checkpoint(tmp_path, opt=other.state_dict()), video.GIVEN)


@pytest.mark.parametrize("damage", ["cut", "foreign", "code"])
@pytest.mark.parametrize("to", ["vjepa", "vjepa2", "hf_vjepa2"])
def test_damaged_files(damage, to, tmp_path, capsys):
    """One line, and nothing is written."""
    place = files.exported(video.written(tmp_path, "vjepa" if to == "vjepa" else "vjepa2"), to)
    file = place / "model.safetensors" if place.is_dir() else place
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "foreign": b"hello", "code": b"cos\nsystem\n(S'x'\ntR."}[damage])
    capsys.readouterr()
    assert main(["import", str(place), f"out={tmp_path / 'out.safetensors'}"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and file.name in said.err and not said.out
    assert not (tmp_path / "out.safetensors").exists()


def test_each_file_is_of_one_format(tmp_path):
    """No format takes another's file for its own, and each knows what it wrote."""
    for name in ("vjepa", "vjepa2"):
        (folder := tmp_path / name).mkdir()
        source = video.written(folder, name)
        for to in video.HOLD[name]:
            content = open_content(files.exported(source, to))
            assert recognise(content)[0] == to and sum(form.recognise(content) for form in formats().values()) == 1


def test_what_tells_the_two_apart(tmp_path):
    for name, arguments in RELEASED.items():
        content = open_content(video.checkpoint(tmp_path, **arguments))
        assert recognise(content)[0] == name.split()[0]
        assert list(recognise(content)[1].summary(content)) == ["target", "online", "predictor", "optimizer"]


def test_tables_are_the_released_ones():
    """To the last bit in float32, for the released grids; and a table says which they are."""
    for (frames, size), width in {(16, 224): 1024, (16, 384): 384, (64, 256): 192, (2, 224): 1280}.items():
        grid, table = Grid(frames // 2, size // 16, size // 16), sincos_3d
        cut = torch.from_numpy(video.table(width, frames, size // 2).numpy())  # patches of 16, not of 8
        assert torch.equal(table(grid, width).float(), cut[0])
        assert clip_of(cut, {"tubelet": 2, "patch": 16}) == (frames, size)


@pytest.mark.parametrize(
    "width, hidden, ratio", [(1024, 2736, 4.0), (1408, 4096, 48 / 11), (24, 64, 4.0), (24, 24, 1.5)]
)
def test_gated_ratios(width, hidden, ratio):
    assert gated_ratio(width, hidden) == ratio
