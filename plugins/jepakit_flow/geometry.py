"""Flows in pixels: warping by them, resizing them, and where two of them contradict each other.

A flow ``B 2 H W`` says for each pixel of one picture how far to the right and how far down it lies in the other.
"""

import torch
from jaxtyping import Bool, Float
from kornia.geometry.transform import remap
from torch import Tensor
from torch.nn import functional as F

Flow = Float[Tensor, "B 2 H W"]
AnyFlow = Float[Tensor, "B 2 _ _"]
"""One of several that differ in size."""


def precise(x: Tensor) -> Tensor:
    """At least single precision: positions of a large picture are not told apart by half of it."""
    return x.float() if x.dtype.itemsize < 4 else x


def positions(flow: Flow) -> Float[Tensor, "B 2 H W"]:
    """Where each pixel goes: columns, then rows; the middle of the first pixel is 0."""
    h, w = flow.shape[2:]
    rows, columns = (torch.arange(size, dtype=flow.dtype, device=flow.device) for size in (h, w))
    return flow + torch.stack([columns.expand(h, w), rows[:, None].expand(h, w)])


def sample(x: Float[Tensor, "B D H W"], at: Float[Tensor, "B 2 h w"]) -> Float[Tensor, "B D h w"]:
    """Bilinear values at columns and rows of ``x``; outside of it those of its border."""
    return remap(precise(x), at[:, 0], at[:, 1], padding_mode="border", align_corners=True)


def warp(x: Float[Tensor, "B D H W"], flow: Flow) -> Float[Tensor, "B D H W"]:
    """Backward warping: at each pixel what ``x`` holds where the flow of that pixel points."""
    return sample(x, positions(precise(flow)))


def inside(flow: Flow) -> Bool[Tensor, "B H W"]:
    """Which pixels do not leave the picture."""
    at, (h, w) = positions(flow), flow.shape[2:]
    return (at[:, 0] >= 0) & (at[:, 0] <= w - 1) & (at[:, 1] >= 0) & (at[:, 1] <= h - 1)


def resize(flow: Flow, size: tuple[int, int]) -> Float[Tensor, "B 2 h w"]:
    """The flow of the same pictures at another size: places and lengths change alike."""
    h, w = flow.shape[2:]
    if (h, w) == size:
        return flow
    scale = flow.new_tensor([size[1] / w, size[0] / h]).view(1, 2, 1, 1)
    smaller = size[0] < h or size[1] < w
    return scale * F.interpolate(flow, size, mode="bilinear", align_corners=False, antialias=smaller)


def consistent(forward: Flow, backward: Flow, share: float = 0.01, slack: float = 0.5) -> Bool[Tensor, "B H W"]:
    """Which pixels of the first picture are seen in the second too: going there and back leads home.

    A pixel that leaves the picture, or whose way back differs from its way there by more than ``share`` of both squared
    lengths and ``slack`` squared pixels, is taken for occluded (UnFlow, section 3.2). Without gradients.
    """
    forward, backward = precise(forward.detach()), precise(backward.detach())
    back = warp(backward, forward)
    gap = (forward + back).square().sum(1)
    bound = share * (forward.square() + back.square()).sum(1) + slack
    return (gap < bound) & inside(forward)
