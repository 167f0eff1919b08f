"""Intervals from samples drawn with replacement. They say nothing of the spread over seeds."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from jepakit.seeds import generator

RESAMPLES, LEVEL = 1000, 0.95
"""Of the bootstrap, and the share of its outcomes that an interval holds."""
TOGETHER = 50
"""Resamples that are computed at once."""


def resampled(sums: Float[Tensor, "n K"], measure: Callable[[Tensor], Tensor]) -> Float[Tensor, "R *"]:
    """A measure of sums over samples, ``_ K`` to ``_ *``, of each resample; as many samples have the same draws."""
    count, rng, found = len(sums), generator("evaluate", "bootstrap"), []
    for _ in range(RESAMPLES // TOGETHER):
        drawn = torch.randint(count, (TOGETHER, count), generator=rng)
        weights = torch.zeros(TOGETHER, count, dtype=torch.float64)
        found.append(measure(weights.scatter_add_(1, drawn, torch.ones_like(drawn).double()) @ sums))
    return torch.cat(found)


def interval(sums: Float[Tensor, "n K"], measure: Callable[[Tensor], Tensor]) -> dict[str, float | None]:
    """The interval of a measure of sums over samples, ``_ K`` to ``_``."""
    return ends(resampled(sums, measure), len(sums))


def ends(values: Float[Tensor, "n"], count: int) -> dict[str, float | None]:
    """Between what resamples of ``count`` samples came to, without those that are not a number; of one sample there is
    no interval."""
    if count < 2:
        return {"low": None, "high": None}
    shares = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=values.dtype)
    low, high = torch.nanquantile(values, shares).tolist()
    return {"low": low, "high": high}
