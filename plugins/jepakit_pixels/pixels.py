"""The pixels of a view as what there is to know about it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.protocols import Backbone
from jepakit.types import Features, Grid

EPS = 1e-6
"""Added to a patch's variance, as in the released MAE code."""


class Pixels(nn.Module):
    """Every token's patch of the normalised view: P = C t h w numbers, in the order of a convolution's weight.

    Nothing is learned and nothing moves, so that features cannot collapse: a constant does not tell patches apart.

    Args:
        view_shape: ``C T H W`` of a view.
        grid: the tokens that it is cut into.
        normalise: each patch by its own mean and standard deviation, over all of its numbers (the variance is divided
            by P - 1, as in the released MAE code).

    Raises:
        ValueError: where a view of that shape is not cut evenly by the grid; for a patch of a single number, which has
            no deviation.
    """

    def __init__(self, view_shape: tuple[int, int, int, int], grid: Grid, normalise: bool = True):
        super().__init__()
        channels, *clip = view_shape
        if any(side % cuts for side, cuts in zip(clip, grid, strict=True)):
            sides, cuts = (" x ".join(map(str, each)) for each in (clip, grid))
            raise ValueError(f"a view of {sides} (frames, height, width) is not cut evenly by a grid of {cuts} tokens")
        self.box = tuple(side // cuts for side, cuts in zip(clip, grid, strict=True))
        self.width = channels * self.box[0] * self.box[1] * self.box[2]
        self.normalise = normalise
        if normalise and self.width == 1:
            raise ValueError("a patch of a single number has no standard deviation; set normalise=false")

    def prepare(self, backbone: Backbone, steps: int) -> None:
        """Nothing to prepare."""

    @torch.no_grad()
    def targets(self, backbone: Backbone, view: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B N P"]:
        """The patches of the view."""
        patches = self.cut(view)
        if not self.normalise:
            return patches
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) / (variance + EPS).sqrt()

    def cut(self, view: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B N P"]:
        """The pixels of each token's box: time first, then row, then column."""
        t, h, w = self.box
        boxes = view.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, t))  # B C T/t t H/h h W/w w
        return boxes.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)

    def penalty(self, seen: Features, guess: Features, truth: Features) -> dict[str, Tensor]:
        """Nothing is forbidden: the answers stand still."""
        return {}

    def after_step(self, backbone: Backbone, step: int) -> None:
        """Nothing moves slowly."""
