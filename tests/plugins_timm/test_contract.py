"""Parts keep their contracts, at tiny sizes."""

from pathlib import Path

import pytest
import torch
import yaml
from jepakit_timm.encoder import TimmEncoder
from jepakit_timm.identity import Identity
from jepakit_timm.neighbours import Neighbours
from jepakit_timm.projector import Projector
from jepakit_timm.whole import Whole
from torch import nn

from jepakit import testing
from jepakit.jepa import Backbone
from jepakit.types import Grid, Mask

WHOLE = Mask(None, None, 0, 1)
CONFIGS = Path(__file__).parents[2] / "plugins" / "jepakit_timm" / "configs" / "encoder"
VARIANTS = {
    "convnext_small": (768, 768),
    "convnext_small_vicregl": (768, 8192),
    "convnext_small_image_mcjepa": (320, 512),
    "convnext_tiny_mcjepa": (768, 8192),
    "resnet18_small": (512, 1024),
    "resnet50": (2048, 2048),
    "resnet50_vicreg": (2048, 8192),
    "resnet50_vicregl": (2048, 8192),
    "vit_large14": (1024, 512),
    "vit_small8": (512, 16),
    "vit_small_image": (192, 64),
    "vit_small_image_vicreg": (192, 512),
    "vit_small_image_vicregl": (192, 512),
}
"""Widths of representation and embedding."""


@pytest.mark.parametrize("stride", [None, 8])
@pytest.mark.parametrize("shape", [(3, 1, 32, 32), (3, 4, 16, 24)])
def test_whole(stride, shape):
    testing.check_tokenizer(Whole(stride), shape)


@pytest.mark.parametrize("gives", ["pooled", "tokens", "pyramid", "both"])
@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext"])
def test_encoder(model, gives):
    testing.check_encoder(TimmEncoder(model=model, gives=gives))


def test_levels_within_the_stem():
    """MC-JEPA's: a stem of two convolutions, four stages, and a pooled vector."""
    split = {"stem_type": "overlap_tiered"}
    made = TimmEncoder(
        model="test_convnext", gives="both", layers=(0, 1, 2, 3), stem=True, expander=(7,), model_args=split
    )
    testing.check_encoder(made)
    model, levels = made.body.model, made.body(pictures := torch.randn(2, 3, 64, 64))
    assert [level.shape[1] for level in levels] == [32**2, 16**2, 16**2, 8**2, 4**2, 2**2, 1]
    torch.testing.assert_close(levels[0], model.stem[0](pictures).flatten(2).transpose(1, 2))
    torch.testing.assert_close(levels[1], model.stem(pictures).flatten(2).transpose(1, 2))
    assert made.widths == (*(level.shape[2] for level in levels[:-1]), 7) and made.width == 7
    assert not model.stem[0]._forward_hooks
    patches = TimmEncoder(model="test_convnext", gives="pyramid", stem=True)
    assert [level.shape[1] for level in patches.body(pictures)] == [16**2, 16**2, 8**2, 4**2, 2**2]
    with pytest.raises(ValueError, match="stem=true is for models of timm that have a stem, such as ConvNeXt"):
        TimmEncoder(model="test_vit", gives="pyramid", stem=True)


def test_neighbours():
    """A guess does not depend on its own patch, and does on each one around it."""
    made, grid = Neighbours((4, 6, 8), level=1, hidden=5), Grid(1, 4, 6)
    levels = torch.randn(2, 6, 4), torch.randn(2, 24, 6, requires_grad=True), torch.randn(2, 1, 8)
    guess = made(levels, Mask(None, None), grid)
    assert [each.shape for each in guess] == [(2, 1, 6, 4), (2, 1, 24, 6), (2, 1, 1, 8)]
    assert torch.equal(guess[0][:, 0], levels[0]) and torch.equal(guess[2][:, 0], levels[2])
    (reached,) = torch.autograd.grad(guess[1][0, 0, 8].sum(), levels[1])  # row 1, column 2
    rows = sorted(6 * row + column for row in (0, 1, 2) for column in (1, 2, 3))
    assert reached[0].abs().sum(1).nonzero().flatten().tolist() == [n for n in rows if n != 8] and not reached[1].any()
    wrong = {
        "needs a masker such as itself": lambda: made(levels, Mask(None, torch.zeros(2, 1, 1).long()), grid),
        "1 features a view are no map of patches": lambda: Neighbours((8,))(levels[2], Mask(None, None), grid),
        "neighbours.level=3: the encoder gives 3 levels": lambda: Neighbours((4, 6, 8), level=3),
        "the answers have another width": lambda: Neighbours((4, 6), target_width=5),
        "it must be at least 1": lambda: Neighbours((4, 6), reach=0),
    }
    for line, call in wrong.items():
        with pytest.raises(ValueError, match=line):
            call()


