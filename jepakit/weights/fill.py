"""From the weights of a file to a backbone that holds them: strictly, at any size of picture."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jepakit.build import build_backbone, view_shape
from jepakit.errors import CheckpointError, ConfigError, first_line, nearest
from jepakit.jepa import Backbone
from jepakit.plugins import discover
from jepakit.types import Grid, Weights
from jepakit.weights.native import RunFolder

WHICH = ("target", "online")
LISTED = 6
"""Keys that a refusal names of each sort."""


def chosen(found: Weights, which: str, name: str) -> str:
    """The name of the backbone that is meant: ``which``, but in a run without a teacher, where what learns answers too.

    Raises ConfigError for a name that there is not, CheckpointError where the file does not hold it.
    """
    if which not in WHICH:
        raise ConfigError(f"unknown weights {which!r}{nearest(which, WHICH)}; known: {', '.join(WHICH)}")
    if found.about.get("format") == RunFolder.title and which == "target" and which not in found.backbones:
        return "online"
    if which not in found.backbones:
        there = " or ".join(f"weights={each}" for each in found.backbones) or "none"
        raise CheckpointError(f"{name} has no {which} weights; there are: {there}")
    return which


def filled(config: Mapping[str, Any], state: Mapping[str, Tensor], who: str) -> Backbone:
    """The backbone that ``config`` describes with the weights ``state``. Raises CheckpointError where they differ."""
    backbone, _ = skeleton(config)
    wanted = backbone.state_dict()
    refuse_misfit(wanted, state, who)
    typed = {name: value.to(wanted[name].dtype) for name, value in state.items()}
    backbone.load_state_dict(typed, assign=True)
    if any(tensor.is_meta for tensor in _held(backbone)):  # it keeps what no file holds, which has to be computed
        backbone, _ = build_backbone({"seed": 0, **config})
        backbone.load_state_dict(typed)
    return backbone


def skeleton(config: Mapping[str, Any]) -> tuple[Backbone, Grid]:
    """The backbone with shapes and no content, and the grid of tokens of its pictures: drawing the initial weights of
    a large one takes seconds, which are lost where others take their place."""
    with torch.device("meta"):
        return build_backbone({"seed": 0, **config})


def refuse_misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], who: str) -> None:
    """Raise CheckpointError, naming the keys, where names, shapes or kinds of numbers differ."""
    both = wanted.keys() & found.keys()
    shapes = {name: (_form(found[name]), _form(wanted[name])) for name in wanted if name in both}
    sorts = {
        "missing": [name for name in wanted if name not in both],
        "left over": [name for name in found if name not in both],
        "wrong shape": [f"{name} ({has}, not {needs})" for name, (has, needs) in shapes.items() if has != needs],
    }
    if any(sorts.values()):
        said = "; ".join(f"{sort}: {_listed(names)}" for sort, names in sorts.items() if names)
        raise CheckpointError(f"{who}: the tensors are not those of the model; {said}")


def native(config: Mapping[str, Any], part: str = "encoder") -> tuple[int, int] | None:
    """Rows and columns of the grid whose places the encoder or predictor knows; None where it has no such setting."""
    node = config[part]
    if "native" not in {each.name for each in discover().get(part, node["name"]).arguments()}:
        return None
    rows, columns = (node.get("native") or skeleton(config)[1])[-2:]
    return rows, columns


def at_size(
    config: Mapping[str, Any], size: int | None = None, frames: int | None = None
) -> tuple[dict[str, Any], str]:
    """The configuration for pictures of ``size`` or clips of so many ``frames``, and what becomes of positions there,
    in words."""
    trained, config = native(config), dict(config)
    for key, value in (("size", size), ("frames", frames)):
        if value is not None and value != config["data"].get(key, 1):
            _refuse_data(config, key, value)
            config["data"] = {**config["data"], key: value}
    if trained is None:
        return config, "the encoder's own"
    if not config["encoder"].get("native"):
        config["encoder"] = {**config["encoder"], "native": list(trained)}
    grid = skeleton(config)[1]
    rows, columns = trained
    return config, "as trained" if (grid.h, grid.w) == trained else f"scaled to the trained {rows} x {columns}"


def _refuse_data(config: Mapping[str, Any], key: str, value: int) -> None:
    """Raise ConfigError for a ``size`` or ``frames`` that cannot be cut, with the nearest that can."""
    (backbone, _), data = skeleton(config), config["data"]

    def reason(number: int) -> str:
        try:
            backbone.tokenizer.grid(*view_shape({**data, key: number})[1:])
        except ValueError as error:
            return first_line(error)
        return "" if number > 0 else f"a {'picture has at least one pixel' if key == 'size' else 'clip has a frame'}"

    if why := reason(value):
        known = data.get(key, 1)
        near = (each for off in range(known + 1) for each in (value + off, value - off) if each > 0)
        fits = next((each for each in near if not reason(each)), known)
        raise ConfigError(f"{key}={value}: {why} (did you mean {fits}?)")


def _held(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, and tensors that are plain attributes."""
    yield from (*module.parameters(), *module.buffers())
    yield from (value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor))


def _form(tensor: Tensor) -> str:
    shape = " x ".join(map(str, tensor.shape)) or "a number"
    return shape if tensor.is_floating_point() else f"{shape} {str(tensor.dtype).removeprefix('torch.')}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
