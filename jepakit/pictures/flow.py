"""Pairs of frames, how they truly move, and how a model says that they do."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from jepakit.data import BadSample
from jepakit.data.flow import Truth
from jepakit.errors import DataError
from jepakit.evaluate.data import Part
from jepakit.evaluate.motion import Estimator
from jepakit.pictures.moved import SLOWER, colours, error, follow, hidden, painted, rim, wheel
from jepakit.pictures.panels import GAP, SMOOTH, VEIL, bare, blend, frame
from jepakit.pictures.style import FAINT, WIDTH, colour, sheet
from jepakit.seeds import generator

HEAD, LINE, LEGEND, MARGIN = 0.22, 0.17, 0.78, 0.05
"""Inches for the titles, for what is said below a pair, for the legend at the foot, and to the left and right."""

TALLEST = 1.5
"""Height of a picture over its width, from which on it is drawn narrower."""

LONGEST = 48
"""Letters of a pair's place that are written."""

CASES = (("occluded, found", 3), ("occluded, missed", 0), ("not occluded, but said so", 1), ("said occluded", 2))
"""What an occlusion may be, and its colour's number; the last where nobody tells the truth."""

MAP = "magma"
"""Of errors: dark is none."""


class Shown(NamedTuple):
    """A pair of frames, its true flow if any, the estimates there and back, and where it comes from."""

    frames: UInt8[Tensor, "C 2 H W"]
    truth: Truth | None
    flow: Float[Tensor, "2 H W"]
    back: Float[Tensor, "2 H W"]
    place: str


ROWS = 4
"""Pairs on a sheet."""


def pairs(estimate: Estimator, part: Part, count: int = ROWS) -> list[Shown]:
    """A few readable pairs and their estimates, always the same ones; with true flow, where the source tells any.

    Raises DataError where there are none.
    """
    found, tells = [], getattr(part.source, "truth", lambda index: None)
    for index in part.rows[torch.randperm(len(part.rows), generator=generator("pictures"))].tolist():
        try:
            frames, truth = part.source[index][0], tells(index)
        except BadSample:
            continue  # counted where it matters: this sheet only needs some that can be read
        found.append(Shown(frames, truth, estimate(frames), estimate(frames.flip(1)), part.source.describe(index)))
        if len(found) == count:
            break
    if not found:
        raise DataError(f"none of {len(part.rows)} pairs can be read, so that there is nothing to draw")
    return found


def flow(shown: Sequence[Shown], out: Path) -> Path:
    """A sheet: each row a pair, its true and its estimated flow in the same colours, the error, what is occluded, and
    the second frame moved back to where the first is. Columns that need a true flow are there where any pair has one.
    """
    most = _greatest([error(each.flow, each.truth) for each in shown if each.truth is not None])
    columns = _columns(most, any(each.truth is not None for each in shown))
    side = (WIDTH - 2 * MARGIN - GAP * (len(columns) - 1)) / len(columns)
    heights = [side * min(each.frames.shape[-2] / each.frames.shape[-1], TALLEST) + LINE for each in shown]
    with sheet(HEAD + sum(heights) + LEGEND, out) as figure:
        top = figure.get_figheight() - HEAD
        for number, (each, height) in enumerate(zip(shown, heights, strict=True)):
            for column, (title, draw) in enumerate(columns.items()):
                axis = _axis(figure, MARGIN + column * (side + GAP), top - height + LINE, side, height - LINE)
                axis.set_title(title if number == 0 else "", pad=3, fontsize=7)
                draw(axis, each)
            _write(figure, MARGIN, top - height + LINE - 0.11, _said(each))
            top -= height
        _legend(figure, most, [_tells(each) for each in shown])
    return out


def _columns(most: float | None, true: bool) -> dict[str, Callable[[Axes, Shown], None]]:
    """What is drawn of a pair, by the words above it."""
    found: dict[str, Callable[[Axes, Shown], None]] = {
        "first frame": lambda axis, pair: _image(axis, frame(pair.frames, 0)),
        "second frame": lambda axis, pair: _image(axis, frame(pair.frames, 1)),
    }
    if true:
        found["true flow"] = lambda axis, pair: _true(axis, pair)
    found["estimated flow"] = lambda axis, pair: _image(axis, colours(pair.flow, rim(pair.flow, pair.truth)))
    if true:
        found["error"] = lambda axis, pair: _error(axis, pair, most)
    return found | {"occlusion": _occlusion, "second, moved": _moved}


def _image(axis: Axes, image: np.ndarray) -> None:
    axis.imshow(image, interpolation=SMOOTH)


def _true(axis: Axes, pair: Shown) -> None:
    if pair.truth is None:
        axis.text(0.5, 0.5, "not known", color=FAINT, size=6, ha="center", va="center", transform=axis.transAxes)
    else:
        _image(axis, painted(pair.truth, rim(pair.flow, pair.truth)))


def _error(axis: Axes, pair: Shown, most: float | None) -> None:
    axis.set_facecolor(VEIL)
    if pair.truth is not None:
        axis.imshow(error(pair.flow, pair.truth), cmap=MAP, vmin=0, vmax=most, interpolation="nearest")
    else:
        _true(axis, pair)


def _occlusion(axis: Axes, pair: Shown) -> None:
    """Over the first frame in pale grey."""
    said, image = hidden(pair.flow, pair.back).numpy(), frame(pair.frames, 0).mean(-1, keepdims=True)
    image = 1 - 0.4 * (1 - np.repeat(image, 3, -1))
    if pair.truth is not None and pair.truth.occluded is not None:
        true, nobody = pair.truth.occluded.numpy(), np.zeros_like(said)
        where = (true & said, true & ~said, ~true & said, nobody)
    else:
        where = (*[np.zeros_like(said)] * 3, said)
    for each, (_, number) in zip(where, CASES, strict=True):
        image = blend(image, each, 0.85, colour(number))
    _image(axis, image)


def _moved(axis: Axes, pair: Shown) -> None:
    """The second frame where the flow says that the first's pixels went; grey where that lies outside."""
    image, inside = follow(torch.from_numpy(frame(pair.frames, 1)).permute(2, 0, 1), pair.flow)
    _image(axis, blend(image.permute(1, 2, 0).numpy(), ~inside.numpy(), 1.0, VEIL))


def _said(pair: Shown) -> str:
    """A line: where the pair is from, which speed the rim of the wheel is, and the mean error beside zero flow's."""
    rest = f"rim of the wheel {rim(pair.flow, pair.truth):.3g} px"
    if pair.truth is not None and pair.truth.known.any():
        known = pair.truth.known
        wrong = (pair.flow - pair.truth.flow).norm(dim=0)[known].mean()
        rest += f", EPE {wrong:.3g} px, of zero flow {pair.truth.flow.norm(dim=0)[known].mean():.3g} px"
    place = pair.place if len(pair.place) <= LONGEST else f"...{pair.place[-LONGEST:]}"
    return f"{place}: {rest}"


def _greatest(errors: Sequence[np.ndarray]) -> float | None:
    """The error that the scale ends at, and few pixels are above; None where none is known."""
    known = np.concatenate([each[np.isfinite(each)] for each in errors] or [np.empty(0)])
    return max(float(np.quantile(known, SLOWER)), 0.1) if len(known) else None


def _legend(figure: Figure, most: float | None, told: Sequence[bool]) -> None:
    """At the foot: the wheel, the scale of errors, the colours of occlusions."""
    side = LEGEND - 0.16
    _image(_axis(figure, MARGIN, 0.06, side, side), wheel(300))
    lines = (
        "flow: the hue says where to, the colour",
        "how fast, up to the rim of the wheel;",
        "white rests, dark grey is not known",
    )
    for number, line in enumerate(lines):
        _write(figure, side + 0.15, LEGEND - 0.22 - 0.125 * number, line)
    if most is not None:
        axis = figure.add_axes(_box(figure, 2.75, 0.35, 1.5, 0.1))
        figure.colorbar(ScalarMappable(Normalize(0, most), MAP), cax=axis, orientation="horizontal", extend="max")
        axis.tick_params(labelsize=6, length=2, pad=1)
        axis.set_title("end-point error in pixels", fontsize=6, fontweight="normal", pad=3, color=FAINT)
    cases = CASES[:3] * any(told) + CASES[3:] * (not all(told))
    handles = [Patch(color=colour(number), label=name) for name, number in cases]
    place = _box(figure, 4.6, LEGEND - 0.1, 0.0, 0.0)[:2]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=place, fontsize=6, labelcolor=FAINT, borderpad=0)


def _tells(pair: Shown) -> bool:
    """Whether its data say what is occluded."""
    return pair.truth is not None and pair.truth.occluded is not None


def _box(figure: Figure, left: float, low: float, width: float, height: float) -> tuple[float, float, float, float]:
    """A place in inches as shares of the sheet."""
    wide, high = figure.get_figwidth(), figure.get_figheight()
    return left / wide, low / high, width / wide, height / high


def _axis(figure: Figure, left: float, low: float, width: float, height: float) -> Axes:
    return bare(figure.add_axes(_box(figure, left, low, width, height)))


def _write(figure: Figure, left: float, low: float, text: str) -> None:
    place = _box(figure, left, low, 0.0, 0.0)
    figure.text(*place[:2], text, color=FAINT, size=6)
