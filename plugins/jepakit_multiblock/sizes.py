"""How large a block is."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator

from jepakit.types import Grid

Range = tuple[float, float]


@dataclass(frozen=True)
class Sizes:
    """The sizes that a block may have.

    Args:
        scale: range of its share of the grid.
        aspect: range of its height over its width.
        official: one draw sets both scale and aspect, and the block stays smaller than the grid.

    Raises:
        ValueError: for a range that is none.
    """

    scale: Range
    aspect: Range
    official: bool

    def __post_init__(self):
        for name, (low, high) in (("scale", self.scale), ("aspect", self.aspect)):
            if not 0 < low <= high:
                raise ValueError(f"a block's {name} is a range above 0, lower end first, not {low} to {high}")

    def draw(self, grid: Grid, rng: Generator) -> tuple[int, int]:
        """A height and width, in tokens."""
        first, second = torch.rand(2, generator=rng, dtype=torch.float64).tolist()
        area = int(grid.h * grid.w * between(self.scale, first))
        ratio = between(self.aspect, first if self.official else second)
        return self.fit(grid, round((area * ratio) ** 0.5), round((area / ratio) ** 0.5))

    def fit(self, grid: Grid, height: int, width: int) -> tuple[int, int]:
        """No larger than the grid; the released collator never lets a block span it."""
        clear = 1 if self.official else 0
        return min(height, grid.h - clear), min(width, grid.w - clear)

    def narrow(self, grid: Grid) -> Iterator[tuple[int, int]]:
        """For each area and height that may be drawn, the least width."""
        least, most = (int(grid.h * grid.w * share) for share in self.scale)
        for area in range(least, (most if self.official else least) + 1):  # else larger ones only add rows and columns
            low, high = self._aspects(area / (grid.h * grid.w), (area + 1) / (grid.h * grid.w))
            for height in range(round((area * low) ** 0.5), round((area * high) ** 0.5) + 1):
                ratio = min(high, (height + 0.5) ** 2 / max(1, area))  # with more, the height is rounded up
                yield self.fit(grid, height, round((area / ratio) ** 0.5))

    def _aspects(self, low: float, high: float) -> Range:
        """The aspects of blocks whose share of the grid lies between ``low`` and ``high``."""
        width = self.scale[1] - self.scale[0]
        if not self.official or not width:
            return self.aspect
        draws = (min(1.0, max(0.0, (share - self.scale[0]) / width)) for share in (low, high))
        first, last = (between(self.aspect, draw) for draw in draws)
        return first, last


@lru_cache(maxsize=64)
def smallest(sizes: Sizes, grid: Grid) -> tuple[int, int]:
    """Height and width of the smallest block that could ever be drawn."""
    return min(sizes.narrow(grid), key=math.prod)


def may_fill(sizes: Sizes, grid: Grid) -> bool:
    """Whether a block could be drawn that spans the grid. (Only the largest area matters: it has the longest sides.)"""
    most = max(1, int(grid.h * grid.w * sizes.scale[1]))
    high_enough, wide_enough = (grid.h - 0.5) ** 2 / most, most / (grid.w - 0.5) ** 2  # least and largest aspect
    return max(sizes.aspect[0], high_enough) <= min(sizes.aspect[1], wide_enough)


def between(ends: Range, draw: float) -> float:
    """Where a draw from 0 to 1 lies in a range."""
    return ends[0] + draw * (ends[1] - ends[0])
