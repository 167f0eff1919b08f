"""The released configurations of V-JEPA 2.1, value for value."""

from typing import Any

import pytest
import torch

from jepakit.build import build_backbone, parameters
from jepakit.config import resolve
from tests.parity.test_recipe import part, value

COMMON = {  # the same in all of configs/train_2_1; by the keys that the values have here
    "data.name": "video",
    "data.fps": 4,
    "data.weights": [0.335, 0.1, 0.565],  # datasets_weights
    "data.size": 256,
    "data.clips": 1,
    "data.crop_scale": [0.3, 1.0],
    "data.crop_ratio": [0.75, 1.35],
    "data.flip": True,
    "tokenizer.name": "joint",  # img_temporal_dim_size 1, modality_embedding
    "tokenizer.patch": 16,
    "tokenizer.tubelet": 2,
    "encoder.positions": "rope",
    "encoder.native": [16, 16],  # interpolate_rope, of 256 pixels
    "encoder.mlp": "gelu",
    "encoder.drop_path": 0.0,
    "encoder.depth_scaled": True,
    "encoder.checkpoint_blocks": True,
    "predictor.width": 384,
    "predictor.heads": 12,
    "predictor.positions": "rope",
    "predictor.native": [16, 16],
    "predictor.levels": 4,
    "predictor.recalls": True,  # predict_all
    "predictor.modality": True,
    "predictor.depth_scaled": True,
    "predictor.checkpoint_blocks": True,
    "predictor.share_mask_token": True,  # the one that is trained
    "predictor.zero_mask_tokens": True,
    "distance": "l1",
    "anti_collapse.ema.start": 0.99925,
    "anti_collapse.ema.end": 0.99925,
    "anti_collapse.ema.normalise": True,
    "optim.lr": 6e-4,
    "optim.start_lr": 1e-4,
    "optim.stretch": 1.25,
    "optim.weight_decay": [0.04, 0.04],
    "optim.betas": [0.9, 0.999],
    "optim.eps": 1e-8,
    "optim.clip": None,
    "trainer.epoch_steps": 300,
    "trainer.precision": "bf16",
    "branches.video.weight": 0.5,  # rank_ratio
    "branches.image.weight": 0.5,
    "branches.image.data.name": "folder",
    "branches.image.data.size": 256,
    "branches.image.data.crop_scale": [0.3, 1.0],
    "branches.image.data.crop_ratio": [0.75, 1.35],
    "branches.image.data.flip": True,
    "masker.blocks": [8, 2],
    "masker.scales": [0.15, 0.7],
    "branches.image.masker.blocks": [10],
    "branches.image.masker.scales": [0.15],
}
MASKS = {"mode": "official", "aspect": [0.75, 1.5], "temporal_scale": [1.0, 1.0], "max_keep": None, "cut": "both"}
MASKS |= {"recall": 0.5}  # lambda_value_vid, lambda_value_img
WARM = {"data.frames": 16, "optim.warmup": 40, "optim.final_lr": 6e-4, "optim.decay": "cosine", "trainer.epochs": 1000}
COOL = {"data.frames": 64, "optim.warmup": 0, "optim.final_lr": 1e-6, "optim.decay": "linear", "trainer.epochs": 40}
GROWS = {"recall_steps": [15000, 30000], "recall_by_distance": True}  # Lambda_LinearWarmupHold
STAYS = {"recall_steps": [0, 0], "recall_by_distance": False}  # lambda_progressive, weight_distance_loss: off
SIZES = {  # width, blocks, heads, levels; blocks of the predictor
    "vitb16": (768, 12, 12, [2, 5, 8, 11], 12),
    "vitl16": (1024, 24, 16, [5, 11, 17, 23], 24),
    "vitg16": (1408, 40, 22, [9, 19, 29, 39], 24),
    "gigantic16": (1664, 48, 26, [11, 23, 37, 47], 24),
}
NODES = {  # of eight GPUs; clips for each on average, pictures for each that has any
    "vitb16": (8, 48, 144),
    "vitl16": (16, 24, 72),
    "vitg16": (16, 24, 72),
    "gigantic16": (32, 12, 36),
}
RECIPES = [f"vjepa21_{size}{end}" for size in SIZES for end in ("", "_cooldown")]


def composed(name: str) -> dict[str, Any]:
    return resolve([f"recipe={name}", "data.root=/clips", "branches.image.data.root=/pictures"])


def split(name: str) -> tuple[str, bool]:
    size, cooled, _ = name.removeprefix("vjepa21_").partition("_cooldown")
    return size, bool(cooled)


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_has_the_released_values(name):
    config, (size, cooled) = composed(name), split(name)
    expected = COMMON | (COOL if cooled else WARM)
    for masker in ("masker", "branches.image.masker"):
        expected |= {f"{masker}.{key}": each for key, each in (MASKS | (STAYS if cooled else GROWS)).items()}
    keys = ("encoder.width", "encoder.depth", "encoder.heads", "encoder.layers", "predictor.depth")
    expected |= dict(zip(keys, SIZES[size], strict=True))
    nodes, clips, pictures = NODES[size]
    if cooled:  # twice the ranks, half of the clips for each, as many pictures
        nodes, clips = 2 * nodes, clips // 2
    expected |= {"data.batch_size": clips, "branches.image.data.batch_size": pictures // 2}
    expected["trainer.global_batch"] = nodes * 8 * clips + nodes * 4 * pictures
    expected["start.weights"] = f"runs/vjepa21_{size}" if cooled else None
    assert {key: value(config, key) for key in expected} == expected
    ratio = {"vitg16": 48 / 11, "gigantic16": 64 / 13}.get(size, 4.0)
    assert config["encoder"]["mlp_ratio"] == pytest.approx(ratio, rel=1e-15)
    assert list(config["branches"]) == ["image", "video"] and not config["published"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_builds_with_the_released_sizes(name):
    """Four norms, two projections and two vectors; at the predictor's ends four levels, an output for the context, and
    three vectors."""
    config, (size, cooled) = composed(name), split(name)
    width, depth, _, _, deep = SIZES[size]
    hidden = int(width * config["encoder"]["mlp_ratio"])
    block = 4 * width * width + 2 * width * hidden + 9 * width + hidden
    narrow = 4 * 384 * 384 + 2 * 384 * 1536 + 9 * 384 + 1536
    with torch.device("meta"):
        backbone, grid = build_backbone(config)
        predictor = part("predictor", config, encoder_width=width)
    assert grid == (32 if cooled else 8, 16, 16)
    assert parameters(backbone) == depth * block + 4 * 2 * width + (768 + 1536 + 2) * width + 2 * width
    ends = (4 * width + 1) * width + (width + 1) * 384 + 2 * 385 * 4 * width
    assert parameters(predictor) == deep * narrow + ends + 384 + 2 * 384 + 2 * 384
