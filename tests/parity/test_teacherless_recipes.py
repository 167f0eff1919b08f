"""Recipes without a teacher, and C-JEPA's: the released commands and code, value for value, and jepakit's own mixes."""

import functools
from typing import Any

import pytest
import torch

from jepakit.build import build, build_backbone, draw, make, parameters, view_shapes
from jepakit.compose import Together
from jepakit.data.colour import How
from jepakit.distance import distance
from jepakit.jepa import Jepa
from jepakit.strict import flatten
from jepakit.types import to_device
from tests.parity.test_recipe import COMMON, IN_CODE, composed, part, value

COLOURS = {"jitter": [0.4, 0.4, 0.2, 0.1], "jitter_p": 0.8, "grey": 0.2, "blur_sigma": [0.1, 2.0]}
LEFT, RIGHT = {"blur": 1.0, "solarize": 0.0}, {"blur": 0.1, "solarize": 0.2}
BICUBIC, SMALL = {"interpolation": "bicubic"}, {"count": 3, "size": 96, "crop_scale": [0.08, 0.4]}
EQUAL = {"blur": 0.5, "solarize": 0.2}

VICREG = {  # facebookresearch/vicreg
    "optim.name": "lars",  # main_vicreg.py: LARS
    "optim.momentum": 0.9,
    "optim.lr": 0.2 * 2048 / 256,  # README: --base-lr, --batch-size; adjust_learning_rate
    "optim.start_lr": 0.0,
    "optim.final_lr": 0.001 * 0.2 * 2048 / 256,
    "optim.warmup": 10.0,
    "optim.weight_decay": [1e-6, 1e-6],  # --wd
    "trainer.epochs": 1000.0,  # README: the command for 4 nodes
    "trainer.global_batch": 2048,
    "distance_weight": 25.0,  # --sim-coeff
    "anti_collapse.vicreg.variance": 25.0,  # --std-coeff
    "anti_collapse.vicreg.covariance": 1.0,  # --cov-coeff
    "anti_collapse.vicreg.scaling": "released",  # forward: std_loss halved, cov_loss summed
    "encoder.model": "resnet50",  # --arch
    "encoder.expander": [8192, 8192, 8192],  # --mlp
    "encoder.expander_norm": "bn",  # Projector
    "encoder.expander_bias": False,
    "encoder.model_args.zero_init_last": True,  # zero_init_residual
    "masker.name": "pair",
    "data.size": 224,  # augmentations.py
    "data.crop_scale": [0.08, 1.0],  # torchvision's default
    "data.crop_ratio": [3 / 4, 4 / 3],
    "data.flip": True,
}
VICREGL = {  # facebookresearch/VICRegL
    "optim.name": "adamw",  # main_vicregl.py: --optimizer
    "optim.lr": pytest.approx(
        0.0005 * 576 / 256, rel=1e-12
    ),  # README: --base-lr, --batch-size of the command for 2 nodes; utils.py
    "optim.start_lr": 0.0,
    "optim.final_lr": pytest.approx(0.001 * 0.0005 * 576 / 256, rel=1e-12),  # --end-lr-ratio
    "optim.warmup": 10.0,  # --warmup-epochs
    "optim.weight_decay": [0.05, 0.05],  # --weight-decay
    "trainer.epochs": 400.0,
    "trainer.global_batch": 576,
    "distance_weight": 0.0,
    "anti_collapse.vicregl.alpha": 0.75,  # --alpha
    "anti_collapse.vicregl.matches": [20, 4],  # --num_matches
    "anti_collapse.vicregl.invariance": 25.0,  # --inv-coeff
    "anti_collapse.vicregl.variance": 25.0,  # --var-coeff
    "anti_collapse.vicregl.covariance": 1.0,  # --cov-coeff
    "encoder.model": "convnext_small",  # --arch
    "encoder.drop_path": 0.1,  # --drop-path-rate
    "encoder.expander": [8192, 8192, 8192],  # --mlp
    "encoder.token_expander": [512, 512, 512],  # --maps-mlp
    "encoder.expander_norm": "ln",
    "encoder.expander_bias": False,
    "masker.views": 2,  # --num-crops
    "masker.local_views": 6,
    "data.size": 224,  # --size-crops
    "data.crop_scale": [0.4, 1.0],  # --min_scale_crops, --max_scale_crops
    "data.flip": True,
}
LEJEPA = {  # rbalestr-lab/lejepa MINIMAL.md
    "optim.name": "adamw",
    "optim.betas": [0.9, 0.999],
    "optim.warmup": 1.0,  # warmup_steps
    "optim.weight_decay": [0.05, 0.05],  # g1
    "trainer.global_batch": 256,  # +bs
    "anti_collapse.sigreg.knots": 17,
    "anti_collapse.sigreg.reach": 3.0,
    "encoder.expander_norm": "bn",
    "encoder.expander_bias": True,  # torchvision's MLP
    "data.flip": True,
}
RELEASED: dict[str, dict[str, Any]] = {
    "vicreg_resnet50": VICREG,
    "vicregl_convnext_small": VICREGL,
    "lejepa_vits8": LEJEPA
    | {
        "optim.lr": 2e-3,  # +lr
        "optim.start_lr": 2e-5,  # LinearLR: start_factor
        "optim.final_lr": 1e-3,  # CosineAnnealingLR: eta_min
        "trainer.epochs": 800.0,  # +epochs
        "distance_weight": 0.98,  # 1 - lamb
        "anti_collapse.sigreg.weight": 0.02,  # +lamb
        "anti_collapse.sigreg.slices": 256,
        "encoder.model": "vit_small_patch8_224",
        "encoder.size": 128,  # img_size
        "encoder.head": 512,  # num_classes
        "encoder.drop_path": 0.1,
        "encoder.expander": [2048, 2048, 16],  # MLP, +proj_dim
        "masker.views": 4,  # +V
        "data.size": 128,
        "data.batch_size": 256,
        "data.crop_scale": [0.08, 1.0],
    },
    "lejepa_vitl14": LEJEPA
    | {  # README: GOTO hyperparameters
        "optim.lr": 5e-4,
        "optim.final_lr": 5e-7,  # initial_lr / 1000
        "trainer.epochs": 100.0,  # the table of results
        "distance_weight": 0.95,
        "anti_collapse.sigreg.weight": 0.05,
        "anti_collapse.sigreg.slices": 1024,  # Quick Start
        "encoder.model": "vit_large_patch14_224",
        "encoder.expander": [2048, 2048, 512],
        "masker.views": 2,
        "masker.local_views": 6,
        "data.size": 224,
        "data.crop_scale": [0.3, 1.0],
    },
    "cjepa_vitb16": COMMON
    | IN_CODE
    | {  # arXiv 2410.19560
        "optim.start_lr": 1e-4,
        "optim.warmup": 15.0,
        "trainer.epochs": 600.0,
        "distance_weight": 1.0,
        "anti_collapse.vicreg.invariance": 0.001 * 25,
        "anti_collapse.vicreg.variance": 0.001 * 25,
        "anti_collapse.vicreg.covariance": 0.001 * 1,
        "encoder.width": 768,
        "encoder.depth": 12,
        "predictor.depth": 6,
        "tokenizer.patch": 16,
    },
}
VIEWS = {  # in order; what is not named is as data says
    "vicreg_resnet50": [COLOURS | BICUBIC | LEFT, COLOURS | BICUBIC | RIGHT],  # transform, transform_prime
    "vicregl_convnext_small": [  # transforms.py: left where the number is even
        *(COLOURS | BICUBIC | LEFT, COLOURS | BICUBIC | RIGHT),
        *(COLOURS | BICUBIC | LEFT | SMALL, COLOURS | BICUBIC | RIGHT | SMALL),
    ],
    "lejepa_vits8": [COLOURS | {"count": 4, "jitter": [0.8, 0.8, 0.8, 0.2], "blur": 0.5, "solarize": 0.2 * 0.5}],
    "lejepa_vitl14": [
        COLOURS | EQUAL | {"count": 2},
        COLOURS | EQUAL | {"count": 6, "size": 98, "crop_scale": [0.05, 0.3]},
    ],
    "cjepa_vitb16": [],
}
PUBLISHED = {  # README of facebookresearch/vicreg and VICRegL; MINIMAL.md and README of lejepa; arXiv 2410.19560
    "vicreg_resnet50": [73.2],
    "vicregl_convnext_small": [74.6, 67.5, 75.9, 66.7],
    "lejepa_vits8": [90.7],
    "lejepa_vitl14": [79.48, 60.95, 29.55, 96.5, 83.71],
    "cjepa_vitb16": [73.7, 84.5, 69.5],
}
MIXES = {  # name: what it is made of, and all that may differ from that
    "ijepa_sigreg_vitb16": ("ijepa_vitb16", {"distance": "l2", "distance_weight": 0.5}),
    "ijepa_vicreg_vitb16": ("ijepa_vitb16", {"distance": "l2", "distance_weight": 5.0}),
    "vjepa_sigreg_vitl16": ("vjepa_vitl16", {"distance": "l2", "distance_weight": 0.5}),
    "cjepa_vitb16": ("ijepa_vitb16", {}),
    "cjepa_vitt4_32px": ("ijepa_vitt4_32px", {}),
    "ijepa_sigreg_vitt4_32px": ("ijepa_vitt4_32px", {"distance": "l2", "distance_weight": 0.5}),
    "ijepa_vicreg_vitt4_32px": ("ijepa_vitt4_32px", {"distance": "l2", "distance_weight": 5.0}),
}
BUILT = {  # trained parameters of the representation: counted by building the released models
    "vicreg_resnet50": 23_508_032,
    "lejepa_vits8": 21_467_520 + 384 * 512 + 512,
}
LARGE = [*RELEASED, "ijepa_sigreg_vitb16", "ijepa_vicreg_vitb16", "vjepa_sigreg_vitl16"]
SMALL_FORMS = ["cjepa_vitt4_32px", "ijepa_sigreg_vitt4_32px", "ijepa_vicreg_vitt4_32px", "vicreg_vitt4_32px"]
SMALL_FORMS += ["vicreg_resnet18_32px", "vicregl_vitt4_32px", "lejepa_vitt4_32px"]


