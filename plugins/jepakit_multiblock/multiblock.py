"""Multi-block masks, drawn for a whole batch at once."""

from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from jepakit.types import Grid, Mask
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
        corners = self.corners(grid, target_size, (batch_size, self.targets), rng)
        blocks = inside(grid, target_size, corners)  # B M N
        seen = self.seen(grid, context_size, blocks, rng)  # B N
        return [Mask(context=self.cut(seen, rng), target=tokens(grid, target_size, corners))]

    def refuse(self, grid: Grid) -> None:
        """Raise ValueError where any draw could give too small a block: at once, and not in the middle of a run."""
        for sizes in (self.target, self.context):
            height, width = smallest(sizes, grid)
            if height * width <= self.min_keep:
                raise ValueError(
                    f"no room on a grid of {grid.h} x {grid.w}: a block of {height} x {width} tokens has not more than "
                    f"min_keep={self.min_keep}"
                )

    def corners(
        self, grid: Grid, size: tuple[int, int], shape: tuple[int, ...], rng: Generator
    ) -> tuple[Int[Tensor, "*S"], Int[Tensor, "*S"]]:
        """Top rows and left columns of blocks, uniform over every position (but the last, in the official mode)."""
        last = 0 if self.mode == "official" else 1
        top = torch.randint(0, grid.h - size[0] + last, shape, generator=rng)
        left = torch.randint(0, grid.w - size[1] + last, shape, generator=rng)
        return top, left

    def seen(
        self, grid: Grid, size: tuple[int, int], blocks: Bool[Tensor, "B M N"], rng: Generator
    ) -> Bool[Tensor, "B N"]:
        """A block a sample, less its targets. After ``TRIES`` draws that leave too little, one target block fewer is
        removed, then two fewer, and so on (as in the released collator)."""
        batch, targets, _ = blocks.shape
        seen = torch.zeros_like(blocks[:, 0])
        todo = torch.arange(batch)
        for removed in range(0 if self.allow_overlap else targets, -1, -1):
            taken = blocks[:, :removed].any(1)
            for _ in range(TRIES):
                block = inside(grid, size, self.corners(grid, size, (len(todo), 1), rng))[:, 0]
                seen[todo] = block & ~taken[todo]
                todo = todo[seen[todo].sum(1) <= self.min_keep]
                if not len(todo):
                    return seen
        raise AssertionError("a context block without targets has more than min_keep tokens, see refuse()")

    def cut(self, seen: Bool[Tensor, "B N"], rng: Generator) -> Int[Tensor, "B K"]:
        """Indices of the seen tokens, ascending, as many as the batch's shortest context has."""
        shortest = int(seen.sum(1).min())
        if self.mode == "official":
            return seen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :shortest]
        priority = torch.rand(seen.shape, generator=rng).masked_fill_(~seen, -1.0)
        return priority.topk(shortest, dim=1).indices.sort(1).values


def inside(grid: Grid, size: tuple[int, int], corners: tuple[Tensor, Tensor]) -> Bool[Tensor, "B M N"]:
    """Which tokens lie in each block."""
    top, left = corners[0][..., None], corners[1][..., None]  # B M 1
    row, column = torch.arange(grid.h), torch.arange(grid.w)
    rows = (row >= top) & (row < top + size[0])
    columns = (column >= left) & (column < left + size[1])
    return (rows[..., :, None] & columns[..., None, :]).flatten(2)


def tokens(grid: Grid, size: tuple[int, int], corners: tuple[Tensor, Tensor]) -> Int[Tensor, "B M Q"]:
    """Indices of the tokens of each block, ascending."""
    row, column = torch.arange(size[0]), torch.arange(size[1])
    offset = (row[:, None] * grid.w + column).flatten()
    return (corners[0] * grid.w + corners[1])[..., None] + offset
