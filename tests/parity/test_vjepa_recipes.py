"""The released configurations of V-JEPA and V-JEPA 2, value for value, and what their schedules come to."""

import pytest
import torch
from jepakit_ema.ema import Ema

from jepakit.build import build_backbone, parameters
from jepakit.optim import adamw, set_schedules
from tests.parity.test_recipe import BUILT, composed, part, value

COMMON = {  # the same in all of facebookresearch/jepa and vjepa2; by the keys that the values have here
    "data.name": "video",
    "data.clips": 1,  # num_clips
    "data.crop_scale": [0.3, 1.0],  # random_resize_scale
    "data.crop_ratio": [0.75, 1.35],  # random_resize_aspect_ratio
    "data.flip": True,  # app/vjepa/transforms.py: always
    "data.mean": [0.485, 0.456, 0.406],
    "data.std": [0.229, 0.224, 0.225],
    "tokenizer.patch": 16,
    "tokenizer.tubelet": 2,
    "masker.name": "tubes",
    "masker.mode": "official",
    "masker.blocks": [8, 2],  # num_blocks
    "masker.scales": [0.15, 0.7],  # spatial_scale
    "masker.aspect": [0.75, 1.5],
    "masker.temporal_scale": [1.0, 1.0],
    "masker.max_temporal_keep": 1.0,
    "masker.max_keep": None,
    "masker.cut": "both",  # full_complement, pred_full_complement: off
    "encoder.drop_path": 0.0,
    "encoder.mlp": "gelu",
    "encoder.qkv_bias": True,
    "predictor.width": 384,  # pred_embed_dim
    "predictor.depth": 12,
    "predictor.mlp_ratio": 4.0,
    "predictor.zero_mask_tokens": True,
    "distance": "l1",  # loss_exp, reg_coeff
    "anti_collapse.ema.normalise": True,
    "anti_collapse.ema.mask": "output",
    "optim.betas": [0.9, 0.999],
    "optim.eps": 1e-8,
    "optim.stretch": 1.25,  # ipe_scale
    "trainer.accumulate": 1,
    "trainer.precision": "bf16",
}
FIRST = {  # V-JEPA
    "data.frames": 16,
    "data.stride": 4,  # sampling_rate
    "data.fps": None,
    "data.weights": None,  # every video is as likely as any other
    "encoder.positions": "sincos_3d",  # uniform_power
    "encoder.depth_scaled": False,  # every layer is drawn anew, app/vjepa/utils.py
    "encoder.mlp_ratio": 4.0,
    "predictor.positions": "sincos_3d",
    "predictor.heads": 16,  # the encoder's
    "predictor.mask_tokens": 2,
    "predictor.share_mask_token": False,
    "anti_collapse.ema.start": 0.998,
    "anti_collapse.ema.end": 1.0,
    "anti_collapse.ema.stretch": 1.25,
    "optim.lr": 6.25e-4,
    "optim.start_lr": 2e-4,
    "optim.final_lr": 1e-6,
    "optim.decay": "cosine",
    "optim.warmup": 40,
    "optim.weight_decay": [0.04, 0.4],
    "optim.clip": 10.0,
    "optim.clip_each": True,
    "optim.clip_after": 41,  # from the epoch after the one that is called 40 there
    "trainer.epochs": 300,
    "trainer.epoch_steps": 300,
}
SECOND = {  # V-JEPA 2
    "data.fps": 4,
    "data.weights": [0.335, 0.1, 0.565],  # datasets_weights
    "encoder.positions": "rope_tiled",
    "encoder.depth_scaled": True,
    "encoder.checkpoint_blocks": True,
    "predictor.positions": "rope_tiled",
    "predictor.heads": 12,  # pred_num_heads
    "predictor.depth_scaled": True,
    "predictor.share_mask_token": True,  # the one that is trained
    "anti_collapse.ema.start": 0.99925,
    "anti_collapse.ema.end": 0.99925,
    "optim.lr": 5.25e-4,
    "optim.start_lr": 1e-4,
    "optim.weight_decay": [0.04, 0.04],
    "optim.clip": None,
    "trainer.global_batch": 3072,
}
WARM = {"data.frames": 16, "optim.warmup": 40, "optim.final_lr": 5.25e-4, "optim.decay": "cosine"}
COOL = {"data.frames": 64, "optim.warmup": 0, "optim.final_lr": 1e-6, "optim.decay": "linear"}
NAMES = ("data.size", "data.batch_size", "trainer.epochs", "trainer.epoch_steps")
SIZES = {"l": (1024, 24, 16), "h": (1280, 32, 16), "g": (1408, 40, 22)}
RECIPES = {  # size, nodes of eight GPUs; what they differ in, in the order of NAMES
    "vjepa_vitl16": ("l", 16, FIRST, (224, 24, 300, 300)),
    "vjepa_vith16": ("h", 16, FIRST, (224, 24, 300, 300)),
    "vjepa_vith16_384": ("h", 30, FIRST, (384, 10, 300, 300)),
    "vjepa2_vitl16": ("l", 16, SECOND | WARM, (256, 24, 10, 300)),
    "vjepa2_vith16": ("h", 16, SECOND | WARM, (256, 24, 10, 300)),
    "vjepa2_vitg16": ("g", 16, SECOND | WARM, (256, 24, 800, 300)),
    "vjepa2_vitl16_cooldown": ("l", 32, SECOND | COOL, (256, 12, 40, 300)),
    "vjepa2_vith16_cooldown": ("h", 32, SECOND | COOL, (256, 12, 40, 300)),
    "vjepa2_vitg16_cooldown": ("g", 64, SECOND | COOL, (256, 6, 4, 30)),
    "vjepa2_vitg16_cooldown_384": ("g", 64, SECOND | COOL, (384, 6, 40, 300)),
}
KINETICS = {"vjepa_vitl16": 80.8, "vjepa_vith16": 82.0, "vjepa_vith16_384": 81.9}
SOMETHING = {"vjepa_vitl16": 69.5, "vjepa_vith16": 71.4, "vjepa_vith16_384": 72.2}
SOMETHING |= {"vjepa2_vitl16_cooldown": 73.7, "vjepa2_vitg16_cooldown_384": 77.3}
COUNTS = {"vjepa_vitl16": 5, "vjepa_vith16": 5, "vjepa_vith16_384": 5}
COUNTS |= {"vjepa2_vitl16_cooldown": 3, "vjepa2_vitg16_cooldown_384": 3}


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_has_the_released_values(name):
    config, (size, nodes, family, own) = composed(name), RECIPES[name]
    expected = COMMON | family | dict(zip(NAMES, own, strict=True))
    expected |= dict(zip(("encoder.width", "encoder.depth", "encoder.heads"), SIZES[size], strict=True))
    expected["trainer.global_batch"] = nodes * 8 * own[1]
    assert {key: value(config, key) for key in expected} == expected
    assert config["encoder"]["mlp_ratio"] == pytest.approx(48 / 11 if size == "g" else 4.0, rel=1e-15)