@functools.cache
def config_of(name: str) -> dict[str, Any]:
    """A recipe as it is; read, never written."""
    return composed(name)


@pytest.mark.parametrize("name", RELEASED)
def test_the_recipe_has_the_released_values(name):
    config = config_of(name)
    assert {key: value(config, key) for key in RELEASED[name]} == RELEASED[name]
    assert config["distance"] == RELEASED[name].get("distance", "l2")
    found = list(config["views"].values())
    assert len(found) == len(VIEWS[name])
    for view, expected in zip(found, VIEWS[name], strict=True):
        kept = {"count": 1, "size": None, "crop_scale": None, "interpolation": "bilinear"} | expected
        assert {key: view[key] for key in kept} == kept


@pytest.mark.parametrize("name", RELEASED)
def test_published_numbers_are_for_the_recipe_or_a_variant_of_it(name):
    config = config_of(name)
    assert [number["score"] for number in config["published"]] == PUBLISHED[name]
    first = config["published"][0]["when"]
    assert {key: value(config, key) for key in first} == first
    for number in config["published"]:
        assert number["source"] and number["when"].keys() <= flatten(config).keys()


def test_the_other_settings_of_the_papers_are_a_choice():
    other = composed("vicregl_convnext_small", "anti_collapse=vicregl_global")
    assert (
        value(other, "anti_collapse.vicregl.alpha")
        == 0.9
        == other["published"][2]["when"]["anti_collapse.vicregl.alpha"]
    )
    assert composed("vicreg_resnet50", "anti_collapse=vicreg_paper")["anti_collapse"]["vicreg"]["scaling"] == "paper"
    guess = composed("cjepa_vitb16", "anti_collapse=[ema,vicreg_cjepa_guess]")["anti_collapse"]
    assert (guess["vicreg"]["of"], guess["vicreg"]["tokens"], guess["vicreg"]["invariance"]) == ("guess", "all", 0.025)
    assert "ema" in guess


