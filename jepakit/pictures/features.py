"""What an encoder tells apart: its patch tokens as colours."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from jepakit.data.views import Normalise
from jepakit.errors import ConfigError
from jepakit.evaluate.features import Reading, undisturbed
from jepakit.pictures.panels import SMOOTH, Layout, first_frame, frame, slices
from jepakit.pictures.style import sheet
from jepakit.types import Features, Grid

CUT = 2.0
"""Per cent of the values at either end that are clipped before a component becomes a colour."""

CELLS = 64
"""Cells of a frame below which there is little to see."""


def features(
    backbones: Mapping[str, nn.Module], pictures: UInt8[Tensor, "B C T H W"], reading: Reading, out: Path
) -> Path:
    """A sheet: each row a picture, and beside it the patch tokens of every encoder.

    The first three principal components of an encoder's tokens over the whole sheet are its red, green and blue; so
    colours compare within a column and mean nothing across columns.

    Args:
        backbones: by the words that stand above their columns, such as trained and random.
        reading: how pixels are normalised, and on which device.
    """
    maps, grid = {}, None
    for name, backbone in backbones.items():
        tokens, grid = encode(backbone, pictures, reading)
        maps[name] = colours(tokens).reshape(len(pictures), *grid, 3)
    assert grid is not None, "no encoder was given"
    layout = Layout(len(pictures), ["clip" if pictures.shape[2] > 1 else "picture", *maps], len(slices(grid)))
    width, height = layout.size
    with sheet(height, out, width) as figure:
        for row, axes in enumerate(layout.axes(figure)):
            for number, piece in enumerate(slices(grid)):
                shown = first_frame(piece, pictures.shape[2], grid)
                axes[0][number].imshow(frame(pictures[row], shown), interpolation=SMOOTH)
                for column, colour in enumerate(maps.values(), 1):
                    axes[column][number].imshow(colour[row, piece], interpolation="nearest")
    return out


def encode(
    backbone: nn.Module, pictures: UInt8[Tensor, "B C T H W"], reading: Reading
) -> tuple[Float[Tensor, "B N D"], Grid]:
    """The patch tokens of a batch, in float32 on the CPU, and the grid that they lie on."""
    device = torch.device(reading.device)
    normalise = Normalise(list(reading.data["mean"]), list(reading.data["std"]), device)
    pixels = normalise(pictures.to(device), torch.zeros(len(pictures), dtype=torch.bool))
    grid = backbone.grid(pixels)
    with undisturbed(backbone):
        found = [level_of(backbone(part), grid) for part in pixels.split(int(reading.data["batch_size"]))]
    tokens = torch.cat([level for level, _ in found]).float().cpu()
    return tokens, found[0][1]


def level_of(found: Features, grid: Grid) -> tuple[Float[Tensor, "B N D"], Grid]:
    """The features that are drawn, and the grid that they lie on: the last level that has a token for each cell.

    Of a pyramid over a coarser grid than ``CELLS``, the last level with as many cells, or the finest. Raises
    ConfigError where no level has tokens on the grid.
    """
    levels = found if isinstance(found, tuple) else (found,)
    if grid.h * grid.w < CELLS and (finer := [level for level in levels if _side(level, grid) ** 2 > grid.h * grid.w]):
        level = next((each for each in reversed(finer) if _side(each, grid) ** 2 >= CELLS), finer[0])
        return level, Grid(grid.t, _side(level, grid), _side(level, grid))
    for level in reversed(levels):
        if level.shape[1] == grid.size:
            return level, grid
    raise ConfigError(f"the encoder has no features on the grid {tuple(grid)} of its tokens: nothing to draw")


def _side(level: Float[Tensor, "B N D"], grid: Grid) -> int:
    """Tokens along a side of the square map that a level is of each frame; 0 where it is none."""
    side = math.isqrt(level.shape[1] // grid.t)
    return side if grid.t * side * side == level.shape[1] else 0


class Basis(NamedTuple):
    """What makes colours of tokens: their mean, three axes, and the values that are dark and bright."""

    mean: Float[Tensor, "D"]
    axes: Float[Tensor, "D d"]
    low: Float[Tensor, "d"]
    high: Float[Tensor, "d"]

    @classmethod
    def of(cls, tokens: Float[Tensor, "n D"]) -> "Basis":
        """The first three principal components; an axis has no sign of its own: the longer tail is bright."""
        flat = tokens.double()
        mean = flat.mean(0)
        flat = flat - mean
        axes = torch.linalg.eigh(flat.T @ flat).eigenvectors.flip(1)[:, :3]
        parts = flat @ axes
        sign = parts.pow(3).sum(0).sign()
        some = (parts * sign)[:: max(len(parts) // 100_000, 1)]
        return cls(mean, axes * sign, *(torch.quantile(some, q / 100, dim=0) for q in (CUT, 100 - CUT)))

    def __call__(self, tokens: Float[Tensor, "*n D"]) -> np.ndarray:
        """``*n 3``, values 0 to 1."""
        parts = (tokens.double() - self.mean) @ self.axes
        scaled = ((parts - self.low) / (self.high - self.low).clamp_min(1e-12)).clamp(0, 1)
        if scaled.shape[-1] < 3:  # fewer dimensions than colours
            scaled = torch.nn.functional.pad(scaled, (0, 3 - scaled.shape[-1]))
        return scaled.numpy()


def colours(tokens: Float[Tensor, "B N D"]) -> np.ndarray:
    """``B N 3``: the first three principal components over all tokens, spread over 0 to 1."""
    return Basis.of(tokens.flatten(0, 1))(tokens)
