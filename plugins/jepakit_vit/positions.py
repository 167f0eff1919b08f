"""Where a token lies: sine and cosine tables, for any grid.

A model knows the places of the grid that it was trained on. To use it on another one, say which that was
(``native``): places are then scaled to it, centres of patches aligned, and sine and cosine are evaluated there, so no
table is resampled. Others resample the table of the native grid: Hugging Face by bicubic interpolation, timm by bicubic
interpolation with antialiasing, V-JEPA's released code by trilinear interpolation. Off the border of a grid that grows,
all come close to what is computed here.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.types import Grid

Native = tuple[int, ...] | None
"""Rows and columns of the grid that places are scaled to, or tubelets, rows and columns; None: the grid itself."""


@lru_cache(maxsize=64)
def sincos_2d(grid: Grid, width: int, native: Native = None) -> Float[Tensor, "N D"]:
    """Two-dimensional sine-cosine positions in float64: half of the channels for the column, half for the row.

    Source: MoCo v3 / MAE, as in the released I-JEPA code (V-JEPA puts the row first).

    Raises:
        ValueError: for clips (t > 1), and where ``width`` is no multiple of four.
    """
    if grid.t != 1:
        raise ValueError(f"2-D positions know no time, the grid is {grid.t} x {grid.h} x {grid.w}")
    if width % 4:
        raise ValueError(f"2-D sine-cosine positions need a width that is a multiple of 4, not {width}")
    rate = rates(width // 4)
    _, rows, columns = extent(grid, native)
    row, column = torch.meshgrid(places(grid.h, rows), places(grid.w, columns), indexing="ij")
    angles = [place.flatten().outer(rate) for place in (column, row)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)


def sincos_3d(grid: Grid, width: int, native: Native = None) -> Float[Tensor, "N D"]:
    """Three-dimensional sine-cosine positions in float64: as many channels for time, for the row, for the column.

    What is more than ``width`` is cut off at the end. Source: the released V-JEPA code, with its ``uniform_power``.
    """
    rate = rates(math.ceil(width / 6))
    axes = [places(count, known) for count, known in zip(grid, extent(grid, native), strict=True)]
    angles = [place.flatten().outer(rate) for place in torch.meshgrid(*axes, indexing="ij")]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)[:, :width]


def rates(count: int) -> Float[Tensor, "n"]:
    """How fast ``count`` waves turn from place to place: from 1 down to nearly 1 / 10000; float64."""
    return 10000.0 ** -(torch.arange(count, dtype=torch.float64) / count)


def places(count: int, native: int) -> Float[Tensor, "n"]:
    """Centres of ``count`` patches where ``native`` of the same extent lie at 0, 1, 2, ...; float64."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) * (native / count) - 0.5


def extent(grid: Grid, native: Native) -> Grid:
    """The grid that places are scaled to."""
    return grid if native is None else Grid(*(grid.t, *native)[-3:])


def refuse_no_grid(native: Native, sizes: tuple[int, ...] = (2, 3)) -> None:
    """Raise ValueError where ``native`` has not as many sides as it may have, or one that is empty."""
    if native is not None and (len(native) not in sizes or min(native) < 1):
        before = "rows and columns, or tubelets before them" if 3 in sizes else "rows and columns"
        raise ValueError(f"native={list(native)} is no grid: {before}, each at least 1")


class Tables:
    """A table for each grid, device and type, made when it is first met. Rows are tokens, picked by index."""

    MOST = 32
    """Tables that are held; the oldest makes room."""

    def __init__(self, of: Callable[[Grid], Tensor]):
        self.of = of
        self._known: dict[tuple[Grid, torch.device, torch.dtype], Tensor] = {}

    def at(self, index: Int[Tensor, "*B"] | None, grid: Grid, like: Tensor) -> Float[Tensor, "*B D"]:
        """Rows of the tokens at ``index`` (None: of all), on the device of ``like``, in its type or float32."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        where = (grid, like.device, dtype)
        if where not in self._known:
            if len(self._known) == self.MOST:
                del self._known[next(iter(self._known))]
            self._known[where] = self.of(grid).to(like.device, dtype)
        table = self._known[where]
        return table if index is None else table[index]


class Positions(nn.Module):
    """Adds sine-cosine positions to tokens, of two dimensions or, for clips, of three. Has no parameters.

    Raises:
        ValueError: where ``native`` is no grid.
    """

    def __init__(self, width: int, native: Native = None, clips: bool = False):
        super().__init__()
        refuse_no_grid(native, (2, 3) if clips else (2,))
        self.width, self.native = width, native
        self.tables = Tables(partial(sincos_3d if clips else sincos_2d, width=width, native=native))

    def forward(
        self, tokens: Float[Tensor, "*B K D"], index: Int[Tensor, "*B K"] | None, grid: Grid
    ) -> Float[Tensor, "*B K D"]:
        return tokens + self.at(index, grid, tokens)

    def at(self, index: Int[Tensor, "*B"] | None, grid: Grid, like: Tensor) -> Float[Tensor, "*B D"]:
        """Positions of the tokens at ``index`` (None: of all), on the device of ``like``, in its type or float32."""
        return self.tables.at(index, grid, like)
