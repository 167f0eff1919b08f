"""``jepakit show masks --audit``: one page about a masker, its numbers beside it, and a verdict."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from jepakit.audit import Counts, profiles
from jepakit.pictures.panels import outline
from jepakit.pictures.style import FAINT, INK, WIDTH, colour, sheet
from jepakit.starved import IN_WORDS, Finding, findings, starved
from jepakit.types import Grid

MAP, SIDE, STRIP = 2.4, 0.62, 0.75
"""Inches: the longer side of a map, the width of the profile beside it, the height of the one below."""

LEFT, GAP, TOP, BELOW, MARGIN = 0.42, 0.07, 0.22, 0.42, 0.08
"""Inches: for numbers left of a map, between a map and its profiles, for titles, for labels below, at the edges."""

LINE, SMALL = 0.135, 0.105
"""Inches from one line of text to the next: the verdict's, and what is printed small."""

Profiles = Mapping[str, Tensor]

NUMBERED = 16
"""Cells a row up to which each is given its number."""

BEFORE, AFTER, SCALE = FAINT, colour(6), "Blues"
NEVER, STARVED = colour(4), colour(0)


def page(counts: Sequence[Counts], masker: Mapping[str, Any], out: Path) -> Path:
    """Draw for every question how often each token is context and target, the context's lengths and its profiles.

    Maps of clips are means over time. Tokens that are never met are framed, as are those that are starved.
    """
    verdicts = [_wrapped(findings(each)) for each in counts]
    head, rules = textwrap.wrap(settings(masker), 150), textwrap.wrap(IN_WORDS, 168)
    blocks = [_height(each) + LINE * len(lines) + 0.12 for each, lines in zip(counts, verdicts, strict=True)]
    height = 0.34 + SMALL * (len(head) + len(rules)) + sum(blocks) + MARGIN
    with sheet(height, out) as figure:
        canvas = Canvas(figure)
        top = _head(canvas, counts[0], masker["name"], height - 0.18)
        top = canvas.lines(top, head, SMALL, size=6, color=FAINT) + 0.04
        for number, (each, lines) in enumerate(zip(counts, verdicts, strict=True)):
            _question(canvas, each, top, f"{number + 1}: " if len(counts) > 1 else "")
            top = canvas.verdict(top - _height(each) - 0.04, lines) - 0.08
        canvas.lines(top, rules, SMALL, size=5.5, color=FAINT)
    return out


def _head(canvas: "Canvas", counts: Counts, name: str, top: float) -> float:
    grid = counts.grid if counts.grid.t > 1 else counts.grid[1:]
    canvas.text(MARGIN, top, f"{name} on {' x '.join(map(str, grid))} tokens", weight="bold", size=9)
    drawn = f"{len(counts.kept)} batches of {counts.samples}"
    canvas.text(WIDTH - MARGIN, top, drawn, size=7, color=FAINT, ha="right")
    return top - 0.14


def settings(masker: Mapping[str, Any]) -> str:
    """A masker's settings, as they would be written on the command line."""
    plain = {name: json.dumps(value, separators=(",", ":")).replace('"', "") for name, value in masker.items()}
    return "  ".join(f"{name}={value}" for name, value in plain.items() if name != "name")


class Canvas(NamedTuple):
    """A figure with places in inches from its lower left corner."""

    figure: Figure

    def axes(self, left: float, low: float, width: float, height: float, **more: Any) -> Axes:
        w, h = self.figure.get_size_inches()
        return self.figure.add_axes((left / w, low / h, width / w, height / h), **more)

    def text(self, left: float, low: float, words: str, **more: Any) -> None:
        w, h = self.figure.get_size_inches()
        self.figure.text(left / w, low / h, words, **more)

    def lines(self, top: float, lines: Sequence[str], step: float, **more: Any) -> float:
        for number, line in enumerate(lines):
            self.text(MARGIN, top - number * step, line, **more)
        return top - step * len(lines)

    def verdict(self, top: float, lines: Sequence[tuple[str, bool]]) -> float:
        for number, (line, warning) in enumerate(lines):
            look = {"color": NEVER, "weight": "bold"} if warning else {"color": INK}
            self.text(MARGIN, top - LINE * number, line, size=7, **look)
        return top - LINE * len(lines)


