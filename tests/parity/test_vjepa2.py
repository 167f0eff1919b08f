"""Encoder and predictor with V-JEPA 2's positions against Hugging Face: the same numbers for the same weights.

Hugging Face encodes everything and then leaves tokens out. Its layers take places, so that what an encoder of the
context alone gives can be put together from them.
"""

import pytest
import torch
from jepakit_vit.encoder import VitEncoder
from jepakit_vit.predictor import VitPredictor
from jepakit_vit.tokenizer import PatchTokenizer
from omegaconf import OmegaConf
from torch import Tensor
from transformers import VJEPA2Config, VJEPA2Model

from jepakit.catalog import Catalog
from jepakit.jepa import Backbone
from jepakit.plugins import discover
from jepakit.types import Grid, Mask, take
from tests.parity import plain
from tests.parity.shared import close, randn, shaken, some

WIDTH, DEPTH, HEADS = 36, 2, 2
"""Heads of 18 channels: three pairs for each axis."""
PREDICTOR = 28, 2, 2
"""Heads of 14: two pairs for each axis, and two channels that are not turned."""
TOKENS = 4
PATCH, TUBELET, FRAMES, SIDE = 4, 2, 6, 3
GRID = Grid(FRAMES // TUBELET, SIDE, SIDE)
KEPT, ASKED = 8, 11


def video(qkv_bias: bool = True, positions: str = "rope_tiled") -> tuple[Backbone, VitPredictor]:
    tokenizer = PatchTokenizer(3, WIDTH, PATCH, TUBELET)
    encoder = VitEncoder(WIDTH, DEPTH, HEADS, positions=positions, qkv_bias=qkv_bias)
    predictor = VitPredictor(WIDTH, *PREDICTOR, mask_tokens=TOKENS, positions=positions, qkv_bias=qkv_bias)
    return shaken(Backbone(tokenizer, encoder).double()), shaken(predictor.double(), seed=1)


def hugging_face(backbone: Backbone, predictor: VitPredictor) -> VJEPA2Model:
    width, depth, heads = PREDICTOR
    model = VJEPA2Model(
        VJEPA2Config(
            patch_size=PATCH,
            crop_size=SIDE * PATCH,
            frames_per_clip=FRAMES,
            tubelet_size=TUBELET,
            hidden_size=WIDTH,
            num_attention_heads=HEADS,
            num_hidden_layers=DEPTH,
            qkv_bias=backbone.encoder.blocks[0].attn.qkv.bias is not None,
            pred_hidden_size=width,
            pred_num_attention_heads=heads,
            pred_num_hidden_layers=depth,
            pred_num_mask_tokens=TOKENS,
            layer_norm_eps=plain.EPS,
            attn_implementation="sdpa",  # the other one rounds to float32
        )
    )
    model.double().eval().load_state_dict({**encoder_weights(backbone), **predictor_weights(predictor)}, strict=True)
    return model


def encoder_weights(backbone: Backbone) -> dict[str, Tensor]:
    found = renamed(backbone.encoder.state_dict(), "encoder")
    box = (3, TUBELET, PATCH, PATCH)
    found["encoder.embeddings.patch_embeddings.proj.weight"] = backbone.tokenizer.proj.weight.unflatten(1, box)
    found["encoder.embeddings.patch_embeddings.proj.bias"] = backbone.tokenizer.proj.bias
    return found


def predictor_weights(predictor: VitPredictor) -> dict[str, Tensor]:
    found = renamed(predictor.state_dict(), "predictor")
    found["predictor.embeddings.mask_tokens"] = found.pop("predictor.mask_token")[:, None, None]
    for each in ("weight", "bias"):
        found[f"predictor.embeddings.predictor_embeddings.{each}"] = found.pop(f"predictor.embed.{each}")
    return found


def renamed(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """Hugging Face's names of blocks and norms: query, key and value are three layers."""
    found = {}
    for name, value in state.items():
        name = f"{part}.{name}".replace(".blocks.", ".layer.").replace(".attn.", ".attention.")
        name = name.replace(f"{part}.norm.", f"{part}.layernorm.")
        pieces = zip(("query", "key", "value"), value.chunk(3), strict=True) if ".qkv." in name else [("", value)]
        found |= {name.replace("qkv", piece): each for piece, each in pieces}
    return found


@pytest.fixture(params=[True, False], ids=["bias", "no bias"])
def models(request) -> tuple[Backbone, VitPredictor, VJEPA2Model]:
    parts = video(request.param)
    return *parts, hugging_face(*parts)


@pytest.fixture
def clips() -> Tensor:
    return randn(2, 3, FRAMES, SIDE * PATCH, SIDE * PATCH)


def test_the_encoder_of_whole_clips(models, clips):
    backbone, _, model = models
    expected = model(clips.transpose(1, 2), skip_predictor=True).last_hidden_state
    assert expected.dtype == torch.float64 and expected.shape == (2, GRID.size, WIDTH)
    close(backbone(clips), expected)


def test_the_encoder_of_a_context(models, clips):
    backbone, _, model = models
    keep = some(2, GRID.size, KEPT)
    x = take(model.encoder.embeddings(clips.transpose(1, 2)), keep)
    for layer in model.encoder.layer:
        x, _ = layer(x, keep)
    close(backbone(clips, keep), model.encoder.layernorm(x))


def test_a_shorter_clip(models):
    backbone, _, model = models
    short = randn(2, 3, 2 * TUBELET, SIDE * PATCH, SIDE * PATCH)
    close(backbone(short), model(short.transpose(1, 2), skip_predictor=True).last_hidden_state)


def test_a_picture_that_stands_still(models):
    backbone, _, model = models
    picture = randn(2, 3, 1, SIDE * PATCH, SIDE * PATCH)
    close(backbone(picture), model(picture.transpose(1, 2), skip_predictor=True).last_hidden_state)


def test_the_predictor_whatever_the_order_of_tokens(models, clips):
    """Places are drawn in no order; V-JEPA 2 sorts them, and nothing here does."""
    backbone, predictor, model = models
    order = some(2, GRID.size, KEPT + ASKED)
    context, target = order[:, :KEPT], order[:, KEPT:]
    assert not torch.equal(order, order.sort(1).values)
    expected = model(clips.transpose(1, 2), context_mask=[context], target_mask=[target]).predictor_output
    seen = take(backbone(clips), context)
    found = predictor(seen, Mask(context, target[:, None], kind=1), GRID)  # the one that Hugging Face takes
    close(found.squeeze(1), expected.last_hidden_state)
    moved = predictor(seen.flip(1), Mask(context.flip(1), target[:, None].flip(2), kind=1), GRID)
    close(moved.flip(2), found)


def test_blocks_side_by_side_are_predictions_one_by_one(models, clips):
    backbone, predictor, model = models
    context = some(2, GRID.size, KEPT)
    blocks = some(6, GRID.size, 4, seed=1).unflatten(0, (2, 3))
    found = predictor(take(backbone(clips), context), Mask(context, blocks, kind=1), GRID)
    for m in range(3):
        given = {"context_mask": [context], "target_mask": [blocks[:, m]]}
        close(found[:, m], model(clips.transpose(1, 2), **given).predictor_output.last_hidden_state)


def test_positions_of_another_kind_are_told_apart(clips):
    model = hugging_face(*video())
    for positions in ("rope", "sincos_3d"):
        backbone, _ = video(positions=positions)
        backbone.load_state_dict(video()[0].state_dict())
        expected = model(clips.transpose(1, 2), skip_predictor=True).last_hidden_state
        assert (backbone(clips) - expected).abs().max() > 1e-3


SIZES = {"vjepa2_large": {}, "vjepa2_huge": {"hidden_size": 1280, "num_hidden_layers": 32}}
SIZES["vjepa2_giant"] = {"hidden_size": 1408, "num_hidden_layers": 40, "num_attention_heads": 22, "mlp_ratio": 48 / 11}


@pytest.mark.parametrize("name", SIZES)
def test_released_sizes_have_as_many_weights(name):
    """Hugging Face's defaults are those of the released ViT-L; of mask tokens it keeps ten, one was trained."""
    with torch.device("meta"):
        encoder = VitEncoder(**variant("encoder", name))
        parts = Backbone(PatchTokenizer(3, encoder.width, **variant("tokenizer", "tubelet16")), encoder)
        predictor = VitPredictor(encoder.width, **variant("predictor", "vjepa2_predictor"))
        model = VJEPA2Model(VJEPA2Config(pred_num_mask_tokens=1, **SIZES[name]))
    assert size(parts) == size(model.encoder) and size(predictor) == size(model.predictor)
    assert encoder.blocks[0].attn.heads == model.config.num_attention_heads
    assert predictor.blocks[0].attn.heads == model.config.pred_num_attention_heads


def variant(group: str, name: str) -> dict:
    catalog = Catalog(discover())
    found = OmegaConf.to_container(catalog.body(catalog.get(group, name)))
    assert isinstance(found, dict)
    return {key: value for key, value in found.items() if key != "name"}


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
