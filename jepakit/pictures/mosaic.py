"""A sheet of many small pictures in columns, words above the columns and below the pictures; drawn in one piece, since
an axis for each picture would take most of the time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from jepakit.errors import ConfigError
from jepakit.pictures.style import DPI, FAINT, INK, WIDTH, canvas

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif")
"""What a sheet can be written as."""

GAP, EDGE, LINE, SMALL = 0.035, 0.05, 0.115, 6.0
"""Inches between pictures, at the edges and from one line of words to the next; points of the words."""

SIDEWAYS = 0.14
"""Inches for the words that stand to the left of a row."""

LARGEST = 1.15
"""Inches of a picture, at most."""

BORDER = 0.012
"""Inches of a border around pictures and regions."""


class Cell(NamedTuple):
    """A picture, values 0 to 1 or bytes, the words below it, and the colour of its border (empty: none)."""

    image: Float[np.ndarray, "H W 3"] | UInt8[np.ndarray, "H W 3"]
    words: str = ""
    border: str = ""
    bold: bool = False


class Row(NamedTuple):
    """Pictures side by side (None: nothing there), the words to their left, and the inches left free below."""

    cells: Sequence[Cell | None]
    words: str = ""
    below: float = 0.0


def mosaic(
    rows: Sequence[Row],
    heads: Sequence[str],
    out: Path,
    caption: Sequence[str] = (),
    apart: Mapping[int, float] | None = None,
) -> Path:
    """Draw ``rows`` below ``heads``, the words above the columns (lines of them, by ``\\n``).

    Args:
        caption: lines at the foot.
        apart: inches that are left free before a column, by its number.

    Raises ConfigError for a suffix that no picture of dots can be written as.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{out} is no name for a picture of pictures: it ends in one of {', '.join(SUFFIXES)}")
    left = EDGE + SIDEWAYS * any(row.words for row in rows)
    free = [GAP + (apart or {}).get(number, 0.0) for number in range(len(heads))]
    side = min((WIDTH - left - EDGE - sum(free[1:])) / len(heads), LARGEST)
    starts = [left + number * side + sum(free[1 : number + 1]) for number in range(len(heads))]
    head = LINE * max(words.count("\n") + 1 for words in heads) + 0.06
    heights = [side + GAP + LINE * _lines(row) + row.below for row in rows]
    width, height = starts[-1] + side + EDGE, head + sum(heights) + EDGE + LINE * len(caption)
    with canvas(height, max(width, WIDTH if caption else 0.0), DPI) as figure:
        page, top = _Page(figure, side), height - head
        for start, words in zip(starts, heads, strict=True):
            page.words(start, top + 0.05, words, size=7, weight="bold", va="bottom")
        for row, tall in zip(rows, heights, strict=True):
            for start, cell in zip(starts, row.cells, strict=True):
                page.cell(start, top, cell)
            page.words(EDGE + 0.02, top - side / 2, row.words, size=SMALL, color=FAINT, rotation=90, va="center")
            top -= tall
        for number, words in enumerate(caption):
            page.words(EDGE, EDGE + LINE * (len(caption) - 1 - number), words, size=7, color=FAINT, va="bottom")
        out.parent.mkdir(parents=True, exist_ok=True)
        page.image().save(out, dpi=(DPI, DPI))
    return out


def framed(image: Float[np.ndarray, "H W 3"], where: Bool[np.ndarray, "h w"], ink: str) -> UInt8[np.ndarray, "S S 3"]:
    """The image, fine enough for a thin line, with a border around the cells of a grid that are meant."""
    image = scaled(image, max(image.shape[0], round(LARGEST * DPI)))
    meant = np.asarray(Image.fromarray(where).resize(image.shape[1::-1], Image.Resampling.NEAREST))
    inner, wide = np.pad(meant, 1), max(round(BORDER * image.shape[0] / LARGEST), 1)
    for _ in range(wide):
        inner = inner & np.roll(inner, 1, 0) & np.roll(inner, -1, 0) & np.roll(inner, 1, 1) & np.roll(inner, -1, 1)
    image[meant & ~inner[1:-1, 1:-1]] = dots(np.array(to_rgb(ink)))
    return image


def scaled(image: Float[np.ndarray, "H W 3"] | UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "S S 3"]:
    """At ``side`` dots: pixel by pixel where that is more than it has, smoothly where it is less."""
    how = Image.Resampling.NEAREST if image.shape[0] <= side else Image.Resampling.LANCZOS
    return np.array(Image.fromarray(dots(image)).resize((side, side), how))


def dots(image: np.ndarray) -> UInt8[np.ndarray, "*size 3"]:
    """Colours of values 0 to 1 as bytes; bytes as they are."""
    return image if image.dtype == np.uint8 else (image * 255).round().clip(0, 255).astype(np.uint8)


class _Page:
    """A figure with places in inches from its lower left corner, and the pictures that are put into it."""

    def __init__(self, figure: Figure, side: float):
        self.figure, self.dots = figure, round(side * DPI)
        self.width, self.height = figure.get_figwidth(), figure.get_figheight()
        self.pictures: list[tuple[int, int, np.ndarray]] = []

    def cell(self, start: float, top: float, cell: Cell | None) -> None:
        if cell is None:
            return
        image = scaled(cell.image, self.dots)
        if cell.border:
            wide, ink = max(round(2 * BORDER * DPI), 1), dots(np.array(to_rgb(cell.border)))
            image[:wide], image[-wide:], image[:, :wide], image[:, -wide:] = ink, ink, ink, ink
        self.pictures.append((round((self.height - top) * DPI), round(start * DPI), image))
        look: dict[str, Any] = {"weight": "bold", "color": INK} if cell.bold else {"color": FAINT}
        self.words(start, top - self.dots / DPI - 0.03, cell.words, size=SMALL, va="top", **look)

    def words(self, left: float, low: float, words: str, **look: Any) -> None:
        if words:
            self.figure.text(left / self.width, low / self.height, words, **look)

    def image(self) -> Image.Image:
        """The sheet: words as matplotlib writes them, pictures dot by dot, which it would take seconds for."""
        drawing = FigureCanvasAgg(self.figure)
        drawing.draw()
        dots = np.array(drawing.buffer_rgba())[..., :3]
        for top, left, picture in self.pictures:
            room = dots[top : top + len(picture), left : left + len(picture)]
            room[:] = picture[: room.shape[0], : room.shape[1]]
        return Image.fromarray(dots)


def _lines(row: Row) -> int:
    return max((cell.words.count("\n") + 1 for cell in row.cells if cell is not None and cell.words), default=0)
