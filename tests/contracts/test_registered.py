"""Every registered component, and every variant of one, keeps its contract: a new one joins by itself."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from jepakit import testing
from jepakit.build import make
from jepakit.catalog import Catalog
from jepakit.data import open_source
from jepakit.hookspecs import KINDS
from jepakit.optionfiles import GROUPS
from jepakit.plugins import discover
from jepakit.types import Grid
from tests.data.make import clevr, frames, labelled, mapped

WIDTH, GRID, SHAPE = 24, Grid(1, 4, 4), (3, 1, 64, 64)
VIEW_SHAPE = (3, 1, 16, 16)
"""Of a view that a tokenizer of patches of four pixels cuts into ``GRID``."""
SMALL = {"depth": 1}
"""Arguments that are cut down to this: the contract does not hang on them, the time does."""
SMALL_MODELS = {"resnet": "test_resnet", "vit": "test_vit", "convnext": "test_convnext"}
"""timm's own for tests, in place of those that begin so. tests/plugins_timm builds variants at their real size."""
GRIDS = (*testing.IMAGE_GRIDS, *testing.CLIP_GRIDS)
SHAPES = (SHAPE, (3, 1, 56, 56), (3, 4, 64, 64))
SOURCES: dict[str, dict[str, Any]] = {
    "clevr": {"root": "scenes"},
    "maps": {"root": "maps"},
    "folder": {"root": "pictures"},
    "pairs": {"root": "clips"},
    "video": {"root": "clips"},
    "video_vjepa2": {"root": "clips", "fps": None},  # folders of frames have no rate
    "video_vjepa2_64f": {"root": "clips", "fps": None},
}
"""Arguments of sources that have no default."""


@functools.cache
def catalog() -> Catalog:
    return Catalog(discover())


def options(group: str) -> list[str]:
    return catalog().names(group)


def node(group: str, name: str) -> dict[str, Any]:
    """What the option says, its size cut down."""
    option = catalog().get(group, name)
    found: Any = OmegaConf.to_container(catalog().body(option)) if option.file else {"name": name}
    known = {each.name: each.default for each in discover().get(GROUPS[group], found["name"]).arguments()}
    found |= {key: min(most, found.get(key, known[key])) for key, most in SMALL.items() if key in known}
    if "model" in known:
        begun = found.get("model", known["model"])
        found["model"] = next(small for large, small in SMALL_MODELS.items() if begun.startswith(large))
        found |= {"model_args": {}, "size": None} | {k: [8] for k in ("expander", "token_expander") if found.get(k)}
    found |= {"layers": [0]} if found.get("layers") else {}  # the only one that is left
    found |= {"level": 0} if found.get("level") else {}
    return found | ({"levels": None} if isinstance(found.get("levels"), list) else {})  # of features that have one


def component(group: str, name: str, grid: Grid = GRID) -> Any:
    torch.manual_seed(0)
    known: dict[str, Any] = {"channels": 3, "encoder_width": WIDTH, "encoder_widths": (WIDTH,), "grid": grid}
    known |= {"view_shape": VIEW_SHAPE, "pixel_mean": (0.5,) * 3, "pixel_std": (0.25,) * 3}
    return make(GROUPS[group], node(group, name), **known)


def fitting(places: tuple, attempt: Any) -> int:
    """At how many of the places the component is at home; those that it refuses, as it may, are left out."""
    found = 0
    for place in places:
        try:
            attempt(place)
        except ValueError:
            continue
        found += 1
    return found


def test_every_kind_is_covered():
    assert {*GROUPS.values(), "decoder", "format"} == set(KINDS)


@pytest.mark.parametrize("name", options("masker"))
def test_masker(name):
    assert fitting(GRIDS, lambda grid: testing.check_masker(component("masker", name, grid), [grid]))


@pytest.mark.parametrize("name", options("tokenizer"))
def test_tokenizer(name):
    assert fitting(SHAPES, lambda shape: testing.check_tokenizer(component("tokenizer", name), shape))


@pytest.mark.parametrize("name", options("encoder"))
def test_encoder(name):
    testing.check_encoder(component("encoder", name))


@pytest.mark.parametrize("name", options("predictor"))
def test_predictor(name):
    made = component("predictor", name)
    levels = tuple(torch.randn(2, 4, WIDTH) for _ in range(getattr(made, "levels", 1)))
    testing.check_predictor(made, levels if len(levels) > 1 else levels[0])


@pytest.mark.parametrize("name", options("anti_collapse"))
def test_anti_collapse(name):
    from jepakit.jepa import Backbone
    from tests.contracts.toys import AnyGridEncoder

    tokenizer = make("tokenizer", {"name": "patch", "patch": 4}, channels=3, encoder_width=WIDTH)
    backbone = Backbone(tokenizer, AnyGridEncoder(WIDTH))
    testing.check_anti_collapse(component("anti_collapse", name), backbone, torch.randn(4, 3, 1, 8, 8))


@pytest.mark.parametrize("name", options("data"))
def test_source(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labelled(Path("pictures"))
    for each in "ab":
        frames(Path("clips") / each)
    clevr(Path("scenes"), {"train": [[8.2, 9.0, 12.0], [7.0, 7.5, 8.0, 11.0]]})
    mapped(Path("maps"))
    found = node("data", name)
    testing.check_source(open_source(found | SOURCES.get(name, SOURCES.get(found["name"], {}))))
