"""One look for every picture: colours that the colour-blind can tell apart, fonts that can be read in print."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jepakit.errors import ConfigError

COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#D55E00", "#F0E442", "#0072B2", "#000000")
"""Okabe and Ito 2008, bright ones first: neighbours differ in lightness too. More than eight begin again."""

INK, FAINT = "#222222", "#8A8A8A"

WIDTH = 7.0
"""Inches: the text width of a two-column paper."""

DPI = 300
"""Dots an inch, as printers ask for."""

RULES = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "text.color": INK,
}


def colour(number: int) -> str:
    """The colour of the number-th thing."""
    return COLOURS[number % len(COLOURS)]


@contextlib.contextmanager
def sheet(height: float, out: Path, width: float = WIDTH) -> Iterator[Figure]:
    """A figure of so many inches, written to ``out`` when it is done; drawn without a window or a global state.

    Raises ConfigError for a suffix that no picture can be written as.
    """
    known = FigureCanvasAgg.get_supported_filetypes()
    if out.suffix[1:].lower() not in known:
        raise ConfigError(f"{out} is no name for a picture: it ends in one of .{', .'.join(sorted(known))}")
    with canvas(height, width, DPI) as figure:
        yield figure
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, facecolor="white")


@contextlib.contextmanager
def canvas(height: float, width: float, dpi: int) -> Iterator[Figure]:
    """A white figure of so many inches, in the one style."""
    with matplotlib.rc_context(RULES):
        figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
        FigureCanvasAgg(figure)
        yield figure
