"""Multi-block masks, drawn for a whole batch at once."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Generator, Tensor

from jepakit.marks import earliest, inside
from jepakit.types import Grid, Mask
from jepakit_multiblock.marks import some, tokens
from jepakit_multiblock.sizes import Sizes, smallest

TRIES = 20
"""Draws of a context block before a target block is given up for it (as in the released collator)."""


class Multiblock:
    """``targets`` blocks to be imagined, and one context block from which they are removed.

    Sizes are drawn once for a batch, positions for every sample and block. Target blocks may overlap one another.

    Args:
        targets: M.
        target_scale, context_scale: range of a block's share of the grid.
        target_aspect, context_aspect: range of a block's height over its width.
        min_keep: a block has more tokens than this; a context that target blocks leave no more is drawn again.
        allow_overlap: leave the targets in the context.
        mode: ``unbiased`` or ``official``, see the package.

    Raises:
        ValueError: for clips; where the smallest block that could ever be drawn on a grid has no more than ``min_keep``
            tokens; for ranges that are none.
    """

    tiny = {"min_keep": 0}

    def __init__(
        self,
        targets: int = 4,
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_aspect: tuple[float, float] = (0.75, 1.5),
        context_scale: tuple[float, float] = (0.85, 1.0),
        context_aspect: tuple[float, float] = (1.0, 1.0),
        min_keep: int = 10,
        allow_overlap: bool = False,
        mode: Literal["unbiased", "official"] = "unbiased",
    ):
        if targets < 1:
            raise ValueError(f"targets={targets}: there must be one target block at least")
        self.targets, self.min_keep, self.allow_overlap, self.mode = targets, min_keep, allow_overlap, mode
        self.target = Sizes(target_scale, target_aspect, mode == "official")
        self.context = Sizes(context_scale, context_aspect, mode == "official")
        self.overlaps = allow_overlap

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        if grid.t != 1:
            raise ValueError(f"multiblock masks single frames, the grid is {grid.t} x {grid.h} x {grid.w}")
        self.refuse(grid)
        target_size, context_size = self.target.draw(grid, rng), self.context.draw(grid, rng)
        first = self.first(grid, target_size, (batch_size, self.targets), rng)
        seen = self.seen(grid, context_size, inside(grid, target_size, first.T), rng)
        return [Mask(context=self.cut(seen, rng), target=tokens(grid, target_size, first))]

    def refuse(self, grid: Grid) -> None:
        """Raise ValueError where any draw could give too small a block: at once, and not in the middle of a run."""
        for sizes in (self.target, self.context):
            height, width = smallest(sizes, grid)
            if height * width <= self.min_keep:
                raise ValueError(
                    f"no room on a grid of {grid.h} x {grid.w}: a block of {height} x {width} tokens has not more than "
                    f"min_keep={self.min_keep}"
                )

    def first(self, grid: Grid, size: tuple[int, int], shape: tuple[int, ...], rng: Generator) -> Int[Tensor, "*S"]:
        """The first token of blocks that lie anywhere, but not in the last row and column in the official mode."""
        clear = 1 if self.mode == "official" else 0
        top = torch.randint(0, grid.h - size[0] + 1 - clear, shape, generator=rng)
        left = torch.randint(0, grid.w - size[1] + 1 - clear, shape, generator=rng)
        return top * grid.w + left

    def seen(
        self, grid: Grid, size: tuple[int, int], blocks: Bool[ndarray, "M B N"], rng: Generator
    ) -> Bool[ndarray, "B N"]:
        """A block a sample, less its targets. After ``TRIES`` draws that leave too little, one target block fewer is
        removed, then two fewer, and so on (as in the released collator)."""
        targets, batch, _ = blocks.shape
        seen, todo = np.empty_like(blocks[0]), np.arange(batch)
        for removed in range(0 if self.allow_overlap else targets, -1, -1):
            free = ~blocks[:removed].any(0)
            for _ in range(TRIES):
                block = inside(grid, size, self.first(grid, size, (len(todo),), rng)) & free[todo]
                seen[todo] = block
                todo = todo[block.sum(1, dtype=np.int32) <= self.min_keep]
                if not len(todo):
                    return seen
        raise AssertionError("a context block without targets has more than min_keep tokens, see refuse()")

    def cut(self, seen: Bool[ndarray, "B N"], rng: Generator) -> Int[Tensor, "B K"]:
        """Indices of the seen tokens, ascending, as many as the batch's shortest context has."""
        shortest = int(seen.sum(1, dtype=np.int32).min())
        return earliest(seen, shortest) if self.mode == "official" else some(seen, shortest, rng)