@pytest.mark.parametrize("norm", ["bn", "ln"])
def test_encoder_with_expanders(norm):
    made = TimmEncoder(model="test_resnet", gives="both", expander=(8, 6), token_expander=(5,), expander_norm=norm)
    assert made.width == 6 and made.representation_width == 96
    testing.check_encoder(made)


def test_the_representation_is_held_to_its_width():
    made = TimmEncoder(model="test_resnet", expander=(8,))
    made.representation_width = 8
    with pytest.raises(AssertionError, match="it is 96 wide, representation_width says 8"):
        testing.check_encoder(made)


def test_what_features_do_not_depend_on_is_left_out():
    """A ConvNeXt's last norm is that of its pooled vector."""
    names = {
        g: {n for n, _ in TimmEncoder(model="test_convnext", gives=g).named_parameters()} for g in ("pooled", "tokens")
    }
    assert {name.removeprefix("body.model.") for name in names["pooled"] - names["tokens"]} == {
        "head.norm.weight",
        "head.norm.bias",
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name):
    """At their real size, without content."""
    body = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text("utf-8"))
    body = {key: tuple(value) if isinstance(value, list) else value for key, value in body.items() if key != "name"}
    with torch.device("meta"):
        made = TimmEncoder(**body)
    assert (made.representation_width, made.width) == VARIANTS[name]
    last = made.expanders[-1].layers[-1] if "expander" in body else None
    assert last is None or (last.bias is not None) == (
        name.startswith("vit") and "vicreg" not in name
    )  # LeJEPA has one, VICReg none


def test_every_variant_is_looked_at():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(VARIANTS)


def test_identity():
    seen = torch.randn(2, 5, 4)
    assert torch.equal(Identity()(seen, WHOLE, Grid(1, 1, 5)), seen[:, None])
    levels = Identity()((seen, seen[:, :1]), WHOLE, Grid(1, 1, 5))
    assert [level.shape for level in levels] == [(2, 1, 5, 4), (2, 1, 1, 4)]
    with pytest.raises(ValueError, match="identity says again what was seen"):
        Identity()(seen, Mask(None, torch.zeros(2, 1, 1, dtype=torch.long)), Grid(1, 1, 5))
    with pytest.raises(ValueError, match="identity takes no condition"):
        Identity()(seen, WHOLE, Grid(1, 1, 5), torch.ones(2))


@pytest.mark.parametrize("norm", ["bn", "ln"])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
def test_projector(hidden, norm):
    made = Projector(4, 3, hidden, norm)
    testing.check_predictor(made, torch.randn(2, 4, 4), width=3)
    assert len([each for each in made.layers.layers if isinstance(each, nn.Linear)]) == len(hidden) + 1
    with pytest.raises(ValueError, match="projector guesses each token from itself"):
        made(torch.randn(2, 5, 4), Mask(None, torch.zeros(2, 1, 1, dtype=torch.long)), Grid(1, 1, 5))
    with pytest.raises(ValueError, match="projector reads tokens of one width, the encoder gives a pyramid of 2"):
        made((torch.randn(2, 5, 4), torch.randn(2, 1, 4)), WHOLE, Grid(1, 1, 5))


def test_views_may_have_any_size():
    convnet = Backbone(Whole(), TimmEncoder(model="test_resnet"))
    transformer = Backbone(
        Whole(16), TimmEncoder(model="test_vit", gives="tokens", model_args={"dynamic_img_size": True})
    )
    for side in (32, 64):
        assert convnet(torch.randn(2, 3, 1, side, side)).shape == (2, 1, 96)
        assert transformer(torch.randn(2, 3, 1, side, side)).shape == (2, (side // 16) ** 2, 64)


def test_a_backbone_without_an_expander_represents_what_it_gives():
    class Mean(nn.Module):
        width = 3

        def forward(self, tokens, index, grid):
            return tokens.mean((-2, -1))

    backbone, pixels = Backbone(Whole(), Mean()), torch.randn(2, 3, 1, 8, 8)
    assert torch.equal(backbone.represent(pixels), backbone(pixels)) and backbone.representation_width == 3
