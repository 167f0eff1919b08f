"""The figures that a verdict hangs on, over a run, with the levels where it changes."""

import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from jepakit.health.collapse import DECAYED, NEARLY, RANK_COLLAPSING, SHRUNK
from jepakit.health.course import FROM, Line, course, current
from jepakit.health.entry import Examined
from jepakit.health.learning import KNOWN, LONG, SAME
from jepakit.pictures.curves import HEIGHT, ORDER, points, scale, smooth
from jepakit.pictures.style import FAINT, colour, sheet

COLUMNS, WIDE = 3, 115
"""Plots side by side, and letters of the verdict."""

SHADES = {"watch": "#F0E442", "not learning": "#56B4E9", "collapsing": "#E69F00", "collapsed": "#D55E00"}
"""Colours behind the stretches of a run by what was said of it; what was healthy has none."""


class Panel(NamedTuple):
    """A title, the curves (key of the log, words), a level: a number, or with ``of`` a share of that figure's first
    value, and what it means to pass it."""

    title: str
    curves: tuple[tuple[str, str], ...]
    level: float | None = None
    of: str = ""
    means: str = ""
    scale: str = "linear"


PANELS = (
    Panel("loss", (("loss", "total"),)),
    Panel("spread of samples (std)", (("std", "context"), ("target_std", "target")), SHRUNK, "std", "lost below"),
    Panel("effective rank", (("rank", "context"), ("target_rank", "target")), RANK_COLLAPSING, "rank", "lost below"),
    Panel(
        "cosine of two samples", (("sample_cosine", "context"), ("target_sample_cosine", "target")), NEARLY, "", "alike"
    ),
    Panel(
        "what a guess knows of its sample", (("known", "predictor"), ("copy_known", "nearest")), KNOWN, "", "nothing"
    ),
    Panel("cosine with the truth", (("cosine", "predictor"), ("cosine_mean", "mean"), ("copy_nearest", "nearest"))),
    Panel("length of a step", (("step_length", "backbone"),), LONG, "", "too long", "log"),
    Panel("teacher to student", (("teacher_distance", "distance"),)),
    Panel(
        "norm of the gradient", (("grad_norm/backbone", "backbone"), ("grad_norm/predictor", "predictor")), scale="log"
    ),
    Panel("size of the weights", (("weight", "backbone"),), DECAYED, "weight", "decayed"),
    Panel("alpha-ReQ", (("alpha", "context"), ("alpha_req", "held out"))),
    Panel("LiDAR and RankMe, held out", (("lidar", "LiDAR"), ("rankme", "RankMe"))),
    Panel("pixels of two samples", (("pixel_alike", "correlation"),), SAME, "", "one picture"),
    Panel("tokens shown, share", (("context_share", "context"),)),
)


def health(found: Examined, out: Path) -> Path:
    """Draw the figures of an examined run, what was not logged left out; behind them what was said of it and when, and
    as upright lines the steps that it was rolled back to. Above all the verdict."""
    lines, words = current(found.lines), standing(found.words)
    panels = [panel for panel in PANELS if any(points(lines, key)[0] for key, _ in panel.curves)]
    rows = max(math.ceil(len(panels) / COLUMNS), 1)
    with sheet(HEIGHT * rows + 0.5, out) as figure:
        figure.set_layout_engine("constrained")
        said = [f"{found.verdict.word}: {found.verdict.reason}"]
        said += [f"likely cause: {found.verdict.kind}"] * bool(found.verdict.kind)
        figure.suptitle(
            "\n".join(textwrap.fill(each, WIDE) for each in said), x=0.01, ha="left", fontsize=8, color=FAINT
        )
        axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
        for axis, panel in zip(axes, panels, strict=False):
            _draw(axis, panel, lines)
            _said(axis, words)
            for line in found.lines:
                if FROM in line:
                    axis.axvline(line["step"], color=FAINT, linewidth=0.8, linestyle="-.")
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        _legend(axes[-1] if len(panels) < len(axes) else axes[0], words)
    return out


def standing(words: Sequence[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """What was said of the steps that led to where a run is now: not what it was rolled back from."""
    kept: list[tuple[int, str, str]] = []
    for each in words:
        kept = [before for before in kept if before[0] < each[0]] + [each]
    return kept


def _draw(axis: Axes, panel: Panel, lines: Sequence[Line]) -> None:
    axis.set_title(panel.title)
    for number, (key, name) in enumerate(panel.curves):
        x, y = points(lines, key)
        if x:
            shade = colour(ORDER[number])
            if len(x) > 100:
                axis.plot(x, y, color=shade, alpha=0.25, linewidth=0.6)
            axis.plot(x, smooth(y) if len(x) > 100 else y, color=shade, label=name, marker="o" * (len(x) < 3) or None)
    if panel.level is not None:
        at = panel.level * (course(lines, panel.of)[0] if panel.of else 1.0)
        axis.axhline(at, color=FAINT, linestyle=":", linewidth=1, label=panel.means)
    scale(axis, panel.scale)
    axis.legend(loc="best", handlelength=1.2, borderaxespad=0.1, fontsize=6)


def _said(axis: Axes, words: Sequence[tuple[int, str, str]]) -> None:
    """Shade the stretches of a run that were not healthy."""
    for (step, word, _), (then, _, _) in itertools.pairwise([*words, (words[-1][0], "", "")] if words else []):
        if word in SHADES and then > step:
            axis.axvspan(step, then, color=SHADES[word], alpha=0.18, linewidth=0)


def _legend(axis: Axes, words: Sequence[tuple[int, str, str]]) -> None:
    """Which colour stands for what; nothing where all was healthy."""
    shown: dict[str, Any] = {
        word: axis.fill([], [], color=SHADES[word], alpha=0.4)[0] for _, word, _ in words if word in SHADES
    }
    if shown and not axis.axison:
        axis.legend(shown.values(), shown.keys(), loc="center", title="what was said", fontsize=7)
