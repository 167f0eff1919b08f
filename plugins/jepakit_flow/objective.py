"""What a pair of flows, there and back, is held to: named losses, each with its weight."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jepakit_flow import losses
from jepakit_flow.geometry import AnyFlow, Flow, consistent, resize, warp
from jepakit_flow.losses import PerPixel, Picture

DIFFERENCES: dict[str, Callable[[Picture, Picture], PerPixel]] = {
    "l1": losses.l1,
    "l2": losses.l2,
    "ssim": losses.ssim,
    "census": losses.census,
}
"""How a picture may differ from the other one warped onto it."""
SMALLEST = 8
"""Shortest side of pictures that are compared, in pixels: smaller ones show nothing that could be told apart."""


class Objective:
    """Losses of the flows between two pictures, both ways: each level's on pictures of its size, the last one's on the
    pictures themselves. What is taken for occluded does not count, unless that were most of a picture: then the flow is
    wrong, not hidden.

    Args:
        weights: of ``l1``, ``l2``, ``ssim``, ``census``, ``smooth`` and ``cycle``; without weight they are not there.
        edge: how fast smoothness is given up where pictures (0..1) have contrast.
        order: of the differences that smoothness forbids.
        decay: what a level weighs over the next finer one.
        occlusion: whether pictures are not compared where they are taken for occluded; ``cycle`` never holds there.
    """

    def __init__(self, weights: Mapping[str, float], edge: float, order: int, decay: float, occlusion: bool = True):
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.edge, self.order, self.decay, self.occlusion = edge, order, decay, occlusion

    def __call__(
        self, forward: Sequence[AnyFlow], backward: Sequence[AnyFlow], first: Picture, second: Picture
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses by name, means over both ways."""
        here, there = torch.cat([first, second]), torch.cat([second, first])
        flows = [torch.cat(pair) for pair in zip(forward, backward, strict=True)]
        last = resize(flows[-1], tuple(first.shape[2:]))
        back = torch.cat([last[len(first) :], last[: len(first)]])
        mask = visible(last, back)
        counts = mask if self.occlusion else torch.ones_like(mask)
        terms, total = [], 0.0
        for age, flow in enumerate([last, *reversed(flows[:-1])]):
            size = tuple(flow.shape[2:])
            if age and min(size) < SMALLEST:
                continue
            found = self.level(
                flow, *(shrunk(each, size) for each in (here, there)), shrunk(counts[:, None], size)[:, 0]
            )
            terms.append({name: self.decay**age * loss for name, loss in found.items()})
            total += self.decay**age
        joined = {name: torch.stack([term[name] for term in terms]).sum() / total for name in terms[0]}
        if "cycle" in self.weights:
            joined["cycle"] = losses.cycle(last, back, mask)
        return {name: self.weights[name] * loss for name, loss in joined.items()}

    def level(self, flow: Flow, here: Picture, there: Picture, mask: PerPixel) -> dict[str, Float[Tensor, ""]]:
        """The losses of one flow on pictures of its size."""
        moved = warp(there, flow)
        found = {
            name: losses.average(differ(here, moved), mask)
            for name, differ in DIFFERENCES.items()
            if name in self.weights
        }
        if "smooth" in self.weights:
            found["smooth"] = losses.smoothness(flow, here, self.edge, self.order)
        return found


def visible(forward: Flow, backward: Flow) -> PerPixel:
    """Which pixels count, as ones and zeros: those where both ways agree; all where they do on less than half."""
    mask = consistent(forward, backward).to(forward.dtype)
    return torch.where(mask.mean((1, 2), keepdim=True) < 0.5, 1.0, mask)


def shrunk(picture: Picture, size: tuple[int, int]) -> Float[Tensor, "B C _ _"]:
    """A picture at a level's size, each pixel the mean of what it covers."""
    return picture if tuple(picture.shape[2:]) == size else F.interpolate(picture, size, mode="area")
