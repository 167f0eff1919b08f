"""Columns of the grid, seen and imagined in turn."""

import torch

from jepakit.types import Grid, Mask


class Stripes:
    """Every other stripe of ``width`` columns is imagined; each batch draws which begins."""

    def __init__(self, width: int = 1):
        self.width = width

    def __call__(self, grid: Grid, batch_size: int, rng: torch.Generator) -> list[Mask]:
        if grid.w <= self.width:
            raise ValueError(f"stripes of {self.width} leave nothing to imagine on a grid {grid.w} wide")
        even = (torch.arange(grid.w) // self.width % 2 == 0).repeat(grid.t * grid.h)  # N
        seen = even ^ bool(torch.randint(2, (), generator=rng))
        context, target = seen.nonzero().flatten(), (~seen).nonzero().flatten()
        return [Mask(context.repeat(batch_size, 1), target.repeat(batch_size, 1, 1))]
