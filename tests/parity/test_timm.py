"""What timm's models give, to the last bit; and the expander against its formula."""

import pytest
import timm
import torch
from jepakit_timm.encoder import TimmEncoder
from jepakit_timm.expander import Expander
from jepakit_timm.whole import Whole, boxes, frames
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit.jepa import Backbone
from jepakit.types import Grid, take
from tests.parity.shared import close, randn, shaken

SIDE, STRIDES = 160, {"test_resnet": 32, "test_vit": 16, "test_convnext": 32}
"""Pixels that timm makes its test models for, and pixels along a side of a token of their last map."""


def backbone(model: str, stride: int | None = None, **arguments: object) -> Backbone:
    """In evaluation mode, its weights far from where training starts."""
    return shaken(Backbone(Whole(stride), TimmEncoder(model=model, **arguments))).eval()


def original(model: str, ours: Backbone) -> nn.Module:
    """timm's own, with our weights and no classifier."""
    made = timm.create_model(model, num_classes=0).eval()
    lacking, strange = made.load_state_dict(ours.encoder.body.model.state_dict(), strict=False)
    assert not strange
    assert all(name.startswith(("head.norm", "layer4", "blocks")) for name in lacking)  # what our features do not need
    return made


def rows(maps: Tensor) -> Tensor:
    """``F C h w`` as tokens."""
    return maps.flatten(2).transpose(1, 2)


@pytest.fixture
def pictures() -> Tensor:
    return randn(2, 3, 1, SIDE, SIDE).float()


@pytest.mark.parametrize("model", STRIDES)
def test_pooled_is_the_headless_model(model, pictures):
    ours = backbone(model)
    assert torch.equal(ours(pictures)[:, 0], original(model, ours)(pictures[:, :, 0]))
    assert ours.grid(pictures) == Grid(1, 1, 1) and ours(pictures).shape == (2, 1, ours.width)


@pytest.mark.parametrize("model", STRIDES)
def test_tokens_are_the_last_features(model, pictures):
    ours = backbone(model, STRIDES[model], gives="tokens")
    theirs = original(model, ours).forward_features(pictures[:, :, 0])
    expected = theirs[:, 1:] if model == "test_vit" else rows(theirs)  # less the class token
    assert torch.equal(ours(pictures), expected)
    assert ours.grid(pictures).size == expected.shape[1] and ours.encoder.stride == STRIDES[model]


@pytest.mark.parametrize(("model", "layers"), [(m, x) for m in STRIDES for x in (None, (1, 3))])
def test_a_pyramid_is_the_intermediates(model, layers, pictures):
    ours = backbone(model, gives="pyramid", layers=layers)
    indices = None if layers is None else list(layers)
    theirs = original(model, ours).forward_intermediates(
        pictures[:, :, 0], indices=indices, norm=True, intermediates_only=True
    )
    found = ours(pictures)
    assert len(found) == len(theirs) > 1
    assert all(torch.equal(level, rows(other)) for level, other in zip(found, theirs, strict=True))
    assert [level.shape[1] for level in found] == sorted((level.shape[1] for level in found), reverse=True)


@pytest.mark.parametrize("model", STRIDES)
def test_both_are_tokens_and_pooled(model, pictures):
    ours = backbone(model, gives="both")
    tokens, pooled = ours(pictures)
    for alone, stride, gives in ((tokens, STRIDES[model], "tokens"), (pooled, None, "pooled")):
        other = Backbone(Whole(stride), TimmEncoder(model=model, gives=gives)).eval()
        other.encoder.load_state_dict(
            {k: v for k, v in ours.encoder.state_dict().items() if k in other.encoder.state_dict()}
        )
        assert torch.equal(other(pictures), alone)


def test_tokens_are_normed_before_they_are_averaged_where_it_is_asked_for():
    """VICRegL's ConvNeXts, by an argument of timm's."""
    ours = backbone("test_convnext", gives="both", model_args={"head_norm_first": True})
    tokens, pooled = ours(randn(2, 3, 1, 64, 64).float())
    torch.testing.assert_close(tokens.mean(1, keepdim=True), pooled)


