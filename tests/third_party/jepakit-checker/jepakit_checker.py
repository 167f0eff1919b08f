"""A checkerboard of cells: one colour is seen, the other imagined; each sample draws which. ``masker=checkerboard``."""

import jepakit


class Checkerboard:
    """``cell`` is the side of a cell, in tokens."""

    def __init__(self, cell: int = 2):
        self.cell = cell

    def __call__(self, grid, batch_size, rng):
        import torch  # here and not above: the command line reads this file, and stays quick without torch

        row, column = torch.meshgrid(torch.arange(grid.h), torch.arange(grid.w), indexing="ij")
        black = ((row // self.cell + column // self.cell) % 2 == 0).flatten().repeat(grid.t)  # N
        if black.all():
            raise ValueError(f"cells of {self.cell} leave nothing to imagine on a grid of {grid.h} x {grid.w}")
        seen = black ^ (torch.rand(batch_size, 1, generator=rng) < 0.5)  # B N
        order = seen.int().argsort(dim=1, descending=True, stable=True)  # seen tokens first
        kept, hidden = int(seen.sum(1).min()), int((~seen).sum(1).min())  # one length for the whole batch
        return [jepakit.Mask(context=order[:, :kept], target=order[:, None, -hidden:])]


@jepakit.hookimpl
def jepakit_register(registrar):
    registrar.masker("checkerboard", Checkerboard)
