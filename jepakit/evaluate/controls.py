"""Rows of a table that need no learning, for a probe that reads tokens; and what is left of a clip for a control."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from jepakit.evaluate.features import Change, Extracted, Reading, collect
from jepakit.protocols import Source
from jepakit.types import Grid

PLACES = 4
"""Waves along each axis that tell a patch of raw pixels where it lies."""


def pixel_tokens(
    backbone: Any,
    source: Source,
    reading: Reading,
    rows: Int[Tensor, "n"] | None = None,
    change: Change | None = None,
) -> Extracted:
    """The control for ``tokens``: the normalised pixels of every patch of the backbone's grid, and where it lies.

    Patches are made as small as it takes for a token to be no wider than the backbone's.
    """

    def cut(pixels: Tensor) -> Tensor:
        grid = backbone.grid(pixels)
        clip = pixels.cpu() if change is None else change(pixels.cpu())
        width = getattr(backbone, "representation_width", backbone.width)
        return _patches(clip, grid if clip.shape[2] > 1 else grid._replace(t=1), width).half()

    return collect(cut, source, reading, rows)


def mean_frame(clip: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C 1 H W"]:
    """What a clip looks like, without what moves."""
    return clip.mean(2, keepdim=True)


def frame_difference(clip: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C _ H W"]:
    """What moves in a clip, from each frame to the next, without what stays."""
    return clip.diff(dim=2)


def _patches(clip: Tensor, grid: Grid, width: int) -> Float[Tensor, "B N D"]:
    """Pixels patch by patch, with the patch's place as cosines. A tubelet that lacks frames repeats the last one."""
    deep = math.ceil(clip.shape[2] / grid.t)
    side = min(math.isqrt(max(width // (clip.shape[1] * deep), 1)), clip.shape[3] // grid.h)
    clip = torch.cat([clip, clip[:, :, -1:].expand(-1, -1, grid.t * deep - clip.shape[2], -1, -1)], 2)
    small = interpolate(clip, size=(clip.shape[2], grid.h * side, grid.w * side), mode="area")
    cut = small.unflatten(4, (grid.w, side)).unflatten(3, (grid.h, side)).unflatten(2, (grid.t, deep))
    content = cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(1, 3).flatten(2)
    waves = torch.arange(1, PLACES + 1) * math.pi
    along = [torch.cos((torch.arange(n)[:, None] + 0.5) / n * waves) for n in grid]
    shapes = [(-1, 1, 1, PLACES), (1, -1, 1, PLACES), (1, 1, -1, PLACES)]
    places = [axis.view(shape).expand(*grid, -1) for axis, shape in zip(along, shapes, strict=True)]
    return torch.cat([content, torch.cat(places, -1).flatten(0, 2).expand(len(clip), -1, -1)], 2)
