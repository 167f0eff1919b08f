"""Sizes of the released models, and the released configuration, value for value."""

import pytest
import torch

from jepakit.build import make, parameters
from jepakit.config import resolve

RELEASED = {  # facebookresearch/ijepa configs/in1k_vith14_ep300.yaml; beside each value the key it has here
    "data": {
        "batch_size": (128, "data.batch_size"),
        "crop_scale": ([0.3, 1.0], "data.crop_scale"),
        "crop_size": (224, "data.size"),
        "use_horizontal_flip": (False, "data.flip"),
    },
    "mask": {
        "allow_overlap": (False, "masker.allow_overlap"),
        "aspect_ratio": ([0.75, 1.5], "masker.target_aspect"),
        "enc_mask_scale": ([0.85, 1.0], "masker.context_scale"),
        "min_keep": (10, "masker.min_keep"),
        "num_pred_masks": (4, "masker.targets"),
        "patch_size": (14, "tokenizer.patch"),
        "pred_mask_scale": ([0.15, 0.2], "masker.target_scale"),
    },
    "meta": {
        "pred_depth": (12, "predictor.depth"),
        "pred_emb_dim": (384, "predictor.width"),
    },
    "optimization": {
        "ema[0]": (0.996, "anti_collapse.ema.start"),
        "ema[1]": (1.0, "anti_collapse.ema.end"),
        "epochs": (300, "trainer.epochs"),
        "final_lr": (1e-6, "optim.final_lr"),
        "ipe_scale": (1.0, "optim.stretch"),
        "lr": (1e-3, "optim.lr"),
        "start_lr": (2e-4, "optim.start_lr"),
        "warmup": (40, "optim.warmup"),
    },
}
IN_CODE = {  # facebookresearch/ijepa src/: values that the configuration does not name, or names otherwise
    "encoder.width": 1280,  # vit_huge, models/vision_transformer.py
    "encoder.depth": 32,
    "encoder.heads": 16,
    "encoder.mlp_ratio": 4.0,
    "encoder.drop_path": 0.0,
    "predictor.heads": 16,  # the encoder's, helper.py
    "predictor.mlp_ratio": 4.0,
    "predictor.mask_tokens": 1,
    "tokenizer.name": "patch",
    "tokenizer.tubelet": 1,
    "masker.name": "multiblock",
    "masker.mode": "official",
    "masker.context_aspect": [1.0, 1.0],  # masks/multiblock.py
    "distance": "smooth_l1",  # train.py
    "anti_collapse.ema.normalise": True,
    "anti_collapse.ema.stretch": 1.0,  # ipe_scale
    "optim.weight_decay": [0.04, 0.4],  # optimization: weight_decay, final_weight_decay
    "optim.betas": [0.9, 0.999],  # torch's defaults, helper.py
    "optim.eps": 1e-8,
    "optim.clip": None,
    "trainer.precision": "bf16",  # meta: use_bfloat16
    "trainer.accumulate": 1,
    "data.crop_ratio": [3 / 4, 4 / 3],  # torchvision's default, transforms.py
    "data.mean": [0.485, 0.456, 0.406],
    "data.std": [0.229, 0.224, 0.225],
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


@pytest.fixture(scope="module")
def recipe() -> dict:
    return resolve(["recipe=ijepa_vith14", "data.root=/datasets/imagenet"])


@pytest.mark.parametrize("section, name", [(section, name) for section, keys in RELEASED.items() for name in keys])
def test_the_recipe_has_the_released_value(recipe, section, name):
    expected, key = RELEASED[section][name]
    assert value(recipe, key) == expected, key


@pytest.mark.parametrize("key", IN_CODE)
def test_the_recipe_has_the_value_of_the_released_code(recipe, key):
    assert value(recipe, key) == IN_CODE[key]


def transformer(width: int, depth: int, hidden: int) -> int:
    """Weights and biases of ``depth`` blocks and the norm at their end."""
    attention = (3 * width * width + 3 * width) + (width * width + width)
    mlp = (width * hidden + hidden) + (hidden * width + width)
    return depth * (attention + mlp + 2 * 2 * width) + 2 * width


def part(kind: str, config: dict, **supplied: int) -> torch.nn.Module:
    """One part of a model, of shapes without content."""
    with torch.device("meta"):
        return make(kind, config[kind], **supplied)


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


def test_the_recipe_builds_a_vith14_of_the_released_size(recipe):
    encoder = part("encoder", recipe)
    tokenizer = part("tokenizer", recipe, channels=3, encoder_width=encoder.width)
    predictor = part("predictor", recipe, channels=3, encoder_width=encoder.width)
    assert parameters(encoder) + parameters(tokenizer) == 630_434_560
    assert 630_434_560 + 16 * 16 * 1280 == 630_762_240  # with the released model's frozen table of positions
    assert parameters(predictor) == transformer(384, 12, 1536) + (1280 * 384 + 384) + 384 + (384 * 1280 + 1280)
    assert parameters(predictor) == 22_279_424
