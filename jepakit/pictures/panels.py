"""What the sheets of pictures share: frames of a clip as images, and grids of tokens laid over them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from jepakit.errors import ConfigError
from jepakit.pictures.style import DPI, FAINT, WIDTH
from jepakit.types import Grid

VEIL, VEILED = "#C4C4C4", 0.86
"""Grey that lies over what is not looked at, and its share; darker than white, so that white pictures show it too."""

TINT = 0.25
"""Share of the colour in a block that is tinted."""

SMOOTH = "antialiased"
"""How photographs are fitted to the dots; pictures that are much smaller stay as they are, pixel by pixel."""

LINE = 1.2
"""Points of an outline."""

GAP, WIDE_GAP, HEAD, LARGEST, LEAST = 0.03, 0.1, 0.2, 1.3, 0.95
"""Inches between pictures, between columns, for the titles; sides of a picture, and of one beside another sample's."""


class Layout(NamedTuple):
    """A table of square pictures: ``columns`` are titles, below each as many pictures as there are time slices.

    Where the page has room, two samples stand beside one another. ``caption`` is a line below.
    """

    rows: int
    columns: Sequence[str]
    slices: int
    caption: str = ""

    @property
    def abreast(self) -> int:
        """Samples beside one another."""
        return 2 if self.rows > 1 and self._fitting(2) >= LEAST else 1

    @property
    def side(self) -> float:
        """Inches of one picture, in whole dots: as large as the page is wide, but no larger than a thumb."""
        return int(min(self._fitting(self.abreast), LARGEST) * DPI) / DPI

    def _fitting(self, abreast: int) -> float:
        columns = len(self.columns) * abreast
        taken = WIDE_GAP * columns + GAP * (self.slices - 1) * columns + WIDE_GAP * (abreast - 1)
        return (WIDTH - taken) / (columns * self.slices)

    @property
    def step(self) -> float:
        """Inches from one column to the next."""
        return self.slices * (self.side + GAP) - GAP + WIDE_GAP

    @property
    def size(self) -> tuple[float, float]:
        """Inches of the sheet, with its head and its caption."""
        width = self.abreast * (len(self.columns) * self.step + WIDE_GAP) - WIDE_GAP
        height = HEAD + -(-self.rows // self.abreast) * (self.side + GAP) + WIDE_GAP / 2
        return width, height + HEAD * bool(self.caption)

    def axes(self, figure: Figure) -> Iterator[list[list[Axes]]]:
        """Sample by sample: for each column its axes, one for each time slice. The topmost carry the titles."""
        width, height = self.size
        if self.caption:
            figure.text(WIDE_GAP / 2 / width, 0.07 / height, self.caption, color=FAINT, size=7)
        for row in range(self.rows):
            low = height - HEAD - (row // self.abreast + 1) * (self.side + GAP)
            left = WIDE_GAP / 2 + row % self.abreast * (len(self.columns) * self.step + WIDE_GAP)
            line = [
                [self._axis(figure, left + i * self.step + k * (self.side + GAP), low) for k in range(self.slices)]
                for i in range(len(self.columns))
            ]
            if row < self.abreast:
                for axes, title in zip(line, self.columns, strict=True):
                    axes[0].set_title(title, pad=3)
            yield line

    def _axis(self, figure: Figure, left: float, low: float) -> Axes:
        width, height = self.size
        return bare(figure.add_axes((left / width, low / height, self.side / width, self.side / height)))


def slices(grid: Grid) -> list[int]:
    """The time slices of a grid to show: first, middle, last."""
    return sorted({0, grid.t // 2, grid.t - 1})


def first_frame(piece: int, frames: int, grid: Grid) -> int:
    """The number of the first frame that lies in a time slice of a clip of so many frames."""
    return piece * frames // grid.t


def time_slice(number: int, frames: int, grid: Grid) -> int:
    """The time slice that a frame lies in."""
    return number * grid.t // frames


def frame(picture: UInt8[Tensor, "C T H W"], number: int) -> np.ndarray:
    """A frame of a clip as an image, values 0 to 1; of channels that are no colours the first one."""
    image = picture[:, number].float().div(255)
    image = image if len(image) == 3 else image[:1].expand(3, -1, -1)
    return image.permute(1, 2, 0).numpy()


def cells(tokens: Tensor | None, grid: Grid) -> Bool[np.ndarray, "t h w"]:
    """Which tokens of the grid are meant; None: all. Raises ConfigError for a number beyond the grid."""
    meant = np.full(grid.size, tokens is None)
    if tokens is not None:
        numbers = tokens.flatten().cpu().numpy()
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < grid.size:
            raise ConfigError(f"the mask names token {numbers.max()}, the grid {tuple(grid)} has {grid.size}")
        meant[numbers] = True
    return meant.reshape(tuple(grid))


def spread_out(meant: Bool[np.ndarray, "h w"], image: np.ndarray) -> Bool[np.ndarray, "H W"]:
    """A grid's cells at the size of the image."""
    rows = np.arange(image.shape[0]) * meant.shape[0] // image.shape[0]
    columns = np.arange(image.shape[1]) * meant.shape[1] // image.shape[1]
    return meant[np.ix_(rows, columns)]


def veil(image: np.ndarray, where: Bool[np.ndarray, "H W"]) -> np.ndarray:
    """The image with grey laid over some of its pixels."""
    return blend(image, where, VEILED, VEIL)


def blend(image: np.ndarray, where: Bool[np.ndarray, "H W"], share: float, colour: str) -> np.ndarray:
    """The image with a colour laid over some of its pixels."""
    return np.where(where[..., None], image * (1 - share) + np.array(to_rgb(colour)) * share, image)


def outline(axis: Axes, meant: Bool[np.ndarray, "h w"], image: np.ndarray, colour: str) -> None:
    """Draw a border along the inner edge of the cells that are meant, so that neighbours do not hide each other's."""
    height, width = image.shape[0] / meant.shape[0], image.shape[1] / meant.shape[1]
    inches = axis.get_position().height * axis.figure.get_figheight()
    inset = LINE / 2 / 72 * image.shape[0] / inches  # half of the line, in pixels of the image
    padded = np.pad(meant, 1).astype(int)
    level = padded[1:, 1:-1] - padded[:-1, 1:-1]  # between row y - 1 and row y; 1: the lower one is meant
    upright = padded[1:-1, 1:] - padded[1:-1, :-1]
    lines = []
    for y, start, end, side in _runs(level):
        at = y * height + inset * side - 0.5
        lines.append(((start * width - 0.5, at), (end * width - 0.5, at)))
    for x, start, end, side in _runs(upright.T):
        at = x * width + inset * side - 0.5
        lines.append(((at, start * height - 0.5), (at, end * height - 0.5)))
    axis.add_collection(LineCollection(lines, colors=colour, linewidths=LINE, capstyle="butt"), autolim=False)


def _runs(edges: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Line, start, end and side of the straight pieces of a border: drawn in one, they show no seams."""
    for number, line in enumerate(edges):
        for side in (-1, 1):
            ends = np.flatnonzero(np.diff(line == side, prepend=False, append=False))
            yield from ((number, start, end, side) for start, end in ends.reshape(-1, 2))


def bare(axis: Axes) -> Axes:
    """An axis without ticks and frame."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis
