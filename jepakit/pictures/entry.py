"""``jepakit show masks``: what a recipe would train on, before anything is trained."""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from jepakit.build import make, refuse
from jepakit.data import BadSample, open_source
from jepakit.data.views import CentreView
from jepakit.errors import ConfigError, DataError, nearest
from jepakit.options import DataOptions
from jepakit.pictures.curves import curves
from jepakit.pictures.masks import masks
from jepakit.protocols import Source
from jepakit.seeds import generator
from jepakit.types import Grid, Mask

ROWS = 6
"""Pictures on a sheet."""


def command(what: str, config: Mapping[str, Any], out: Path | None = None) -> Path:
    """Draw ``masks`` (for a configuration, which need not name data) or ``curves`` (of the run that it names).

    Without ``out`` the picture goes to the run's folder ``pictures``, or here if there is no run. Returns its path.
    Raises ConfigError for anything else, and where the masker finds no room on the grid.
    """
    if what not in DRAW:
        raise ConfigError(f"show {what}: there is no such picture{nearest(what, DRAW)}; known: {', '.join(DRAW)}")
    folder = Path(config["run"]) / "pictures" if config.get("run") else Path()
    return DRAW[what](config, out or folder / f"{what}.png")


def picked(source: Source, size: int, count: int = ROWS) -> UInt8[Tensor, "B C T H W"]:
    """A few readable samples as evaluation views, always the same ones. Raises DataError where there are none."""
    view, found = CentreView(size), []
    for index in torch.randperm(len(source), generator=generator("pictures")).tolist():
        try:
            found.append(view.fit(view.take(source[index][0], generator("pictures"))[0]))
        except BadSample:
            continue  # counted where it matters: this sheet only needs some that can be read
        if len(found) == count:
            break
    if not found:
        raise DataError(f"none of {len(source)} samples can be read; the first is {source.describe(0)}")
    return torch.stack(found)


def drawn(config: Mapping[str, Any], grid: Grid, count: int) -> list[Mask]:
    """Masks as a step would draw them. Raises ConfigError where the masker finds no room."""
    masker = make("masker", config["masker"], grid=grid)
    return refuse(f"masker {config['masker']['name']!r}", masker, grid, count, generator(config["seed"], "pictures"))


def _masks(config: Mapping[str, Any], out: Path) -> Path:
    data = _data(config)
    return sheet_of_masks(config, picked(open_source(data), data["size"]), out)


def sheet_of_masks(config: Mapping[str, Any], pictures: UInt8[Tensor, "B C T H W"], out: Path) -> Path:
    """What the configuration's masker would show and ask of ``pictures``."""
    # The grid does not depend on the encoder's width: there is no need of the whole model.
    tokenizer = make("tokenizer", config["tokenizer"], channels=pictures.shape[1], encoder_width=4)
    grid = refuse(f"tokenizer {config['tokenizer']['name']!r}", tokenizer.grid, *pictures.shape[2:])
    found = drawn(config, grid, len(pictures))
    views = 1 + max(max((m.context_view, *_several(m.target_view))) for m in found)
    return masks(pictures if views == 1 else [pictures] * views, found, grid, out)


def _curves(config: Mapping[str, Any], out: Path) -> Path:
    if not config.get("run"):
        raise ConfigError("show curves needs a run: run=runs/...")
    return curves(Path(config["run"]) / "log.jsonl", out)


def _data(config: Mapping[str, Any]) -> dict[str, Any]:
    """The run's data, or, where that is not set yet, the built-in pictures at its size (and it says so)."""
    data = dict(config["data"])
    if "???" not in data.values():
        return data
    print("the data is not set: these are built-in pictures", file=sys.stderr)
    common = {field.name for field in dataclasses.fields(DataOptions)}
    return {key: value for key, value in data.items() if key in common} | {"name": "world", "side": data["size"]}


def _several(view: int | tuple[int, ...]) -> tuple[int, ...]:
    return (view,) if isinstance(view, int) else view


DRAW = {"masks": _masks, "curves": _curves}
