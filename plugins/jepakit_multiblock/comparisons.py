"""The masks that the paper compares multi-block with (I-JEPA, Table 6), each drawn for a whole batch at once.

In all three, context and target are disjoint, and their lengths follow from the grid and one draw of sizes: nothing is
cut.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Generator, Tensor

from jepakit.marks import indices, inside
from jepakit.types import Grid, Mask
from jepakit_multiblock.marks import tokens
from jepakit_multiblock.sizes import Sizes, between, may_fill, smallest

QUADRANTS = ("top_left", "top_right", "bottom_left", "bottom_right")


class Rasterized:
    """One quadrant of the picture is seen, the other three are imagined, each on its own.

    All quadrants are of one size. Of an odd number of rows one stays outside of all quadrants: the first or the last,
    drawn for each sample; columns alike.

    Args:
        context: the quadrant that is seen; ``drawn``: another one for each sample. The paper does not say which.

    Raises:
        ValueError: for clips, and for grids of a single row or column.
    """

    def __init__(self, context: Literal["drawn", "top_left", "top_right", "bottom_left", "bottom_right"] = "drawn"):
        self.context = context

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        frame("rasterized", grid)
        if min(grid.h, grid.w) < 2:
            raise ValueError(f"no room on a grid of {grid.h} x {grid.w}: it has no four quadrants")
        height, width = grid.h // 2, grid.w // 2
        top = torch.randint(0, grid.h % 2 + 1, (batch_size, 1), generator=rng)
        left = torch.randint(0, grid.w % 2 + 1, (batch_size, 1), generator=rng)
        order = self.order(batch_size, rng)
        first = (top + order // 2 * height) * grid.w + left + order % 2 * width
        quadrants = tokens(grid, (height, width), first)  # B 4 Q
        return [Mask(context=quadrants[:, 0], target=quadrants[:, 1:])]

    def order(self, batch_size: int, rng: Generator) -> Int[Tensor, "B 4"]:
        """Numbers of the quadrants as in ``QUADRANTS``, the one that is seen first."""
        first = torch.randint(0, 4, (batch_size, 1), generator=rng)
        if self.context != "drawn":
            first = torch.full_like(first, QUADRANTS.index(self.context))
        return (first + torch.arange(4)) % 4


class Block:
    """One large block is imagined, all that lies around it is seen.

    Its size is drawn once for a batch, its position for every sample. It is no larger than the grid: on a long grid its
    share may be below ``scale``. A block of more than half of each side covers the middle wherever it lies: the tokens
    there are never seen.

    Args:
        scale: range of the block's share of the grid.
        aspect: range of its height over its width. The paper gives none for this masker; it is that of multi-block's
            targets.

    Raises:
        ValueError: for clips; where some draw would give a block without tokens, or one that leaves no context; for
            ranges that are none.
    """

    def __init__(self, scale: tuple[float, float] = (0.6, 0.6), aspect: tuple[float, float] = (0.75, 1.5)):
        self.sizes = Sizes(scale, aspect, official=False)

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        frame("block", grid)
        self.refuse(grid)
        size = self.sizes.draw(grid, rng)
        top = torch.randint(0, grid.h - size[0] + 1, (batch_size, 1), generator=rng)
        left = torch.randint(0, grid.w - size[1] + 1, (batch_size, 1), generator=rng)
        first = top * grid.w + left
        return [Mask(context=indices(~inside(grid, size, first[:, 0])), target=tokens(grid, size, first))]

    def refuse(self, grid: Grid) -> None:
        """Raise ValueError where any draw could leave nothing to see or to imagine."""
        height, width = smallest(self.sizes, grid)
        if not height * width:
            raise ValueError(f"no room on a grid of {grid.h} x {grid.w}: a block of {height} x {width} tokens is none")
        if may_fill(self.sizes, grid):
            raise ValueError(
                f"no room on a grid of {grid.h} x {grid.w}: a block of scale {self.sizes.scale[1]} may fill it and "
                "leave no context"
            )


class Random:
    """Tokens drawn at random are imagined, all others are seen. On a clip they are drawn from all its frames together.

    Args:
        ratio: range of the share of the grid that is imagined, drawn once for a batch (the released collator's is 0.4
            to 0.6, which the paper does not mention).
        targets: M; the imagined tokens are dealt to as many blocks of one size, each predicted on its own. What does
            not go round is neither seen nor imagined.

    Raises:
        ValueError: where some draw would leave nothing to see, or nothing to imagine; for a range that is none.
    """

    def __init__(self, ratio: tuple[float, float] = (0.6, 0.6), targets: int = 1):
        if not 0 < ratio[0] <= ratio[1] < 1:
            raise ValueError(f"ratio is a range between 0 and 1, lower end first, not {ratio[0]} to {ratio[1]}")
        if targets < 1:
            raise ValueError(f"targets={targets}: there must be one target block at least")
        self.ratio, self.targets = ratio, targets

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        if not self.seen(grid, self.ratio[1]) or not self.asked(grid, self.ratio[0]):
            raise ValueError(
                f"no room on a grid of {grid.t} x {grid.h} x {grid.w}: a ratio of {self.ratio[0]} to {self.ratio[1]} "
                f"leaves nothing to see, or nothing for each of targets={self.targets}"
            )
        ratio = between(self.ratio, torch.rand(1, generator=rng, dtype=torch.float64).item())
        seen, asked = self.seen(grid, ratio), self.asked(grid, ratio)
        order = torch.rand(batch_size, grid.size, generator=rng).argsort(1).numpy()
        target = order[:, seen : seen + self.targets * asked].reshape(batch_size, self.targets, asked)
        context, target = (torch.from_numpy(np.sort(each)) for each in (order[:, :seen], target))
        return [Mask(context, target)]

    def seen(self, grid: Grid, ratio: float) -> int:
        """K: rounded down, as in the released collator."""
        return int(grid.size * (1 - ratio))

    def asked(self, grid: Grid, ratio: float) -> int:
        """Q: an equal part of what is not seen."""
        return (grid.size - self.seen(grid, ratio)) // self.targets


def frame(name: str, grid: Grid) -> None:
    """Raise ValueError for a clip."""
    if grid.t != 1:
        raise ValueError(f"{name} masks single frames, the grid is {grid.t} x {grid.h} x {grid.w}")
