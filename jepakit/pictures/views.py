"""What a sample looks like to the model while it trains: all of its views, and where they were cut."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from jepakit.data import open_source, read_options
from jepakit.data.colour import How
from jepakit.data.loader import Loader
from jepakit.data.views import RandomView, drawn_views
from jepakit.pictures.panels import LINE, SMOOTH, Layout, frame
from jepakit.pictures.style import colour, sheet

ROWS = 6
"""Samples on a sheet."""


def views(config: Mapping[str, Any], out: Path) -> Path:
    """A sheet of the first samples that ``config`` trains on: each a row, the picture with its boxes, then its views.

    Of clips the first, middle and last frame are shown. Raises DataError where the source has too few samples.
    """
    data, seed = config["data"], config["seed"]
    source, kinds = open_source(data), config.get("views") or {"view": {}}
    clips = getattr(source, "clips", 1)
    few = {**data, "workers": 0, "batch_size": -(-ROWS // clips) * clips}
    batch = next(iter(Loader(source, few, seed, views=config.get("views")).batches(0, 1)))
    shown = [restored(view, data["mean"], data["std"]) for view in batch.views]
    frames = shown[0].shape[2]
    numbers = sorted({0, frames // 2, frames - 1})
    layout = Layout(
        len(batch.index), ["picture" if frames == 1 else "clip", *titles(kinds)], len(numbers), told(config)
    )
    colours = [colour(kind) for kind, given in enumerate(kinds.values()) for _ in range(given.get("count", 1))]
    width, height = layout.size
    with sheet(height, out, width) as figure:
        for row, axes in enumerate(layout.axes(figure)):
            whole = source[int(batch.index[row])][0]
            _show(axes[0], whole, [number * whole.shape[1] // frames for number in numbers])
            for how, line in zip(batch.condition, colours, strict=True):
                _outline(axes[0], whole, How(*how[row].tolist()), line)
            for each, view in zip(axes[1:], shown, strict=True):
                _show(each, view[row], numbers)
    return out


def titles(kinds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What stands above the views: their names, numbered where there are several of a kind."""
    counts = {name: given.get("count", 1) for name, given in kinds.items()}
    return [f"{name} {i + 1}" if count > 1 else name for name, count in counts.items() for i in range(count)]


def told(config: Mapping[str, Any]) -> str:
    """What each kind of view is, in one line."""
    kinds, said = config.get("views") or {"view": {}}, []
    for name, given in kinds.items():
        view = drawn_views(read_options(config["data"]), {name: given})[0]
        assert isinstance(view, RandomView)
        low, high = view.scale
        said.append(f"{name}: {given.get('count', 1)} of {view.size} pixels, {low:.0%} to {high:.0%} of the picture")
    return "; ".join(said)


def restored(
    view: Float[Tensor, "B C T S S"], mean: Sequence[float], std: Sequence[float]
) -> UInt8[Tensor, "B C T S S"]:
    """A normalised view as pixels."""
    low, scale = (torch.tensor(each).view(-1, 1, 1, 1) for each in (mean, std))
    return view.cpu().mul(scale).add(low).mul(255).round().clamp(0, 255).to(torch.uint8)


def _show(axes: Sequence[Axes], picture: UInt8[Tensor, "C T H W"], numbers: Sequence[int]) -> None:
    for axis, number in zip(axes, numbers, strict=True):
        axis.imshow(frame(picture, number), interpolation=SMOOTH)


def _outline(axes: Sequence[Axes], picture: UInt8[Tensor, "C T H W"], how: How, line: str) -> None:
    height, width = picture.shape[-2:]
    left, right, top, bottom = how.left * width, how.right * width, how.top * height, how.bottom * height
    for axis in axes:
        corner = (left - 0.5, top - 0.5)
        axis.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=line, linewidth=LINE))
