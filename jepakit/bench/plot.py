"""A sweep as a picture: what a sample costs in time, part by part, and in memory, against a setting."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from jepakit.bench.page import number
from jepakit.pictures.curves import plain
from jepakit.pictures.style import FAINT, INK, sheet

HEIGHT, HEAD = 2.5, 0.35
"""Inches of a row, which is one sweep, and of the legend above all of them."""
WIDE, APART = 8.0, 1.5
"""Greatest over least value, and each over the one before it, from which doubling is what takes the same room."""
ROOM = 1.18
"""How much higher an axis is than its highest point, so that a value stands above that."""
STACK = (
    ("target", ("target",), "#E69F00"),
    ("context", ("context",), "#56B4E9"),
    ("predictor", ("predictor",), "#009E73"),
    ("backward", ("backward",), "#0072B2"),
    ("optimiser, ema", ("optimiser", "ema"), "#CC79A7"),
    ("masks, loss, rest", ("masks", "loss", "rest"), "#BBBBBB"),
    ("data", ("data",), "#F0E442"),
)
"""Layers from below, the parts that they are made of, their colours (of ``pictures.style``, and grey)."""
STEEP = 0.04
"""Share of the greatest value by which the next one differs, so that the line would run through a number above."""
LEAST = 0.002
"""Share of all time from which a layer is drawn."""
RULES = {"svg.hashsalt": "jepakit", "svg.fonttype": "none"}
"""The same picture is the same file; letters are letters, which takes a quarter of the room."""
DATED = re.compile(r" *<metadata>.*?</metadata>\n", re.DOTALL)
FONT = "'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif"
"""A reader who lacks the font gets the one that is most like it."""


def draw(found: Mapping[str, Any], out: Path) -> Path:
    """Write the sweeps of a result, one below the other. Raises ConfigError for a suffix of no picture."""
    sweeps = found["sweeps"]
    with matplotlib.rc_context(RULES), sheet(HEIGHT * len(sweeps) + HEAD, out) as figure:
        figure.set_layout_engine("constrained")
        rows = figure.subplots(len(sweeps), 2, squeeze=False)
        for (left, right), sweep in zip(rows, sweeps, strict=True):
            _time(left, sweep)
            _memory(right, sweep)
        named = {name: patch for left, _ in rows for patch, name in zip(*left.get_legend_handles_labels(), strict=True)}
        figure.legend(named.values(), named, loc="outside upper left", ncols=len(STACK), handlelength=1, frameon=False)
    if out.suffix == ".svg":
        out.write_text(DATED.sub("", out.read_text("utf-8")).replace(*FONT), "utf-8")
    return out


def layers(points: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Milliseconds of each layer at each point, without those that are too thin to be seen at any."""
    found = {}
    for name, members, _ in STACK:
        values = [1e3 * sum(point["parts"].get(part, 0.0) for part in members) for point in points]
        wholes = [1e3 * sum(point["parts"].values()) for point in points]
        if any(value > LEAST * whole for value, whole in zip(values, wholes, strict=True)):
            found[name] = values
    return found


def _time(axis: Axes, sweep: Mapping[str, Any]) -> None:
    points, found = sweep["points"], layers(sweep["points"])
    at = [point["at"] for point in points]
    colours = {name: colour for name, _, colour in STACK}
    axis.stackplot(at, *found.values(), labels=found, colors=[colours[name] for name in found], alpha=0.85, linewidth=0)
    whole = [1e3 * point["seconds"]["median"] for point in points]
    axis.plot(at, whole, color=INK, marker="o", markersize=3, linewidth=1)
    axis.set_title(f"time of {_one(sweep)}, ms")
    _dress(axis, sweep, whole)


def _memory(axis: Axes, sweep: Mapping[str, Any]) -> None:
    at = [point["at"] for point in sweep["points"]]
    taken, counted = (
        [point["memory"][kind] / point["samples"] / 1e6 for point in sweep["points"]] for kind in ("step", "planned")
    )
    axis.plot(
        at, counted, color=FAINT, linestyle="--", linewidth=1, zorder=1.8, label="counted by jepakit plan, for a GPU"
    )
    axis.plot(at, taken, color=INK, marker="o", markersize=3, linewidth=1, label="measured")
    axis.set_title(f"memory of a step for {_one(sweep)}, MB")
    _dress(axis, sweep, taken, max(counted))
    axis.legend(loc="best")


def _one(sweep: Mapping[str, Any]) -> str:
    return {"img": "an image", "clip": "a clip"}.get(sweep["unit"], "a sample")


def _dress(axis: Axes, sweep: Mapping[str, Any], values: Sequence[float], most: float = 0.0) -> None:
    """Axes from zero with a tick at each point, and a number above it."""
    points, at = sweep["points"], [point["at"] for point in sweep["points"]]
    axis.set_xlabel(sweep["axis"])
    if _spread_out(at):
        axis.set_xscale("log", base=2)
    names = {point["at"]: tick(sweep, point) for point in points}
    axis.xaxis.set_major_locator(FixedLocator(at))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: names.get(value, "")))
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.yaxis.set_major_formatter(FuncFormatter(plain))
    axis.set_ylim(0, ROOM * max(*values, most))
    axis.margins(x=0.06)
    rises = [(following - value) / max(values) for value, following in pairwise(values)]
    for place, value, rise in zip(at, values, [0.0, *rises[1:], 0.0], strict=True):
        _label(axis, place, value, rise)


def _label(axis: Axes, place: float, value: float, rise: float) -> None:
    """A value above its point, beside the line where that rises or falls much, by a share of all, to the next one."""
    shift, side = (-3, "right") if rise > STEEP else (3, "left") if rise < -STEEP else (0, "center")
    beside: Any = {"xytext": (shift, 5 if side == "center" else 3), "textcoords": "offset points", "ha": side}
    box = {"fc": "white", "ec": "none", "pad": 0.4}
    axis.annotate(number(value), (place, value), **beside, fontsize=7, zorder=1.9, bbox=box)


def _spread_out(at: Sequence[float]) -> bool:
    """Whether points lie as those of doublings do."""
    if min(at) <= 0 or max(at) < WIDE * min(at):
        return False
    return all(other >= APART * one for one, other in pairwise(sorted(at)))


def tick(sweep: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """What stands below a point: the value; where that is a name, with the parameters of what it stands for."""
    if sweep["axis"] == sweep["key"]:
        return point["value"]
    if sweep["axis"].startswith("tokens"):
        return f"{point['at']:,.0f}"
    return f"{point['value'].rpartition('_')[2]}\n{point['at'] / 1e6:.1f} M"
