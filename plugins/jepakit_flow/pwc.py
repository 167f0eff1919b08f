"""Coarse to fine: each level warps by what the level before it found, and adds what is left."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit_flow.correlation import local
from jepakit_flow.geometry import AnyFlow, Flow, precise, resize, warp
from jepakit_flow.layers import stack, still

FILTERS = (128, 128, 96, 64, 32)
"""Filters of an estimator's convolutions at factor 1 (PWC-Net, figure 3)."""
CONTEXT = 32
"""Of the features themselves, what an estimator is told beside their correlation, at factor 1."""
FEWEST = 16
"""Filters that are left at any factor: LayerNorm over a few channels leaves little to tell a flow by."""


class Pwc(nn.Module):
    """The estimator of MC-JEPA, after PWC-Net: warp, correlate, convolve, level by level.

    Args:
        widths: of the levels, finest first.
        radius: of the correlation, in places of a level.
        factor: of the number of filters.
    """

    def __init__(self, widths: Sequence[int], radius: int = 4, factor: float = 2.0):
        super().__init__()
        self.radius = radius
        context, *filters = (max(FEWEST, round(factor * each)) for each in (CONTEXT, *FILTERS))
        inputs = (2 * radius + 1) ** 2 + context + 2 + filters[-1]
        self.contexts = nn.ModuleList(nn.Conv2d(width, context, 1) for width in widths)
        self.stacks = nn.ModuleList(stack(inputs, filters) for _ in widths)
        self.lasts = nn.ModuleList(still(filters[-1]) for _ in widths)
        self.hidden = filters[-1]

    def forward(
        self, one: Sequence[Float[Tensor, "B _ _ _"]], other: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> list[AnyFlow]:
        """The flow from one to the other in pixels of each level, coarsest first; the maps are finest first."""
        batch, _, h, w = one[-1].shape
        flow, hidden = one[-1].new_zeros(batch, 2, h, w), one[-1].new_zeros(batch, self.hidden, h, w)
        found = []
        for level in reversed(range(len(one))):
            flow, hidden = self.refine(level, one[level], other[level], flow, hidden)
            found.append(flow)
        return found

    def refine(
        self,
        level: int,
        one: Float[Tensor, "B D H W"],
        other: Float[Tensor, "B D H W"],
        flow: AnyFlow,
        hidden: Float[Tensor, "B F _ _"],
    ) -> tuple[Flow, Float[Tensor, "B F H W"]]:
        """The flow at a level from that of the level before it; and what else was found there."""
        size = tuple(one.shape[2:])
        before = resize(precise(flow), size)
        hidden = hidden if tuple(hidden.shape[2:]) == size else F.interpolate(hidden, size, mode="bilinear")
        volume = F.leaky_relu(local(unit(one), warp(unit(other), before), self.radius), 0.1)
        told = torch.cat([volume, self.contexts[level](one), before, hidden], 1)
        hidden = self.stacks[level](told)
        return before + precise(self.lasts[level](hidden)), hidden


def unit(x: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D H W"]:
    """Features less their mean over the picture, of length sqrt(D) at each place: mean products are then cosines, and
    say how alike two places are beyond what all places share."""
    x = precise(x)
    return F.normalize(x - x.mean((2, 3), keepdim=True), dim=1) * x.shape[1] ** 0.5