@pytest.mark.parametrize("name", RECIPES)
def test_published_numbers_are_for_the_recipe_as_it_is(name):
    config = composed(name)
    found = {each["measure"]: each["score"] for each in config["published"]}
    assert len(found) == COUNTS.get(name, 0)
    assert found.get("attentive probe on Kinetics-400, per cent") == KINETICS.get(name)
    assert found.get("attentive probe on Something-Something v2, per cent") == SOMETHING.get(name)
    for number in config["published"]:
        assert {key: value(config, key) for key in number["when"]} == number["when"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_cooldown_starts_from_its_pretraining_and_nothing_else_from_anything(name):
    before, cooled, _ = name.partition("_cooldown")
    assert composed(name)["start"]["weights"] == (f"runs/{before}" if cooled else None)
    assert before in RECIPES


def ends(name: str) -> tuple[dict[str, float], dict[str, float], float]:
    """Rates at a recipe's first and last step; the teacher's momentum after the last."""
    config = composed(name)
    epoch = float(config["trainer"]["epoch_steps"])
    steps = int(config["trainer"]["epochs"] * epoch)
    optimizer = adamw(torch.nn.Linear(2, 2), config["optim"])
    first, last = (set_schedules(optimizer, config["optim"], step, steps, epoch) for step in (0, steps - 1))
    own = config["anti_collapse"]["ema"]
    ema = Ema(own["start"], own["end"], own["stretch"])
    ema.steps = steps
    return first, last, ema.momentum(steps)


def test_v_jepas_schedules_are_cut_off():
    _, last, momentum = ends("vjepa_vitl16")
    assert last["lr"] == pytest.approx(7.50e-5, rel=1e-3) and last["weight_decay"] == pytest.approx(0.3656, rel=1e-3)
    assert momentum == pytest.approx(0.9996, rel=1e-9)


def test_v_jepa_2s_rates_stay_and_those_of_its_cooldown_fall():
    _, last, momentum = ends("vjepa2_vitg16")
    assert (last["lr"], last["weight_decay"], momentum) == (5.25e-4, 0.04, 0.99925)
    first, last, momentum = ends("vjepa2_vitl16_cooldown")
    assert first["lr"] == pytest.approx(5.25e-4, rel=1e-3) and last["lr"] == pytest.approx(1.06e-4, rel=0.01)
    assert (last["weight_decay"], momentum) == (0.04, 0.99925)


def test_as_published_the_smaller_ones_never_reach_their_peak():
    _, last, _ = ends("vjepa2_vitl16")
    assert last["lr"] == pytest.approx(1e-4 + 4.25e-4 / 4, rel=1e-12)


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_builds_with_the_released_sizes(name):
    """A tubelet has twice the pixels of a patch; the predictor's second mask token is one more vector."""
    config, (size, *_) = composed(name), RECIPES[name]
    with torch.device("meta"):
        backbone, grid = build_backbone(config)
        predictor = part("predictor", config, encoder_width=backbone.width)
    pictures, narrow = BUILT[{"l": "ijepa_vitl16", "h": "ijepa_vith16_448"}.get(size, "ijepa_vitg16_in22k")]
    frames, side = config["data"]["frames"] // 2, config["data"]["size"] // 16
    assert grid == (frames, side, side)
    assert parameters(backbone) == pictures + 3 * 16 * 16 * backbone.width
    tokens = config["predictor"]["mask_tokens"]
    assert tokens == (2 if name.startswith("vjepa_") else 1)
    if size != "g":
        assert parameters(predictor) == narrow + (tokens - 1) * 384