def test_a_head_is_part_of_the_representation(pictures):
    ours = backbone("test_vit", head=12, expander=(8, 4), expander_bias=True)
    vector = ours.encoder.body.model(pictures[:, :, 0])
    assert torch.equal(ours.represent(pictures)[:, 0], vector) and vector.shape == (2, 12)
    assert ours.representation_width == 12 and ours.width == 4


@pytest.mark.parametrize("stride", [None, 4, 8])
def test_boxes_make_up_the_picture_again(stride):
    pixels = randn(2, 3, 4, 16, 24)
    tokenizer = Whole(stride)
    grid, tokens = tokenizer.grid(4, 16, 24), tokenizer(pixels)
    assert tokens.shape == (2, grid.size, 3, stride or 16, stride or 24)
    assert torch.equal(frames(tokens, grid), pixels.transpose(1, 2).flatten(0, 1))
    if stride:
        numbered = torch.arange(16 * 24.0).view(1, 1, 1, 16, 24)
        at = boxes(numbered, Grid(1, 16 // stride, 24 // stride))[0, 24 // stride + 1, 0]  # second row, second column
        assert torch.equal(at, numbered[0, 0, 0, stride : 2 * stride, stride : 2 * stride])


def test_frames_of_a_clip_are_encoded_one_by_one():
    clip = randn(2, 3, 3, SIDE, SIDE).float()
    for stride, gives in ((32, "tokens"), (None, "pooled"), (None, "pyramid")):
        ours = backbone("test_resnet", stride, gives=gives)
        alone = [ours(clip[:, :, frame : frame + 1]) for frame in range(3)]
        found = ours(clip)
        last, each = (found[-1], [x[-1] for x in alone]) if gives == "pyramid" else (found, alone)
        torch.testing.assert_close(last, torch.cat(each, 1))


def test_tokens_may_be_named_in_any_order(pictures):
    ours = backbone("test_vit", 16, gives="tokens")
    order = torch.stack([torch.randperm(100), torch.randperm(100)])
    assert torch.equal(ours(pictures, order), take(ours(pictures), order))


@pytest.mark.parametrize("norm", ["bn", "ln"])
@pytest.mark.parametrize("bias", [False, True])
def test_expander(norm, bias):
    """VICReg's: linear, norm, ReLU, ..., a last linear layer; the statistics are those of all tokens."""
    made = shaken(Expander(6, (10, 8, 5), norm, bias).double()).train()
    x = randn(4, 3, 6)
    first, one, _, second, two, _, last = made.layers
    assert (last.bias is not None) == bias
    y = x.reshape(12, 6)
    for linear, scale in ((first, one), (second, two)):
        y = y @ linear.weight.T + linear.bias
        over = 0 if norm == "bn" else 1
        y = (y - y.mean(over, keepdim=True)) / (y.var(over, correction=0, keepdim=True) + 1e-5).sqrt()
        y = (y * scale.weight + scale.bias).clamp_min(0)
    y = F.linear(y, last.weight, last.bias)
    close(made(x), y.view(4, 3, 5))


def test_an_expander_of_one_layer_is_linear():
    made = Expander(6, (4,)).double()
    close(made(randn(2, 3, 6)), randn(2, 3, 6) @ made.layers[0].weight.T)


def test_released_settings():
    """As VICReg, the last norm of each residual block starts from zero; VICRegL's ConvNeXts do not scale layers."""
    for kept in (True, False):
        resnet = TimmEncoder(model="test_resnet", model_args={"zero_init_last": kept}).body.model
        assert resnet.layer1[0].bn2.weight.any() != kept
    convnext = TimmEncoder(model="test_convnext", model_args={"ls_init_value": 1.0}).body.model
    scales = [p for name, p in convnext.named_parameters() if name.endswith("gamma")]
    assert scales and all(torch.equal(scale, torch.ones_like(scale)) for scale in scales)


@pytest.mark.parametrize("model", STRIDES)
def test_pictures_whose_channels_lie_last_give_the_same(model, pictures):
    """A GPU is given them so."""
    body = TimmEncoder(model=model, gives="pyramid").double().eval().body
    plain = pictures[:, :, 0].double()
    for one, other in zip(body(plain), body(plain.contiguous(memory_format=torch.channels_last)), strict=True):
        close(one, other)
