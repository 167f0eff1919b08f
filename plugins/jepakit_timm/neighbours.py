"""A map of features whose patches are guessed from those around them."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit.types import Features, Grid, Mask


class Neighbours(nn.Module):
    """Each patch, of the same view or of the next frame, is guessed from the patches around it, itself left out:
    content that is dense (MC-JEPA's option).

    A convolution without its centre, GELU, and a layer on each patch. Of a pyramid one level is guessed; the others
    pass as they are, and have no part in the loss where ``distance_levels`` gives them none.

    Args:
        level: of a pyramid the one that is guessed, from 0; below 0 counted from the last.
        reach: how many patches to each side are seen.
        hidden: width between the two layers.

    Raises:
        ValueError: for answers of another width than the encoder's; for a level that there is not, or that is no map;
            for a mask that shows or asks for a part of a view; and for a condition.
    """

    whole, tiny = True, {"hidden": 16}

    def __init__(
        self,
        encoder_widths: tuple[int, ...],
        target_width: int | None = None,
        level: int = -1,
        reach: int = 1,
        hidden: int = 256,
    ):
        super().__init__()
        if not -len(encoder_widths) <= level < len(encoder_widths):
            raise ValueError(f"neighbours.level={level}: the encoder gives {len(encoder_widths)} levels")
        if encoder_widths[-1] != (target_width or encoder_widths[-1]):
            raise ValueError("neighbours guesses the encoder's own features, and the answers have another width")
        if reach < 1:
            raise ValueError(f"neighbours.reach={reach}: it must be at least 1")
        width, side = encoder_widths[level], 2 * reach + 1
        self.level, self.reach = level, reach
        self.around = nn.Conv2d(width, hidden, side)
        self.each = nn.Linear(hidden, width)
        self.register_buffer("open", torch.ones(side, side), persistent=False)
        self.open[reach, reach] = 0

    def forward(self, seen: Features, mask: Mask, grid: Grid, condition: Any = None) -> Features:
        if condition is not None:
            raise ValueError("neighbours takes no condition")
        if mask.context is not None or mask.target is not None:
            raise ValueError("neighbours guesses the patches of a whole view: it needs a masker such as itself or next")
        if not isinstance(seen, tuple):
            return self.guess(seen, grid).unsqueeze(1)
        chosen = self.level % len(seen)
        levels = (self.guess(x, grid) if number == chosen else x for number, x in enumerate(seen))
        return tuple(level.unsqueeze(1) for level in levels)

    def guess(self, x: Float[Tensor, "B N D"], grid: Grid) -> Float[Tensor, "B N D"]:
        """Every patch of a map, whose sides are to each other as those of the grid."""
        rows = math.isqrt(x.shape[1] * grid.h // (grid.t * grid.w))
        if grid.t * rows * rows * grid.w != x.shape[1] * grid.h or rows < 2:
            raise ValueError(f"neighbours.level={self.level}: {x.shape[1]} features a view are no map of patches")
        maps = x.unflatten(1, (grid.t, rows, -1)).flatten(0, 1).permute(0, 3, 1, 2)
        around = F.conv2d(maps, self.around.weight * self.open, self.around.bias, padding=self.reach)
        return self.each(F.gelu(around.permute(0, 2, 3, 1))).flatten(1, 2).reshape(x.shape)
