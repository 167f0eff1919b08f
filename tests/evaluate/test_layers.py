"""The last layers of any backbone, pooled; the last of them is what evaluations read elsewhere."""

import pytest
import torch
from jepakit_timm.encoder import TimmEncoder
from jepakit_timm.whole import Whole
from jepakit_vit.encoder import VitEncoder
from jepakit_vit.tokenizer import PatchTokenizer
from torch import nn

from jepakit.evaluate.features import Reading, extract, pool
from jepakit.evaluate.layers import layers, pooled, stack
from jepakit.jepa import Backbone

from .fakes import DATA, Blocks, Stripes


def vit(depth: int) -> Backbone:
    return Backbone(PatchTokenizer(3, 24, 8), VitEncoder(24, depth, 2)).eval()


def test_blocks_go_through_the_last_norm():
    model, pixels = vit(5), torch.randn(3, 3, 1, 32, 32)
    with torch.no_grad():
        found = pooled(model, pixels)
        x = model.encoder.positions(model.tokenizer(pixels), None, model.grid(pixels))
        expected = []
        for block in model.encoder.blocks:
            x = block(x, None)
            expected.append(model.encoder.norm(x).mean(1))
        torch.testing.assert_close(found[-1], pool(model(pixels)), rtol=0, atol=0)
    assert len(found) == 4
    for own, other in zip(found, expected[1:], strict=True):
        torch.testing.assert_close(own, other)


VIT = {"size": 32, "model_args": {"patch_size": 8, "depth": 3}}


@pytest.mark.parametrize(
    ("stride", "how", "widths"),
    [
        (8, {"model": "test_vit", "gives": "tokens", **VIT}, (64, 64, 64)),
        (None, {"model": "test_convnext", "gives": "pooled"}, (24, 32, 48, 64)),
        (None, {"model": "test_resnet", "gives": "pooled"}, (32, 48, 192, 96)),
        (None, {"model": "test_convnext", "gives": "pyramid"}, (24, 32, 48, 64)),
    ],
)
def test_timm_shows_its_stages(stride, how, widths):
    model, pixels = Backbone(Whole(stride), TimmEncoder(**how)).eval(), torch.randn(2, 3, 1, 32, 32)
    with torch.no_grad():
        found = pooled(model, pixels)
        torch.testing.assert_close(found[-1], pool(model.represent(pixels)), rtol=0, atol=0)
    assert tuple(each.shape[1] for each in found) == widths and all(each.isfinite().all() for each in found)


def test_clips_that_are_encoded_frame_by_frame_are_pooled_over_frames():
    model: nn.Module = vit(3)
    clip = torch.randn(2, 3, 2, 32, 32)
    with torch.no_grad():
        both = pooled(model, clip, alone=True)
        ends = [pooled(model, clip[:, :, t : t + 1]) for t in (0, 1)]
    for own, first, second in zip(both, *ends, strict=True):
        torch.testing.assert_close(own, (first + second) / 2)


def test_an_encoder_without_a_stack_has_one_layer():
    assert stack(Blocks()) is None
    found = layers(Blocks(), Stripes(9), Reading(DATA))
    plain = extract(Blocks(), Stripes(9), Reading(DATA))
    assert found.widths == (16,) and torch.equal(found.x, plain.x) and found.seen("last") is found


def test_no_hook_stays():
    model: nn.Module = vit(3)
    with torch.no_grad():
        pooled(model, torch.randn(2, 3, 1, 32, 32))
    assert not any(part._forward_hooks for part in model.modules())
