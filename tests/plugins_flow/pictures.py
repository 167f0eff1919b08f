"""Textures that are known everywhere, so that a picture of them can be moved exactly."""

import math

import torch
from torch import Tensor

from jepakit.seeds import generator


def texture(number: int, x: Tensor, y: Tensor, waves: int = 6) -> Tensor:
    """``3 H W`` in 0..1: a sum of waves, at any place in pixels."""
    angle, pace, phase = torch.rand(3, 3, waves, 1, 1, generator=generator("texture", number), dtype=torch.float64)
    pace = 0.2 + 0.6 * pace
    along = torch.cos(math.tau * angle) * x + torch.sin(math.tau * angle) * y
    return torch.sin(pace * along + math.tau * phase).mean(1).mul(0.8).add(0.5).clamp(0, 1).float()


def moved(number: int, h: int, w: int, shift: tuple[float, float], turn: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Two pictures ``3 H W`` and the flow ``2 H W``: the texture turns around the middle by an angle, then shifts."""
    y, x = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in (h, w)), indexing="ij")
    x, y = x - (w - 1) / 2, y - (h - 1) / 2
    cos, sin = math.cos(turn), math.sin(turn)
    flow = torch.stack([cos * x - sin * y + shift[0] - x, sin * x + cos * y + shift[1] - y])
    u, v = x - shift[0], y - shift[1]
    return texture(number, x, y), texture(number, cos * u + sin * v, -sin * u + cos * v), flow.float()
