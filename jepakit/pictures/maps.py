"""What dense probes tell of pictures, beside the truth: classes in colours, depth from dark (near) to bright (far)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from jepakit.data.views import CentreView
from jepakit.evaluate.data import Part
from jepakit.evaluate.dense import Dense
from jepakit.pictures.panels import GAP, VEIL, bare, frame
from jepakit.pictures.style import FAINT, WIDTH, sheet
from jepakit.seeds import generator

HEAD, MARGIN, LINE, FOOT = 0.22, 0.05, 0.17, 0.32
"""Inches for the titles, to the left and right, for a line of the legend, and for the scale of depths."""
LARGEST = 1.1
"""Side of a picture in inches, at most."""
DEPTHS = "magma"
ABREAST = 5
"""Names of classes in a line of the legend."""
NAMED = 30
"""Classes that the legend names, at most."""
GOLDEN = 0.618034
"""Of the circle of hues, from a class to the next."""


class Shown(NamedTuple):
    """A picture as the probe saw it, its true map, and the maps that are told of it, by the rows of the table."""

    picture: UInt8[Tensor, "C H W"]
    truth: Shaped[Tensor, "H W"]
    told: dict[str, Shaped[Tensor, "H W"]]


def examples(part: Part, test: Dense, told: Mapping[str, Shaped[Tensor, "n S S"]]) -> list[Shown]:
    """The first test samples, as many as every row has answers for; ``told`` holds what ``keep`` was given."""
    view, found = CentreView(test.maps.shape[-1]), []
    for row, index in enumerate(test.index[: min(map(len, told.values()))].tolist()):
        piece = view.fit(view.take(part.source[index][0], generator("pictures"))[0])
        maps = {name: answers[row] for name, answers in told.items()}
        found.append(Shown(piece[:, min(test.frame, piece.shape[1] - 1)], test.maps[row], maps))
    return found


def maps(shown: Sequence[Shown], out: Path, names: Sequence[str] | None = None) -> Path:
    """A sheet: each line a sample, its picture, the truth, and what each row of the table tells.

    ``names`` are those of the classes; None: the maps are depths, in one scale. Unknown is grey.
    """
    columns = ["picture", "truth", *shown[0].told]
    side = min((WIDTH - 2 * MARGIN - GAP * (len(columns) - 1)) / len(columns), LARGEST)
    width = max(side * len(columns) + GAP * (len(columns) - 1) + 2 * MARGIN, WIDTH / 2)
    classes = _classes(shown) if names is not None else []
    foot = LINE * -(-min(len(classes), NAMED) // ABREAST) + LINE / 2 if names is not None else FOOT
    with sheet(HEAD + len(shown) * (side + GAP) + foot, out, width) as figure:
        span = None if names is not None else _span(shown)
        for number, each in enumerate(shown):
            low = figure.get_figheight() - HEAD - (number + 1) * (side + GAP) + GAP
            images = [frame(each.picture[:, None], 0)]
            images += [painted(one.numpy(), span) for one in (each.truth, *each.told.values())]
            for column, image in enumerate(images):
                axis = _axis(figure, MARGIN + column * (side + GAP), low, side)
                axis.set_title(columns[column] if number == 0 else "", pad=3, fontsize=7)
                axis.imshow(image, interpolation="nearest")
        _legend(figure, classes, names, span)
    return out


def painted(values: Shaped[np.ndarray, "H W"], span: tuple[float, float] | None) -> Float[np.ndarray, "H W 3"]:
    """Classes, or depths within a ``span``, as colours."""
    if span is not None:
        image = colormaps[DEPTHS](Normalize(*span)(np.nan_to_num(values)))[..., :3]
        return np.where(np.isnan(values)[..., None], to_rgb(VEIL), image)
    numbers = np.unique(values)
    palette = np.array([class_colour(int(number)) for number in numbers])
    return palette[np.searchsorted(numbers, values)]


def class_colour(number: int) -> tuple[float, float, float]:
    """The colour of a class, the same in every picture; the first is dark, the unknown grey, neighbours differ."""
    if number <= 0:
        return to_rgb(VEIL) if number < 0 else to_rgb("#303030")
    value = (1.0, 0.75, 0.9)[number % 3]
    red, green, blue = hsv_to_rgb((number * GOLDEN % 1, (0.85, 0.6, 0.4)[number // 3 % 3], value)).tolist()
    return red, green, blue


def _classes(shown: Sequence[Shown]) -> list[int]:
    """All that are to be seen."""
    return sorted(
        {int(number) for each in shown for one in (each.truth, *each.told.values()) for number in one.unique()}
    )


def _span(shown: Sequence[Shown]) -> tuple[float, float]:
    """The scale: from the least true depth to the greatest, or from 0 to 1 where none is known."""
    known = np.concatenate([each.truth.numpy()[~np.isnan(each.truth.numpy())] for each in shown])
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)


def _legend(figure: Figure, classes: list[int], names: Sequence[str] | None, span: tuple[float, float] | None) -> None:
    wide, high = figure.get_figwidth(), figure.get_figheight()
    if span is not None:
        axis = figure.add_axes((MARGIN / wide, 0.2 / high, 1.6 / wide, 0.08 / high))
        figure.colorbar(ScalarMappable(Normalize(*span), DEPTHS), cax=axis, orientation="horizontal")
        axis.tick_params(labelsize=6, length=2, pad=1)
        figure.text(1.8 / wide, 0.2 / high, "depth in the units of the data; grey: unknown", color=FAINT, size=6)
        return
    said = [(number, "unknown" if number < 0 else (names or ())[number]) for number in classes[:NAMED]]
    handles = [Patch(color=class_colour(number), label=name) for number, name in said]
    place = (MARGIN / wide, 0.02 / high)
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=place,
        ncols=ABREAST,
        fontsize=6,
        labelcolor=FAINT,
        borderpad=0,
    )
    if len(classes) > NAMED:
        figure.text(1 - MARGIN / wide, 0.05 / high, f"and {len(classes) - NAMED} more", color=FAINT, size=6, ha="right")


def _axis(figure: Figure, left: float, low: float, side: float) -> Axes:
    wide, high = figure.get_figwidth(), figure.get_figheight()
    return bare(figure.add_axes((left / wide, low / high, side / wide, side / high)))
