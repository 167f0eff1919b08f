"""What a flow without ground truth is trained by. Maps ``B H W`` are of each pixel; masks say which of them count."""

import torch
from jaxtyping import Float
from kornia.color import rgb_to_grayscale
from kornia.metrics import ssim as similarity
from torch import Tensor
from torch.nn import functional as F

from jepakit_flow.geometry import Flow, warp

Picture = Float[Tensor, "B C H W"]
PerPixel = Float[Tensor, "B H W"]

EPS = 1e-3
"""Below this an absolute value is taken for a square (Charbonnier), so that it has a gradient everywhere."""
WINDOW = 7
"""Side of the neighbourhoods that are compared, in pixels."""
CENSUS_SLACK, CENSUS_HALF = 0.9, 0.1
"""Of the soft census transform: a difference of brightness (of 255) that is neither none nor full, and the squared
distance of two of them that counts half (UnFlow's released code)."""


def absolute(x: Tensor) -> Tensor:
    """A smooth absolute value."""
    return (x.square() + EPS**2).sqrt()


def average(x: PerPixel, mask: PerPixel) -> Float[Tensor, ""]:
    """The mean over what counts; where next to nothing does, little rather than nothing over nothing."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def l1(one: Picture, other: Picture) -> PerPixel:
    """Absolute differences, mean over the channels."""
    return absolute(one - other).mean(1)


def l2(one: Picture, other: Picture) -> PerPixel:
    """Squared differences, mean over the channels."""
    return (one - other).square().mean(1)


def ssim(one: Picture, other: Picture) -> PerPixel:
    """Half of what structural similarity lacks of one, mean over the channels; pictures in 0..1."""
    if one.is_meta:  # kornia asks for an autocast, and without content there is none
        return l1(one, other)
    return (1 - similarity(one, other, WINDOW)).clamp(0, 2).mean(1) / 2


def census(one: Picture, other: Picture) -> PerPixel:
    """Soft Hamming distance of two census transforms, share of the neighbours that differ (UnFlow, section 3.2;
    arXiv 1711.07837): whether a neighbour is brighter outlives a change of light."""
    gap = (transform(one) - transform(other)).square()
    return (gap / (CENSUS_HALF + gap)).mean(1)


def transform(x: Picture) -> Float[Tensor, "B K H W"]:
    """By how much each neighbour in the window is brighter, softly cut to -1..1."""
    grey = 255 * (rgb_to_grayscale(x) if x.shape[1] == 3 else x.mean(1, keepdim=True))
    h, w = grey.shape[2:]
    around = F.unfold(F.pad(grey, [WINDOW // 2] * 4, mode="replicate"), WINDOW).unflatten(2, (h, w))
    gap = around - grey
    return gap / (CENSUS_SLACK**2 + gap.square()).sqrt()


def smoothness(flow: Flow, picture: Picture, edge: float, order: int = 1) -> Float[Tensor, ""]:
    """How much a flow changes (``order`` 1) or bends (2) from pixel to pixel, but for where the picture has an edge:
    there ``exp(-edge * contrast)`` as much counts."""
    total = flow.new_zeros(())
    for dim in (2, 3):
        if flow.shape[dim] <= order:
            continue
        bend, contrast = torch.diff(flow, order, dim), torch.diff(picture, 1, dim).abs().mean(1, keepdim=True)
        if order == 2:
            count = contrast.shape[dim] - 1
            contrast = torch.maximum(contrast.narrow(dim, 0, count), contrast.narrow(dim, 1, count))
        total = total + (torch.exp(-edge * contrast) * absolute(bend)).mean() / 2
    return total


def cycle(forward: Flow, backward: Flow, mask: PerPixel) -> Float[Tensor, ""]:
    """How far from home one is after going there and back, in pixels, mean over what counts and both directions."""
    return average(absolute(forward + warp(backward, forward)).mean(1), mask)
