"""The encoder against Hugging Face, timm and the plain formulas: the same numbers for the same weights."""

import pytest
import timm
import torch
from jepakit_vit.encoder import VitEncoder
from jepakit_vit.tokenizer import PatchTokenizer
from torch.nn import functional as F
from transformers import IJepaConfig, IJepaModel

from jepakit.jepa import Backbone
from jepakit.kernels import attend
from jepakit.types import Grid, take
from tests.parity import plain
from tests.parity.shared import DEPTH, HEADS, PATCH, WIDTH, close, randn, shaken, some

SIDE = 6
"""Tokens on a side."""


@pytest.fixture
def backbone() -> Backbone:
    tokenizer, encoder = PatchTokenizer(3, WIDTH, patch=PATCH), VitEncoder(WIDTH, DEPTH, HEADS)
    return shaken(Backbone(tokenizer, encoder).double())


@pytest.fixture
def pictures() -> torch.Tensor:
    return randn(3, 3, 1, SIDE * PATCH, SIDE * PATCH)


def timm_weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    """timm's names and shapes: blocks and norm are ours already."""
    found = dict(backbone.encoder.state_dict())
    found["patch_embed.proj.weight"] = backbone.tokenizer.proj.weight.unflatten(1, (3, PATCH, PATCH))
    found["patch_embed.proj.bias"] = backbone.tokenizer.proj.bias
    found["pos_embed"] = plain.positions(SIDE, SIDE, WIDTH)[None]
    return found


def hugging_face_weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    """Hugging Face's names: query, key and value are three layers, the norms go by their place."""
    renamed = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj"}
    found = {}
    for name, value in timm_weights(backbone).items():
        name = name.replace("blocks.", "layers.").replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        name = name.replace("pos_embed", "embeddings.position_embeddings")
        name = "layernorm." + name.removeprefix("norm.") if name.startswith("norm.") else name
        for ours, theirs in renamed.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        if ".attn.qkv." in name:
            parts = zip("qkv", value.chunk(3), strict=True)
            found |= {name.replace("attn.qkv", f"attention.{each}_proj"): part for each, part in parts}
        else:
            found[name] = value
    return found


def timm_model(backbone: Backbone) -> torch.nn.Module:
    model = timm.models.VisionTransformer(
        SIDE * PATCH, PATCH, 3, 0, "", WIDTH, DEPTH, HEADS, class_token=False, norm_layer=None
    ).double()
    model.load_state_dict(timm_weights(backbone), strict=True)
    return model.eval()


def test_the_same_as_hugging_face(backbone, pictures):
    config = IJepaConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        image_size=SIDE * PATCH,
        patch_size=PATCH,
        layer_norm_eps=plain.EPS,  # its default is another one
    )
    model = IJepaModel(config, add_pooling_layer=False).double().eval()
    model.load_state_dict(hugging_face_weights(backbone), strict=True)
    close(backbone(pictures), model(pictures.squeeze(2)).last_hidden_state)


def test_the_same_as_timm(backbone, pictures):
    close(backbone(pictures), timm_model(backbone)(pictures.squeeze(2)))


def test_the_context_encoder_is_timms_with_tokens_left_out(backbone, pictures):
    model, keep = timm_model(backbone), some(3, SIDE**2, 11)
    x = model.patch_embed(pictures.squeeze(2)) + model.pos_embed
    x = torch.stack([sample[kept] for sample, kept in zip(x, keep, strict=True)])
    close(backbone(pictures, keep), model.norm(model.blocks(x)))


@pytest.mark.parametrize("rows, columns", [(6, 6), (3, 7), (8, 2), (1, 5)])
def test_the_same_as_the_formulas_on_any_grid(backbone, rows, columns):
    pictures = randn(2, 3, 1, rows * PATCH, columns * PATCH)
    keep = some(2, rows * columns, 4)
    weights = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    expected = [
        plain.encode(picture[:, 0], kept, weights, "backbone", PATCH, DEPTH, HEADS)
        for picture, kept in zip(pictures, keep, strict=True)
    ]
    close(backbone(pictures, keep), torch.stack(expected))


def test_order_of_the_kept_tokens_does_not_matter(backbone, pictures):
    keep = some(3, SIDE**2, 11)
    close(backbone(pictures, keep.flip(1)), backbone(pictures, keep).flip(1))


def test_dropped_pixels_are_never_looked_at(backbone, pictures):
    keep = some(3, SIDE**2, 11)
    seen = take(torch.eye(SIDE**2).expand(3, -1, -1), keep).sum(1).bool()  # B N
    pixels = seen.view(3, 1, 1, SIDE, SIDE).repeat_interleave(PATCH, 3).repeat_interleave(PATCH, 4)
    hidden = pictures.masked_fill(~pixels, torch.nan)
    assert hidden.isnan().any() and torch.equal(backbone(hidden, keep), backbone(pictures, keep))
    assert backbone(hidden).isnan().any()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_both_ways_of_attention_agree(dtype, tolerance):
    q, k, v = randn(3, 2, 4, 17, 8).to(dtype)
    weights = (q.double() @ k.double().mT / 8**0.5).softmax(-1)
    for found in (attend(q, k, v), F.scaled_dot_product_attention(q, k, v)):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), weights @ v.double(), rtol=tolerance, atol=tolerance)


def test_bf16_on_a_cpu_takes_plain_products_and_fp32_the_fused_kernel(monkeypatch):
    called = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a: called.append(a[0].dtype) or fused(*a))
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        attend(*randn(3, 1, 1, 4, 8).to(dtype))
    assert called == [torch.float32, torch.float64]


def test_bf16_autocast_is_close_to_fp32(backbone, pictures):
    backbone, pictures = backbone.float(), pictures.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = backbone(pictures)
    assert F.cosine_similarity(found.float(), backbone(pictures), dim=-1).min() > 0.99


def test_paths_are_dropped_in_training_only_and_more_of_the_later():
    encoder = shaken(VitEncoder(WIDTH, 3, HEADS, drop_path=0.5).double())
    assert [block.drop_path.drop_prob for block in encoder.blocks] == [0.0, 0.25, 0.5]
    whole = VitEncoder(WIDTH, 3, HEADS).double()
    whole.load_state_dict(encoder.state_dict())
    x, grid = randn(2, 6, WIDTH), Grid(1, 2, 3)
    close(encoder.eval()(x, None, grid), whole(x, None, grid))
    assert not torch.equal(encoder.train()(x, None, grid), whole(x, None, grid))
