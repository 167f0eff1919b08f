"""Where a token lies: sine and cosine tables, for any grid."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.types import Grid


@lru_cache(maxsize=64)
def sincos_2d(grid: Grid, width: int) -> Float[Tensor, "N D"]:
    """Two-dimensional sine-cosine positions in float64: half of the channels for the column, half for the row.

    Source: MoCo v3 / MAE, as in the released I-JEPA code (V-JEPA puts the row first).

    Raises:
        ValueError: for clips (t > 1), and where ``width`` is no multiple of four.
    """
    if grid.t != 1:
        raise ValueError(f"2-D positions know no time, the grid is {grid.t} x {grid.h} x {grid.w}")
    if width % 4:
        raise ValueError(f"2-D sine-cosine positions need a width that is a multiple of 4, not {width}")
    rate = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    row, column = torch.meshgrid(torch.arange(grid.h).double(), torch.arange(grid.w).double(), indexing="ij")
    angles = [place.flatten().outer(rate) for place in (column, row)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)


class Positions(nn.Module):
    """Adds positions to tokens. Has no parameters: tables are made for each grid when it is first met."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self._tables: dict[tuple[Grid, torch.device, torch.dtype], Tensor] = {}

    def forward(self, tokens: Float[Tensor, "B K D"], index: Int[Tensor, "B K"] | None, grid: Grid):
        return tokens + self.at(index, grid, tokens)

    def at(self, index: Int[Tensor, "*B"] | None, grid: Grid, like: Tensor) -> Float[Tensor, "*B D"]:
        """Positions of the tokens at ``index`` (None: of all), on the device of ``like``, in its type or float32."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        where = (grid, like.device, dtype)
        if where not in self._tables:
            self._tables[where] = sincos_2d(grid, self.width).to(like.device, dtype)
        table = self._tables[where]
        return table if index is None else table[index]
