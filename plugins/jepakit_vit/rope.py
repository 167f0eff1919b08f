"""Where a token lies, told to attention: rotary positions over time, rows and columns (3-D axial RoPE).

Queries and keys are turned by angles that grow with their places; nothing is added to tokens. A third of a head's
channels, rounded down to whole pairs, belongs to each axis; the rest is not turned. Papers: RoFormer (arXiv
2104.09864), V-JEPA 2 (arXiv 2506.09985).

V-JEPA 2 was trained with a slip that its weights need: the frequencies of an axis are laid out one after the other and
then once more (``tiled``), instead of twice each. The two channels of a pair are then turned by different angles: that
is no rotation, lengths are not kept, and attention does not depend on distances alone. V-JEPA 2.1 has it right.

To use a model on another grid than the one that it was trained on (``native``), places are scaled as in V-JEPA 2.1:
the ends of the two grids are aligned. V-JEPA 2, and Hugging Face's, never scale.
"""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.errors import nearest
from jepakit.types import Grid
from jepakit_vit.positions import Native, Positions, Tables, extent, rates, refuse_no_grid

SINCOS, ROPE = ("sincos_2d", "sincos_3d"), ("rope", "rope_tiled")


def turns(grid: Grid, width: int, native: Native = None, tiled: bool = False) -> Float[Tensor, "N _"]:
    """What ``rotate`` multiplies a head's channels with at each token, in float64: cosines, then signed sines."""
    axis = pairs(width)
    axes = [between(count, known) for count, known in zip(grid, extent(grid, native), strict=True)]
    found = [place.flatten().outer(rates(axis)) for place in torch.meshgrid(*axes, indexing="ij")]
    spread = [angle.repeat(1, 2) if tiled else angle.repeat_interleave(2, dim=1) for angle in found]
    rest = torch.zeros(grid.size, width - 6 * axis, dtype=torch.float64)
    angles = torch.cat([*spread, rest], dim=1)  # N D
    sign = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(width // 2)
    return torch.cat([angles.cos(), angles.sin() * sign], dim=1)


def pairs(width: int) -> int:
    """Pairs of channels that each axis has of a head that is ``width`` wide. Raises ValueError where it has none."""
    if width % 2 or width < 6:
        raise ValueError(
            f"rotary positions turn pairs of channels on three axes; a head has {width}, not 6, 8, 10, ..."
        )
    return width // 3 // 2


def between(count: int, native: int) -> Float[Tensor, "n"]:
    """Places of ``count`` patches whose first and last lie where those of ``native`` do, at 0 and native - 1."""
    return torch.arange(count, dtype=torch.float64) * ((native - 1) / max(1, count - 1))


def rotate(x: Float[Tensor, "*B heads N D"], turn: Float[Tensor, "_ 1 N 2*D"]) -> Float[Tensor, "*B heads N D"]:
    """Queries or keys, turned: in float32 where they have 16 bits, and back. What is contiguous is faster."""
    cosine, sine = turn.chunk(2, dim=-1)
    wide = x.to(cosine.dtype, memory_format=torch.contiguous_format).contiguous()
    first, second = wide.unflatten(-1, (-1, 2)).unbind(-1)
    swapped = torch.stack((second, first), dim=-1).flatten(-2)
    return (wide * cosine).addcmul_(swapped, sine).to(x.dtype)


class Rope(nn.Module):
    """Leaves tokens as they are, and says by what their queries and keys are turned. Has no parameters.

    Args:
        width: channels of a head.
        tiled: as V-JEPA 2 was released.

    Raises:
        ValueError: for a head that is too narrow or odd, and where ``native`` is no grid.
    """

    def __init__(self, width: int, native: Native = None, tiled: bool = False):
        super().__init__()
        refuse_no_grid(native)
        pairs(width)
        self.native = native
        self.tables = Tables(partial(turns, width=width, native=native, tiled=tiled))

    def forward(self, tokens: Tensor, index: Int[Tensor, "*B K"] | None, grid: Grid) -> Tensor:
        return tokens

    def turn(self, index: Int[Tensor, "B K"] | None, grid: Grid, like: Tensor) -> Float[Tensor, "_ 1 K _"]:
        """For all heads and layers, of the tokens at ``index`` (None: of all)."""
        rows = self.tables.at(index, grid, like)
        return rows[None, None] if index is None else rows.unsqueeze(1)


def located(kind: str, width: int, heads: int, native: Native = None) -> Positions | Rope:
    """The positions of that name. Raises ValueError where there are none, or they do not go with the width."""
    if kind in ROPE:
        return Rope(width // heads, native, tiled=kind == "rope_tiled")
    if kind in SINCOS:
        return Positions(width, native, clips=kind == "sincos_3d")
    known = (*SINCOS, *ROPE)
    raise ValueError(f"no positions {kind!r}{nearest(kind, known)}; there are: {', '.join(known)}")
