"""Sizes of the released models; the released configurations and the paper's appendix, value for value."""

import pytest
import torch

from jepakit.build import build_backbone, draw, make, parameters
from jepakit.compose import Together
from jepakit.config import resolve
from jepakit.distance import distance
from jepakit.jepa import Jepa
from jepakit.types import to_device

COMMON = {  # the same in all of facebookresearch/ijepa configs/; by the keys that the values have here
    # data
    "data.crop_scale": [0.3, 1.0],
    "data.flip": False,  # use_horizontal_flip
    # mask
    "masker.allow_overlap": False,
    "masker.target_aspect": [0.75, 1.5],  # aspect_ratio
    "masker.context_scale": [0.85, 1.0],  # enc_mask_scale
    "masker.min_keep": 10,
    "masker.targets": 4,  # num_pred_masks
    "masker.target_scale": [0.15, 0.2],  # pred_mask_scale
    # meta
    "predictor.width": 384,  # pred_emb_dim
    "trainer.precision": "bf16",  # use_bfloat16
    # optimization
    "anti_collapse.ema.start": 0.996,  # ema
    "anti_collapse.ema.end": 1.0,
    "anti_collapse.ema.stretch": 1.0,  # ipe_scale
    "optim.stretch": 1.0,
    "optim.lr": 1e-3,
    "optim.start_lr": 2e-4,
    "optim.final_lr": 1e-6,
    "optim.weight_decay": [0.04, 0.4],  # weight_decay, final_weight_decay
    # logging: every folder is named after a batch of 2048
    "trainer.global_batch": 2048,
}
IN_CODE = {  # facebookresearch/ijepa src/: what no configuration names
    "encoder.drop_path": 0.0,  # models/vision_transformer.py
    "predictor.mlp_ratio": 4.0,
    "predictor.mask_tokens": 1,
    "tokenizer.name": "patch",
    "tokenizer.tubelet": 1,
    "tokenizer.init_std": None,
    "masker.name": "multiblock",
    "masker.mode": "official",
    "masker.context_aspect": [1.0, 1.0],  # masks/multiblock.py
    "distance": "smooth_l1",  # train.py
    "anti_collapse.ema.normalise": True,
    "anti_collapse.ema.mask": "output",
    "optim.betas": [0.9, 0.999],  # torch's defaults, helper.py
    "optim.eps": 1e-8,
    "optim.clip": None,
    "trainer.accumulate": 1,
    "data.crop_ratio": [3 / 4, 4 / 3],  # torchvision's default, transforms.py
    "data.mean": [0.485, 0.456, 0.406],
    "data.std": [0.229, 0.224, 0.225],
}
NAMES = (
    *("trainer.epochs", "optim.warmup", "data.size", "data.batch_size", "tokenizer.patch"),
    *("encoder.width", "encoder.depth", "encoder.heads", "predictor.depth", "predictor.heads"),
)
OWN = {  # what they differ in, in the order of NAMES; the predictor has as many heads as the encoder (helper.py)
    "ijepa_vith14": (300, 40, 224, 128, 14, 1280, 32, 16, 12, 16),  # in1k_vith14_ep300.yaml
    "ijepa_vith16_448": (300, 40, 448, 16, 16, 1280, 32, 16, 12, 16),  # in1k_vith16-448_ep300.yaml
    "ijepa_vith14_in22k": (66, 3, 224, 32, 14, 1280, 32, 16, 12, 16),  # in22k_vith14_ep66.yaml
    "ijepa_vitg16_in22k": (44, 3, 224, 16, 16, 1408, 40, 16, 16, 16),  # in22k_vitg16_ep44.yaml
    "ijepa_vitb16": (600, 15, 224, 128, 16, 768, 12, 12, 6, 12),  # the paper's Table 1 and appendix A.1
    "ijepa_vitl16": (600, 15, 224, 128, 16, 1024, 24, 16, 12, 16),
}
OTHERWISE = {name: {"optim.start_lr": 1e-4} for name in ("ijepa_vitb16", "ijepa_vitl16")}
"""Where the appendix disagrees with the released configurations."""
BUILT = {  # trained parameters of encoder and predictor: counted by building the released models
    "ijepa_vith14": (630_434_560, 22_279_424),
    "ijepa_vith16_448": (630_664_960, 22_279_424),
    "ijepa_vith14_in22k": (630_434_560, 22_279_424),
    "ijepa_vitg16_in22k": (1_011_092_608, 29_475_712),
    "ijepa_vitb16": (85_646_592, 11_238_912),
    "ijepa_vitl16": (303_098_880, 22_082_560),
}
SIZES = {  # name: width, depth, heads, width of the hidden layer
    "vit_tiny": (192, 12, 3, 768),
    "vit_small": (384, 12, 6, 1536),
    "vit_base": (768, 12, 12, 3072),
    "vit_large": (1024, 24, 16, 4096),
    "vit_huge": (1280, 32, 16, 5120),
    "vit_giant": (1408, 40, 16, 6144),
}
ENCODERS = {  # patch 16, 3 channels: counted by building the released models, less their frozen tables of positions
    "vit_tiny": 5_486_400,
    "vit_small": 21_589_632,
    "vit_base": 85_646_592,
    "vit_large": 303_098_880,
    "vit_huge": 630_664_960,
    "vit_giant": 1_011_092_608,
}


