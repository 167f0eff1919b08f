"""The test of Epps and Pulley along random directions."""

import torch
from jaxtyping import Float
from torch import Tensor

from jepakit.statistics import average, everyone, gathers


def directions(width: int, slices: int, rng: torch.Generator) -> Float[Tensor, "D S"]:
    """Unit vectors, uniform on the sphere; drawn on the CPU, so that they are the same on every device."""
    drawn = torch.randn(width, slices, generator=rng)
    return drawn / drawn.norm(dim=0)


def characteristic(
    x: Float[Tensor, "N P S"], knots: Float[Tensor, "T"]
) -> tuple[int, Float[Tensor, "P S T"], Float[Tensor, "P S T"]]:
    """The number of samples everywhere, and the real and the imaginary part of their characteristic function at the
    knots. Samples are gathered where they are fewer than the knots of both parts, whose values are summed otherwise."""
    if gathers(x, 2 * len(knots) * x[0].numel()):
        turned = everyone(x).unsqueeze(-1) * knots
        return len(turned), turned.cos().mean(0), turned.sin().mean(0)
    turned = x.unsqueeze(-1) * knots
    count, real = average(turned.cos())
    return count, real, average(turned.sin())[1]


def epps_pulley(x: Float[Tensor, "N P S"], knots: int = 17, reach: float = 3.0) -> Float[Tensor, "P S"]:
    """How far the samples along each slice are from a standard normal distribution.

    N times the integral over t of the squared distance between the characteristic function of the samples and that of
    the distribution, weighted by exp(-t^2 / 2), by the trapezoid rule from ``-reach`` to ``reach``: the integrand is
    even, so that ``knots`` from zero on are enough (LeJEPA, section 4; the released code).
    """
    t = torch.linspace(0, reach, knots, device=x.device, dtype=x.dtype)
    normal = (-t.square() / 2).exp()
    count, real, imaginary = characteristic(x, t)
    apart = (real - normal).square() + imaginary.square()
    return 2 * count * torch.trapezoid(apart * normal, dx=reach / (knots - 1), dim=-1)
