"""What a flow says about two frames, as images: its colours, what is hidden, one frame moved to the other."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.utils import flow_to_image

from jepakit.data.flow import Truth

CLOSED = (0.01, 0.5)
"""Forward and backward flow close where the square of their sum is no more than this share of their squares, and so
many square pixels (Sundaram et al. 2010, as Meister et al. 2018 use it)."""

LEAST = 0.1
"""Pixels from which on a motion has colours of its own: the rim of the wheel is never slower."""

SLOWER = 0.98
"""Share of the pixels that are drawn as they are: the few that are faster would make all others pale."""

UNKNOWN = 0.2
"""Grey level where the true flow is not known."""


def rim(flow: Float[Tensor, "2 H W"], truth: Truth | None) -> float:
    """The speed that is drawn in full colours: ``SLOWER`` of the pixels keep below it, truly if that is known."""
    speeds = flow.norm(dim=0) if truth is None or not truth.known.any() else truth.flow.norm(dim=0)[truth.known]
    return max(float(np.quantile(speeds.numpy(), SLOWER)), LEAST)


def colours(flow: Float[Tensor, "2 H W"], most: float) -> Float[np.ndarray, "H W 3"]:
    """Direction as hue, speed as saturation (the wheel of Baker et al. 2011), which is full at the speed ``most``."""
    length = flow.norm(dim=0, keepdim=True)
    within = flow / length.clamp_min(most)
    edge = torch.zeros_like(within[:, :1])  # one vector of full length, since torchvision scales by the greatest
    edge[0] = 1
    image = flow_to_image(torch.cat([within, edge], 1).float())[:, :-1]
    return image.permute(1, 2, 0).numpy() / 255


def wheel(side: int) -> Float[np.ndarray, "S S 4"]:
    """The legend: every vector up to the rim, at the place where it points; transparent outside."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    flow = torch.stack([axis.expand(side, -1), axis[:, None].expand(-1, side)])
    inside = flow.norm(dim=0, keepdim=True) <= 1
    return np.concatenate([colours(flow, 1.0), inside[0, ..., None].numpy().astype(float)], -1)


def painted(truth: Truth, most: float) -> Float[np.ndarray, "H W 3"]:
    """The true flow, dark where it is not known."""
    return np.where(truth.known[..., None].numpy(), colours(truth.flow, most), UNKNOWN)


def follow(
    image: Float[Tensor, "C H W"], flow: Float[Tensor, "2 H W"]
) -> tuple[Float[Tensor, "C H W"], Bool[Tensor, "H W"]]:
    """What ``image`` shows at the ends of the ways that start at each pixel, and which ends lie inside of it."""
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ends = torch.stack([x + flow[0], y + flow[1]], -1)
    last = torch.tensor([width - 1, height - 1])
    inside = ((ends >= 0) & (ends <= last)).all(-1)
    places = (2 * ends + 1) / (last + 1) - 1
    return grid_sample(image[None], places[None].float(), padding_mode="border", align_corners=False)[0], inside


def hidden(flow: Float[Tensor, "2 H W"], back: Float[Tensor, "2 H W"]) -> Bool[Tensor, "H W"]:
    """What leaves the picture or is covered, by a flow and the one back: where there and back is not where it began."""
    returned, inside = follow(back, flow)
    share, least = CLOSED
    squares = flow.square().sum(0) + returned.square().sum(0)
    return ~inside | ((flow + returned).square().sum(0) > share * squares + least)


def error(flow: Float[Tensor, "2 H W"], truth: Truth) -> Float[np.ndarray, "H W"]:
    """End-point errors in pixels, not a number where the truth is not known."""
    found = (flow - truth.flow).norm(dim=0)
    return torch.where(truth.known, found, math.nan).numpy()
