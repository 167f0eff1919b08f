"""From a token back to the pixels of its patch, by a small network trained on frozen features: a way to look at them.

It is no part of any method. One token has one answer, the mean of the patches that have such tokens; what a token does
not tell is blurred or grey. The paper's pictures (I-JEPA, Fig. 6) are drawn by a diffusion model instead, RCDM, which
makes up what is missing, and differently each time.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from jepakit.errors import ConfigError
from jepakit.seeds import generator, key
from jepakit.types import Grid

WIDTH, STEPS, BATCH, RATE = 256, 400, 256, 2e-3
"""Of the hidden layer; of its training by AdamW, whose rate falls to zero along a cosine."""


class Decoder(NamedTuple):
    """A network, the mean ``low`` and deviation ``scale`` of the tokens (``D``) that it reads, and the ``mean`` patch
    that it adds to (``P`` numbers)."""

    network: nn.Module
    low: Tensor
    scale: Tensor
    mean: Tensor

    def __call__(self, tokens: Float[Tensor, "*n D"]) -> Float[Tensor, "*n P"]:
        """Patches, values about 0 to 1, ``P`` numbers each."""
        with torch.no_grad():
            return self.network((tokens - self.low) / self.scale) + self.mean

    def explained(self, tokens: Float[Tensor, "*n D"], patches: Float[Tensor, "*n P"]) -> float:
        """The share of the patches' variance that is explained: 1 is all, 0 is what the mean patch would."""
        wrong = (self(tokens) - patches).square().mean()
        return float(1 - wrong / (patches - self.mean).square().mean().clamp_min(1e-12))


def fitted(tokens: Float[Tensor, "n D"], patches: Float[Tensor, "n P"]) -> Decoder:
    """A decoder trained on pairs of tokens and patches, always the same one. Global random state is left alone."""
    low, scale, mean = tokens.mean(0), tokens.std(0, correction=0).clamp_min(1e-6), patches.mean(0)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(key("decoder", "init"))
        network = nn.Sequential(nn.Linear(tokens.shape[1], WIDTH), nn.GELU(), nn.Linear(WIDTH, patches.shape[1]))
        optimizer = torch.optim.AdamW(network.parameters(), RATE)
        x, y, rng = (tokens - low) / scale, patches - mean, generator("decoder", "order")
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
            picks = torch.randint(len(x), (BATCH,), generator=rng)
            loss = (network(x[picks]) - y[picks]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Decoder(network.requires_grad_(False), low, scale, mean)


def patches(pictures: UInt8[Tensor, "B C T H W"], grid: Grid) -> Float[Tensor, "B N P"]:
    """The pixels of every token, values 0 to 1. Raises ConfigError for a grid that they cannot be cut into evenly."""
    shape = pictures.shape[2:]
    if any(length % cells for length, cells in zip(shape, grid, strict=True)):
        raise ConfigError(f"clips of {tuple(shape)} cannot be cut into {tuple(grid)} patches of one size")
    t, h, w = (length // cells for length, cells in zip(shape, grid, strict=True))
    cut = pictures.unflatten(4, (grid.w, w)).unflatten(3, (grid.h, h)).unflatten(2, (grid.t, t))
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3).float() / 255


def joined(patches: Float[Tensor, "N P"], grid: Grid, shape: tuple[int, ...]) -> Float[Tensor, "C T H W"]:
    """The clip of ``shape``, ``C T H W``, that is made of these patches."""
    channels, *clip = shape
    t, h, w = (length // cells for length, cells in zip(clip, grid, strict=True))
    cut = patches.reshape(*grid, channels, t, h, w)
    return cut.permute(3, 0, 4, 1, 5, 2, 6).reshape(shape)