@pytest.mark.parametrize("name", MIXES)
def test_a_mix_differs_in_what_its_strategy_needs(name):
    base, differs = MIXES[name]
    free = ("recipe", "published", "anti_collapse")
    mine, other = (
        {key: each for key, each in flatten(config_of(which)).items() if key.partition(".")[0] not in free}
        for which in (name, base)
    )
    assert {key: each for key, each in mine.items() if other[key] != each} == differs
    assert name in RELEASED or config_of(name)["published"] == []


def assembled(name: str, batch: int = 3) -> tuple[Jepa, list, list[torch.Tensor]]:
    """A recipe's model of shapes without content, with masks and views for it."""
    config = config_of(name)
    with torch.device("meta"):
        backbone, grid = build_backbone(config)
        known = {"encoder_width": backbone.width, "grid": grid}
        predictor = part("predictor", config, **known)
        together = Together({key: part(f"anti_collapse.{key}", config) for key in config["anti_collapse"]})
        together.prepare(backbone, 10)
    masks = draw(make("masker", config["masker"]), config["masker"]["name"], grid, batch)
    jepa = Jepa(backbone, predictor, together, distance(config["distance"], config["distance_weight"]))
    return jepa, masks, [torch.empty(batch, *shape, device="meta") for shape in view_shapes(config, backbone)]


@pytest.mark.parametrize("name", LARGE)
def test_the_recipe_builds_and_runs_with_the_released_sizes(name):
    """Of shapes without content: one step of three samples."""
    jepa, masks, views = assembled(name)
    how = [torch.empty(len(view), len(How._fields), device="meta") for view in views]
    losses = jepa(views, to_device(masks, "meta"), how)
    assert losses.total.shape == () and ("ema" in config_of(name)["anti_collapse"]) == (name == "cjepa_vitb16")
    if name in BUILT:
        encoder, expander = jepa.backbone.encoder, jepa.backbone.encoder.expanders[0]
        assert parameters(encoder) - parameters(expander) == BUILT[name]
    if name == "vicreg_resnet50":
        wide = 8192 * 8192
        assert parameters(jepa.backbone.encoder.expanders[0]) == (2048 * 8192 + 8192) + (wide + 8192) + wide + 4 * 8192


@pytest.mark.parametrize("name", SMALL_FORMS)
def test_small_forms_build_at_the_size_of_the_small_i_jepa(name):
    """So that a table of them compares methods; the ResNet is what VICReg's paper trains, and larger."""
    config = composed(name, "data.batch_size=2")
    backbone = build(config).jepa.backbone
    kept = parameters(backbone) - sum(map(parameters, getattr(backbone.encoder, "expanders", [])))
    assert kept == pytest.approx(1_788_000, rel=0.02) or name == "vicreg_resnet18_32px" and kept == 11_176_512