def _wrapped(found: Sequence[Finding]) -> list[tuple[str, bool]]:
    lines: list[tuple[str, bool]] = []
    for each in found:
        wrapped = textwrap.wrap(each.text, 118 if each.warning else 134, subsequent_indent="    ")
        lines += [(line, each.warning) for line in wrapped]
    return lines


def _map_size(grid: Grid) -> tuple[float, float]:
    cell = MAP / max(grid.h, grid.w)
    return cell * grid.w, cell * grid.h


def _height(counts: Counts) -> float:
    """Inches of a question's drawing: maps, and below them profiles and lengths where there is something to tell."""
    return TOP + _map_size(counts.grid)[1] + GAP + (counts.context is not None) * (STRIP + BELOW)


def _question(canvas: Canvas, counts: Counts, top: float, which: str) -> None:
    width, height = _map_size(counts.grid)
    low, second = top - TOP - height, LEFT + MAP + GAP + SIDE + 0.42
    blocks = counts.asked.shape[1]
    most = max(
        [float(each.mean((0, 1)).max()) for each in (counts.context, counts.target) if each is not None], default=1
    )
    _map(canvas.axes(LEFT, low, width, height), counts.context, counts, f"{which}context", most).set_ylabel("row")
    target = f"{which}target, any of {blocks} blocks" if blocks > 1 else f"{which}target"
    mesh = _map(canvas.axes(second, low, width, height), counts.target, counts, target, most).collections[0]
    _bar(canvas, mesh, (second + width + GAP, low, 0.09, height))
    if counts.context is not None:
        after, before = profiles(counts.context.mean(0)), profiles(counts.uncut)
        _profiles(canvas, after, before, (LEFT, low, width, height))
        share = 0.52 if "time" in after else 1.0
        _lengths(canvas.axes(second, low - GAP - STRIP, share * MAP, STRIP), counts)
        if "time" in after:
            _time(canvas.axes(second + 0.62 * MAP, low - GAP - STRIP, 0.38 * MAP, STRIP), before["time"], after["time"])
        _legend(canvas.axes(LEFT + width + GAP, low - GAP - STRIP - BELOW, SIDE + 0.3, STRIP + BELOW - 0.14))


def _map(axis: Axes, shares: Tensor | None, counts: Counts, title: str, most: float) -> Axes:
    grid = counts.grid
    share = np.ones((grid.h, grid.w)) if shares is None else shares.double().mean((0, 1)).numpy()
    line = 0.4 if max(grid.h, grid.w) <= NUMBERED else 0.15
    edges = (np.arange(grid.w + 1) - 0.5, np.arange(grid.h + 1) - 0.5)
    axis.pcolormesh(*edges, share, cmap=SCALE, vmin=0, vmax=most, edgecolors="white", linewidth=line)
    axis.set_title(f"{title}: the whole view" if shares is None else f"{title} (% of samples)", pad=3)
    axis.invert_yaxis()
    axis.set_frame_on(False)
    axis.grid(False)
    axis.tick_params(length=0, pad=2)
    axis.set(xticks=[], yticks=_ticks(grid.h))
    if max(grid.h, grid.w) <= NUMBERED:
        _numbers(axis, share, most)
    if shares is not None:
        found = starved(shares, counts.samples)
        for tokens, ink in ((found.lopsided, STARVED), (found.never, NEVER)):
            outline(axis, tokens.all(0).numpy(), share, ink)
    return axis


