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
from jepakit.pictures.style import WIDTH
from jepakit.types import Grid

VEIL, VEILED = "#C4C4C4", 0.86
"""Grey that lies over what is not looked at, and its share; darker than white, so that white pictures show it too."""

TINT = 0.35
"""Share of the colour in a block that is tinted."""

GAP, WIDE_GAP, HEAD = 0.03, 0.1, 0.2
"""Inches between pictures, between columns, and for the titles."""


class Layout(NamedTuple):
    """A table of square pictures: ``columns`` are titles, below each as many pictures as there are time slices."""

    rows: int
    columns: Sequence[str]
    slices: int

    @property
    def side(self) -> float:
        """Inches of one picture: as large as the page is wide, but no larger than a thumb."""
        taken = WIDE_GAP * (len(self.columns) + 1) + GAP * (self.slices - 1) * len(self.columns)
        return min((WIDTH - taken) / (len(self.columns) * self.slices), 1.3)

    @property
    def step(self) -> float:
        """Inches from one column to the next."""
        return self.slices * (self.side + GAP) - GAP + WIDE_GAP

    @property
    def size(self) -> tuple[float, float]:
        """Inches of the sheet, with its head."""
        return len(self.columns) * self.step + WIDE_GAP, HEAD + self.rows * (self.side + GAP) + WIDE_GAP

    def axes(self, figure: Figure) -> Iterator[list[list[Axes]]]:
        """Row by row: for each column its axes, one for each time slice. The first row carries the titles."""
        width, height = self.size
        for row in range(self.rows):
            low = height - HEAD - (row + 1) * (self.side + GAP)
            line = [
                [self._axis(figure, WIDE_GAP + i * self.step + k * (self.side + GAP), low) for k in range(self.slices)]
                for i in range(len(self.columns))
            ]
            if row == 0:
                for axes, title in zip(line, self.columns, strict=True):
                    axes[0].set_title(title, pad=3)
            yield line

    def _axis(self, figure: Figure, left: float, low: float) -> Axes:
        width, height = self.size
        return bare(figure.add_axes((left / width, low / height, self.side / width, self.side / height)))


def slices(grid: Grid) -> list[int]:
    """The time slices of a grid to show: first, middle, last."""
    return sorted({0, grid.t // 2, grid.t - 1})


def frame(picture: UInt8[Tensor, "C T H W"], piece: int, grid: Grid) -> np.ndarray:
    """The first frame of a time slice as an image, values 0 to 1; of channels that are no colours the first one."""
    image = picture[:, piece * picture.shape[1] // grid.t].float().div(255)
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
    """Draw the border between the cells that are meant and those that are not."""
    height, width = image.shape[0] / meant.shape[0], image.shape[1] / meant.shape[1]
    padded = np.pad(meant, 1)
    level = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])  # between row y - 1 and row y
    upright = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    lines = [((x * width, y * height), ((x + 1) * width, y * height)) for y, x in level]
    lines += [((x * width, y * height), (x * width, (y + 1) * height)) for y, x in upright]
    shifted = [[(x - 0.5, y - 0.5) for x, y in line] for line in lines]
    axis.add_collection(LineCollection(shifted, colors=colour, linewidths=1.2, capstyle="projecting", clip_on=False))


def bare(axis: Axes) -> Axes:
    """An axis without ticks and frame."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis
