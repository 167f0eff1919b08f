"""The course of a run: is it learning, is it collapsing?"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from jepakit.errors import DataError
from jepakit.health.course import current
from jepakit.health.verdict import verdict
from jepakit.log import read
from jepakit.pictures.style import FAINT, colour, sheet

HEIGHT = 1.65
"""Inches of one row of plots."""

HEADROOM = 0.25
"""Share of a plot's height that is added above its curves for the legend."""

FAR = 100.0
"""Greatest over least value from which powers of ten are enough on a logarithmic axis."""

COLUMNS = 120
"""Letters of the verdict that fit side by side."""

SMOOTH = 0.02
"""Share of a curve's points that its running median looks at."""


ORDER = (6, 4, 3)
"""Colours of a plot's curves, by number: the darkest of the palette, since lines are thin."""


class Plot(NamedTuple):
    """A title, the curves (key of the log, words), and levels to compare with (key, words)."""

    title: str
    curves: tuple[tuple[str, str], ...]
    levels: tuple[tuple[str, str], ...] = ()
    scale: str = "linear"


PLOTS = (
    Plot("loss", (("loss", "total"), ("distance", "distance"))),
    Plot("k-NN score, held out", (("knn", "trained"),), (("knn_random", "random"), ("knn_pixels", "pixels"))),
    Plot("effective rank", (("rank", "context"), ("target_rank", "target"), ("rankme", "held out"))),
    Plot("std of features over samples", (("std", "context"), ("target_std", "target"))),
    Plot("mean cosine of two samples", (("sample_cosine", "context"), ("target_sample_cosine", "target"))),
    Plot(
        "variance by direction, share",
        (("spectrum/1", "1st"), ("spectrum/8", "8th"), ("spectrum/32", "32nd")),
        scale="log",
    ),
    Plot("cosine of guess and truth", (("cosine", "predictor"), ("cosine_mean", "mean token"))),
    Plot("learning rate", (("lr", "learning rate"),)),
    Plot("weight decay", (("weight_decay", "weight decay"),)),
    Plot("norm of the gradient", (("grad_norm", "norm"),), scale="log"),
    Plot("samples per second", (("images_per_second", "speed"),)),
)


def curves(log: Path, out: Path, config: Mapping[str, Any] | None = None) -> Path:
    """Draw ``log.jsonl``: loss, score with its controls, health, schedules. What was not logged is left out. Above it
    the verdict; with the run's ``config`` a likely cause names its settings.

    Raises DataError where there is nothing to draw.
    """
    lines = current(read(log))
    plots = [plot for plot in PLOTS if any(points(lines, key)[0] for key, _ in plot.curves)]
    if not plots:
        raise DataError(f"{log}: no line with a step and a number to draw")
    columns = min(3, len(plots))
    rows = math.ceil(len(plots) / columns)
    with sheet(HEIGHT * rows + 0.3, out) as figure:
        figure.set_layout_engine("constrained")
        said = [textwrap.fill(line, COLUMNS) for line in str(verdict(lines, config)).splitlines()]
        figure.suptitle("\n".join(said), x=0.01, ha="left", fontsize=8, color=FAINT)
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis, plot in zip(axes, plots, strict=False):
            _draw(axis, plot, lines)
        for axis in axes[len(plots) :]:
            axis.set_axis_off()
        for axis in axes[max(len(plots) - columns, 0) : len(plots)]:
            axis.set_xlabel("step")
    return out


def points(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one key, as far as they are finite; of a step that was done twice the later one."""
    known = {
        line["step"]: float(line[key]) for line in lines if "step" in line and isinstance(line.get(key), (int, float))
    }
    finite = {step: value for step, value in sorted(known.items()) if math.isfinite(value)}
    return list(finite), list(finite.values())


def smooth(values: Sequence[float]) -> list[float]:
    """A running median."""
    half = round(len(values) * SMOOTH / 2)
    return [_median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def _draw(axis: Axes, plot: Plot, lines: Sequence[Mapping[str, Any]]) -> None:
    axis.set_title(plot.title)
    shown = [(number, key, name) for number, (key, name) in enumerate(plot.curves) if points(lines, key)[0]]
    shown = _without_doubles(shown, lines)
    for number, key, name in shown:
        x, y = points(lines, key)
        noisy = len(x) > 100
        if noisy:
            axis.plot(x, y, color=colour(ORDER[number]), alpha=0.25, linewidth=0.6)
        marker = "o" if len(x) <= 25 else None
        axis.plot(x, smooth(y) if noisy else y, color=colour(ORDER[number]), label=name, marker=marker, markersize=2.5)
    for number, (key, name) in enumerate(plot.levels):
        if y := points(lines, key)[1]:
            axis.axhline(y[-1], color=FAINT, linestyle=("--", ":")[number % 2], linewidth=1, label=name)
    scale(axis, plot.scale)
    if len(axis.get_legend_handles_labels()[0]) > 1:
        low, high = axis.get_ylim()
        more = (high / low) ** HEADROOM * high if plot.scale == "log" else high + HEADROOM * (high - low)
        axis.set_ylim(low, more)
        axis.legend(loc="upper left", ncols=3, handlelength=1.2, columnspacing=1.0, borderaxespad=0.1)


def scale(axis: Axes, kind: str) -> None:
    """A few ticks with plain numbers on both axes; ``kind``: linear or log."""
    axis.set_yscale(kind)
    low, high = axis.get_ylim()
    subs = (1.0,) if high > FAR * low else (1.0, 2.0, 5.0)
    axis.yaxis.set_major_locator(MaxNLocator(4) if kind == "linear" else LogLocator(subs=subs))
    axis.yaxis.set_major_formatter(FuncFormatter(plain))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def plain(value: float, _: int = 0) -> str:
    """A tick's number without powers."""
    return f"{value:g}"


def _without_doubles(shown: list[tuple[int, str, str]], lines: Sequence[Mapping[str, Any]]) -> list:
    """The curves, less those that lie on an earlier one (a loss that has one part)."""
    kept: list[tuple[int, str, str]] = []
    for each in shown:
        if all(points(lines, each[1]) != points(lines, other[1]) for other in kept):
            kept.append(each)
    return kept


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
