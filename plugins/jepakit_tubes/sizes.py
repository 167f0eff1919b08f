"""How large a block is, and whether a grid has room for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from jepakit.types import Grid

Range = tuple[float, float]

LEAST = 0.05
"""A grid has room where a draw of blocks leaves something to see with more than this chance, whatever their size."""


@dataclass(frozen=True)
class Sizes:
    """The sizes that a block may have.

    Args:
        scale: its share of a frame.
        aspect: range of its height over its width.
        temporal_scale: range of its share of the clip's length.

    Raises:
        ValueError: for shares and ranges that are none.
    """

    scale: float
    aspect: Range
    temporal_scale: Range

    def __post_init__(self):
        for name, (low, high), most in (
            ("scale", (self.scale, self.scale), 1.0),
            ("aspect", self.aspect, float("inf")),
            ("temporal_scale", self.temporal_scale, 1.0),
        ):
            if not 0 < low <= high <= most:
                limit = "above 0" if most > 1 else "above 0 and up to 1"
                raise ValueError(f"a block's {name} lies {limit}, lower end first, not {low} to {high}")

    def fit(self, grid: Grid, draws: tuple[float, float]) -> tuple[int, int, int]:
        """Length, height and width in tokens, by where two draws from 0 to 1 lie in the ranges of time and aspect."""
        ratio = between(self.aspect, draws[1])
        return self.length(grid, draws[0]), *self._sides(grid, ratio, ratio)

    def possible(self, grid: Grid) -> Iterator[tuple[int, int]]:
        """Every height with every width that may be drawn together."""
        area, (low, high) = self._area(grid), self.aspect
        for height in range(round((area * low) ** 0.5), round((area * high) ** 0.5) + 1):
            least = max(low, (height - 0.5) ** 2 / max(1, area))  # the aspects that are rounded to this height
            most = max(least, min(high, (height + 0.5) ** 2 / max(1, area)))
            (_, narrow), (_, wide) = self._sides(grid, most, most), self._sides(grid, least, least)
            yield from ((min(height, grid.h), width) for width in range(narrow, wide + 1))

    def length(self, grid: Grid, draw: float) -> int:
        """In tokens, by where a draw from 0 to 1 lies in its range."""
        return max(1, int(grid.t * between(self.temporal_scale, draw)))

    def _area(self, grid: Grid) -> int:
        return int(grid.h * grid.w * self.scale)

    def _sides(self, grid: Grid, tall: float, wide: float) -> tuple[int, int]:
        area = self._area(grid)
        return min(round((area * tall) ** 0.5), grid.h), min(round((area / wide) ** 0.5), grid.w)


@lru_cache(maxsize=64)
def refuse(sizes: Sizes, grid: Grid, blocks: int) -> None:
    """Raise ValueError where some size would leave nothing to imagine, or hardly ever anything to see.

    ``blocks`` leave the grid's first token out with the chance that none of them lies in the first of its places.
    """
    length = sizes.length(grid, 1.0)
    for height, width in sizes.possible(grid):
        where = f"no room on a grid of {grid.t} x {grid.h} x {grid.w}: a block of scale {sizes.scale}"
        if not height * width:
            raise ValueError(f"{where} may have {height} x {width} tokens, which is none")
        places = (grid.t - length + 1) * (grid.h - height + 1) * (grid.w - width + 1)
        if (1 - 1 / places) ** blocks <= LEAST:
            size = f"{length} x {height} x {width}"
            raise ValueError(f"{where} may have {size} tokens; {blocks} of that size may leave no context")


def between(ends: Range, draw: float) -> float:
    """Where a draw from 0 to 1 lies in a range."""
    return ends[0] + draw * (ends[1] - ends[0])
