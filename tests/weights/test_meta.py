"""Checkpoints of the released I-JEPA code: what is read of them, and what is refused with the reason."""

import copy

import pytest
import torch
from jepakit_vit.formats.settings import heads_of
from jepakit_vit.positions import sincos_2d

from jepakit.errors import CheckpointError
from jepakit.types import Grid
from jepakit.weights import read
from tests.weights import files

GIVEN = {"heads": 3, "predictor_heads": 2}
TABLE = files.table(4, 24)


def test_states(tmp_path):
    encoder, predictor, _ = files.released()
    found = read(files.meta(tmp_path), GIVEN)
    state = encoder.state_dict()
    assert torch.equal(found.backbones["online"]["tokenizer.proj.weight"], state["patch_embed.proj.weight"].flatten(1))
    qkv = "blocks.1.attn.qkv.weight"
    assert torch.equal(found.backbones["online"][f"encoder.{qkv}"], state[qkv])
    assert torch.equal(found.backbones["target"][f"encoder.{qkv}"], state[qkv] * 0.5)
    assert torch.equal(found.predictor["mask_token"], predictor.mask_token[0])
    assert torch.equal(found.predictor["blocks.1.mlp.fc2.bias"], predictor.predictor_blocks[1].mlp.fc2.bias)


def test_settings(tmp_path):
    config = read(files.meta(tmp_path), GIVEN).config
    assert config["tokenizer"] == {"name": "patch", "patch": 7} and config["data"]["size"] == 28
    assert config["encoder"] == {"name": "vit", "width": 24, "heads": 3, "depth": 2, "mlp_ratio": 104 / 24}
    assert config["predictor"]["width"] == 12 and config["predictor"]["heads"] == 2


def test_values(tmp_path):
    about = read(files.meta(tmp_path), GIVEN).about
    assert {key: about[key] for key in ("format", "epoch", "loss")} == {
        "format": "Meta I-JEPA",
        "epoch": 7,
        "loss": 0.25,
    }


def test_moments(tmp_path):
    """AdamW numbers parameters group by group, frozen tables among them; each moment finds its parameter."""
    encoder, predictor, optimizer = files.released()
    found = read(files.meta(tmp_path), GIVEN).optimizer
    pairs = {
        "backbone.tokenizer.proj.weight": encoder.patch_embed.proj.weight,
        "backbone.encoder.blocks.1.norm2.bias": encoder.blocks[1].norm2.bias,
        "backbone.encoder.norm.weight": encoder.norm.weight,
        "predictor.mask_token": predictor.mask_token,
        "predictor.embed.weight": predictor.predictor_embed.weight,
        "predictor.blocks.0.attn.qkv.bias": predictor.predictor_blocks[0].attn.qkv.bias,
        "predictor.proj.bias": predictor.predictor_proj.bias,
    }
    for name, parameter in pairs.items():
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(found[f"{name}/{key}"].flatten(), value.flatten()), name
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    assert len(found) == 3 * len(trained)


def test_steps_of_older_versions(tmp_path):
    state = copy.deepcopy(files.released()[2].state_dict())
    state["state"] = {number: {**each, "step": 2} for number, each in state["state"].items()}
    found = read(files.meta(tmp_path, opt=state), GIVEN).optimizer
    assert torch.equal(found["predictor.mask_token/step"], torch.tensor(2.0))


@pytest.mark.parametrize(
    "keys", [("encoder",), ("target_encoder",), ("encoder", "predictor"), ("encoder", "opt", "predictor")]
)
def test_some_of_its_keys(keys, tmp_path):
    gone = {
        key: None for key in ("encoder", "target_encoder", "predictor", "opt", "scaler", "epoch") if key not in keys
    }
    found = read(files.meta(tmp_path, **gone), GIVEN)
    assert list(found.backbones) == ["online" if "encoder" in keys else "target"]
    assert bool(found.predictor) is ("predictor" in keys) and bool(found.optimizer) is ("opt" in keys)


def test_no_prefix(tmp_path):
    state = files.released()[0].state_dict()
    assert list(read(files.meta(tmp_path, encoder=state), GIVEN).backbones) == ["target", "online"]


def test_released_heads():
    assert heads_of(1280, {}) == 16 and heads_of(1280, {"heads": 20}) == 20


@pytest.mark.parametrize(
    "given, words",
    [
        ({}, "a width of 24 is no released size .* add heads=N"),
        ({"heads": 5}, "heads=5 do not divide a width of 24"),
        ({"heads": 0}, "heads=0 do not divide"),
        ({"heads": 3, "predictor_heads": 5}, "width 12 cannot be split over 5 heads"),
    ],
)
def test_heads(given, words, tmp_path):
    with pytest.raises(CheckpointError, match=words):
        read(files.meta(tmp_path), given)


@pytest.mark.parametrize(
    "part, tensors, words",
    [
        ("encoder", {"blocks__0__norm1__bias": None}, "missing: encoder.blocks.0.norm1.bias$"),
        ("encoder", {"norm__weight": None, "norm__bias": None}, "missing: encoder.norm.bias, encoder.norm.weight$"),
        ("target_encoder", {"norm__weight": None}, "missing: norm.weight$"),
        ("encoder", {"pos_embed": None}, "missing: pos_embed$"),
        ("predictor", {"predictor_pos_embed": None}, "missing: predictor_pos_embed$"),
        ("target_encoder", {"cls_token": torch.zeros(1, 1, 24)}, "left over: cls_token$"),
        ("predictor", {"predictor_blocks__2__norm1__bias": torch.zeros(12)}, "missing: .*blocks.2.* and 5 more"),
        ("encoder", {"norm__bias": torch.zeros(25)}, r"wrong shape: encoder.norm.bias \(25, not 24\)$"),
        (
            "encoder",
            {"pos_embed": torch.zeros(1, 9, 24)},
            r"wrong shape: pos_embed \(1 x 9 x 24, not 1 x 16 x 24\)$",
        ),
        (
            "encoder",
            {"pos_embed": TABLE + 0.01},
            "learned or of another kind: pos_embed is up to 0.01 off",
        ),
        ("encoder", {"pos_embed": TABLE.roll(12, 2)}, "learned or of another kind: pos_embed"),
        ("predictor", {"predictor_pos_embed": torch.randn(1, 16, 12)}, "another kind: predictor_pos_embed"),
    ],
)
def test_misfits(part, tensors, words, tmp_path):
    with pytest.raises(CheckpointError, match=words) as caught:
        read(files.changed(files.meta(tmp_path), part, **tensors), GIVEN)
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


def test_left_over_parts(tmp_path):
    with pytest.raises(CheckpointError, match="left over: head/weight"):
        read(files.meta(tmp_path, head={"weight": torch.zeros(3)}), GIVEN)


def test_another_optimiser(tmp_path):
    encoder = files.released()[0]
    other = torch.optim.AdamW(encoder.parameters())
    other.state[encoder.norm.bias] = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(24)}
    with pytest.raises(CheckpointError, match="its optimiser counts 29 parameters, the model has 61"):
        read(files.meta(tmp_path, opt=other.state_dict()), GIVEN)


def test_moments_of_another_shape(tmp_path):
    state = copy.deepcopy(files.released()[2].state_dict())
    state["state"][1]["exp_avg"] = torch.zeros(2, 3)
    with pytest.raises(CheckpointError, match="wrong shape: opt/state/1/exp_avg .2 x 3., which belongs to patch_embed"):
        read(files.meta(tmp_path, opt=state), GIVEN)


def test_tables_are_the_released_ones():
    """To the last bit in float32, for the released grids."""
    for side, width in ((14, 768), (16, 1280), (28, 384), (14, 1408)):
        assert torch.equal(sincos_2d(Grid(1, side, side), width).float(), files.table(side, width)[0])