def value(config: dict, key: str) -> object:
    for part in key.split("."):
        config = config[part]
    return config


def composed(name: str, *overrides: str) -> dict:
    return resolve([f"recipe={name}", "data.root=/datasets/images", *overrides])


@pytest.mark.parametrize("name", OWN)
def test_the_recipe_has_the_released_values(name):
    config = composed(name)
    expected = COMMON | IN_CODE | dict(zip(NAMES, OWN[name], strict=True)) | OTHERWISE.get(name, {})
    assert {key: value(config, key) for key in expected} == expected


@pytest.mark.parametrize("name", OWN)
def test_published_numbers_are_for_the_recipe_as_it_is(name):
    config = composed(name)
    assert config["published"]
    for number in config["published"]:
        assert number["source"].startswith("I-JEPA (arXiv 2301.08243), Table ") and 0 < number["score"] < 100
        assert {key: value(config, key) for key in number["when"]} == number["when"]


def transformer(width: int, depth: int, hidden: int) -> int:
    """Weights and biases of ``depth`` blocks and the norm at their end."""
    attention = (3 * width * width + 3 * width) + (width * width + width)
    mlp = (width * hidden + hidden) + (hidden * width + width)
    return depth * (attention + mlp + 2 * 2 * width) + 2 * width


def part(key: str, config: dict, **supplied: int) -> torch.nn.Module:
    """One part of a model, of shapes without content."""
    with torch.device("meta"):
        return make(key.partition(".")[0], value(config, key), **supplied)


@pytest.mark.parametrize("name", SIZES)
def test_encoders_have_the_released_sizes(name):
    width, depth, heads, hidden = SIZES[name]
    config = resolve([f"encoder={name}", "tokenizer=patch16"])
    encoder = part("encoder", config)
    tokenizer = part("tokenizer", config, channels=3, encoder_width=encoder.width)
    assert encoder.width == width and {block.attn.heads for block in encoder.blocks} == {heads}
    assert {block.mlp.fc1.out_features for block in encoder.blocks} == {hidden}
    assert parameters(encoder) == transformer(width, depth, hidden)
    assert parameters(tokenizer) == 3 * 16 * 16 * width + width
    assert parameters(encoder) + parameters(tokenizer) == ENCODERS[name]


@pytest.mark.parametrize("name", BUILT)
def test_the_recipe_builds_and_runs_with_the_released_sizes(name):
    """Of shapes without content: one step of two samples."""
    config, size = composed(name), value(composed(name), "data.size")
    with torch.device("meta"):
        backbone, grid = build_backbone(config)
        predictor = part("predictor", config, encoder_width=backbone.width)
        together = Together({"ema": part("anti_collapse.ema", config)})
        together.prepare(backbone, 10)
    assert (parameters(backbone), parameters(predictor)) == BUILT[name]
    side = size // value(config, "tokenizer.patch")
    assert grid == (1, side, side)
    masks = draw(make("masker", config["masker"]), "multiblock", grid, 2)
    jepa = Jepa(backbone, predictor, together, distance(config["distance"]))
    losses = jepa([torch.empty(2, 3, 1, size, size, device="meta")], to_device(masks, "meta"))
    ((seen, guess, truth),) = losses.trace
    assert seen.shape == (2, masks[0].context.shape[1], backbone.width)
    assert guess.shape == truth.shape == (*masks[0].target.shape, backbone.width)
