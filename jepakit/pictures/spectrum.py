"""In how many directions features vary: the spectrum of their covariance, over a run and beside a random encoder's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from torch import nn

from jepakit.evaluate.features import Reading, extract, samples
from jepakit.health.spectra import effective_rank
from jepakit.health.spectra import spectrum as shares
from jepakit.log import read
from jepakit.pictures.curves import plain
from jepakit.pictures.style import colour, sheet
from jepakit.protocols import Source

SAMPLES = 256
"""Samples whose features are looked at, at most: they have no more directions than that."""

TIMES = 4
"""Lines of the log that are drawn, evenly spread over the run."""

FLOOR = 1e-9
"""Shares below this are rounding."""

KEY = "spectrum/"

ORDER = (6, 4, 3, 7)
"""Colours of the curves, by number: the darkest of the palette, since lines are thin."""


def spectrum(
    log: Path, backbones: Mapping[str, nn.Module], source: Source, reading: Reading, out: Path, limit: int = SAMPLES
) -> Path:
    """Draw how much features vary along each direction, the greatest first, on logarithmic axes.

    On the left those of the context's tokens as the run went on, from its log; on the right those of ``source``'s
    samples, one vector each as evaluations read them. See ``health.spectrum`` for how a collapse shows.

    Args:
        backbones: by their words in the legend, such as trained and random encoder.
        limit: samples of ``source`` that are read, at most.
    """
    courses = over_time(read(log))
    with sheet(2.6, out) as figure:
        figure.set_layout_engine("constrained")
        axes = list(figure.subplots(1, 1 + bool(courses), squeeze=False, sharey=True).flatten())
        if courses:
            _draw(axes[0], "context, over the run", {f"step {step}": each for step, each in courses.items()}, "o")
        rows, found = samples(len(source), limit), {}
        for name, backbone in backbones.items():
            x = extract(backbone, source, reading._replace(label=None), rows).x
            values = shares(x).tolist()
            found[f"{name}, effective rank {effective_rank(x):.1f}"] = dict(enumerate(values, 1))
        _draw(axes[-1], f"{len(rows)} samples, one vector each", found, "")
        axes[0].set_ylabel("variance, share of mean square")
    return out


def over_time(lines: Sequence[Mapping[str, Any]], times: int = TIMES) -> dict[int, dict[int, float]]:
    """Spectra of a log at ``times`` of its lines, first and last among them: by step, then by index. Those that are not
    finite are left out; empty where no line has one."""
    found = {line["step"]: of_line(line) for line in lines if f"{KEY}1" in line and "step" in line}
    known = [(step, values) for step, values in sorted(found.items()) if None not in values.values()]
    picks = sorted({round(i * (len(known) - 1) / max(times - 1, 1)) for i in range(times)}) if known else []
    return {known[pick][0]: known[pick][1] for pick in picks}


def of_line(line: Mapping[str, Any]) -> dict[int, float]:
    """The spectrum that a line of the log holds, by index."""
    return {int(key.removeprefix(KEY)): value for key, value in line.items() if key.startswith(KEY)}


def _draw(axis: Axes, title: str, spectra: Mapping[str, Mapping[int, float]], marker: str) -> None:
    axis.set_title(title)
    for number, (name, values) in enumerate(spectra.items()):
        seen = {index: share for index, share in values.items() if share > FLOOR}
        axis.plot(list(seen), list(seen.values()), color=colour(ORDER[number]), label=name, marker=marker, markersize=3)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlabel("direction")
    axis.xaxis.set_major_formatter(FuncFormatter(plain))
    axis.legend(loc="lower left")