def _ticks(length: int) -> list[int]:
    """A few numbers of rows or columns, the first and the last among them."""
    step = max(1, round((length - 1) / 5))
    return [i for i in range(0, length - step // 2 - 1, step)] + [length - 1]


def _numbers(axis: Axes, share: np.ndarray, most: float) -> None:
    size = min(7.0, MAP / max(share.shape) * 72 * 0.5)
    for (row, column), value in np.ndenumerate(share):
        words = "<1" if 0 < value < 0.005 else f"{100 * value:.0f}"
        ink = "white" if value > 0.55 * most else INK
        axis.text(column, row + 0.04, words, size=size, color=ink, ha="center", va="center")


def _bar(canvas: Canvas, mesh: Collection, box: tuple[float, float, float, float]) -> None:
    axis = canvas.axes(*box)
    bar = canvas.figure.colorbar(mesh, cax=axis, format=PercentFormatter(1.0, decimals=0))
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    axis.grid(False)
    axis.tick_params(length=0, pad=2)


def _legend(axis: Axes) -> None:
    axis.set_axis_off()
    lines = [Line2D([], [], color=BEFORE), Line2D([], [], color=AFTER)]
    frames = [Patch(facecolor="none", edgecolor=ink, linewidth=1.2) for ink in (NEVER, STARVED)]
    words = ["before the cut", "after the cut", "never met", "starved"]
    axis.legend([*lines, *frames], words, loc="upper left", handlelength=1.0, fontsize=6.5, borderaxespad=0.0)


def _profiles(canvas: Canvas, after: Profiles, before: Profiles, box: tuple[float, float, float, float]) -> None:
    left, low, width, height = box
    most = 1.05 * max(float(each[axis].max()) for each in (after, before) for axis in ("row", "column"))
    beside = canvas.axes(left + width + GAP, low, SIDE, height)
    beneath = canvas.axes(left, low - GAP - STRIP, width, STRIP)
    _steps(beside, before["row"], after["row"], upright=True)
    _steps(beneath, before["column"], after["column"], upright=False)
    beside.set(ylim=(len(after["row"]), 0), xlim=(0, most), yticks=[])
    beneath.set(ylim=(0, most), xlabel="column")
    _percent(beside.xaxis)
    _percent(beneath.yaxis)


def _time(axis: Axes, before: Tensor, after: Tensor) -> None:
    _steps(axis, before, after, upright=False)
    axis.set(ylim=(0, 1.05 * max(float(before.max()), float(after.max()))), xlabel="time slice")
    _percent(axis.yaxis)


def _steps(axis: Axes, before: Tensor, after: Tensor, upright: bool) -> None:
    """A profile before and after the batch cut, a step for each row, or for each column or time slice."""
    count = len(after)
    for line, ink in ((before, BEFORE), (after, AFTER)):
        look = {"color": ink, "linewidth": 1.2, "baseline": None}
        axis.stairs(line.numpy(), np.arange(count + 1), orientation="horizontal" if upright else "vertical", **look)
    if not upright:
        axis.set_xlim(0, count)
        axis.set_xticks([i + 0.5 for i in _ticks(count)], [str(i) for i in _ticks(count)])
        axis.tick_params(axis="x", length=0)


def _percent(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(2))
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _lengths(axis: Axes, counts: Counts) -> None:
    """Histograms of a context's tokens before and after the cut, each of area one."""
    both = torch.cat([counts.kept, counts.whole])
    low, high = int(both.min()), int(both.max())
    bins = np.linspace(low - 0.5, high + 0.5, min(high - low + 1, 40) + 1)
    for values, ink in ((counts.whole, BEFORE), (counts.kept, AFTER)):
        axis.hist(values.numpy(), bins, density=True, color=ink, alpha=0.35)
        axis.hist(values.numpy(), bins, density=True, color=ink, histtype="step")
        axis.axvline(float(values.double().mean()), color=ink, linestyle=":", linewidth=1)
    axis.set(xlabel="context tokens", yticks=[])
    axis.xaxis.set_major_locator(MaxNLocator(3 if counts.grid.t > 1 else 6, integer=True))
    axis.spines.left.set_visible(False)
