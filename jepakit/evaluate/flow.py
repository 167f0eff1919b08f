"""How far an estimated flow is from the true one, as the benchmarks of optical flow count it.

Every measure is a mean over the known pixels of all pairs together: each pixel counts alike, not each pair, as in the
benchmarks of Sintel (Butler et al. 2012) and KITTI (Menze and Geiger 2015).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from jepakit.data.flow import Truth
from jepakit.errors import DataError
from jepakit.evaluate.bootstrap import LEVEL, RESAMPLES, ends, resampled

EPE, OUTLIERS = "EPE", "Fl-all"
"""End-point error: the distance from the estimated end of a pixel's way to its true one. And the share of outliers."""

OUTLIER = {"pixels": 3.0, "share": 0.05}
"""KITTI's outlier is off by more than so many pixels and by more than this share of the true way."""

FACTS = {
    **{"measure": EPE, "unit": "px", "better": "lower", "mean": "over the known pixels of all pairs"},
    **{"outlier": OUTLIER, "interval": {"bootstrap": "over pairs", "resamples": RESAMPLES, "level": LEVEL}},
}
"""What the protocol's file does not leave open."""


class Sum(NamedTuple):
    """What a measure adds up to over one pair, and over how many of its pixels."""

    total: float
    pixels: int


class Tally(NamedTuple):
    """The same of n pairs for K measures."""

    names: tuple[str, ...]
    totals: Float[Tensor, "n K"]
    pixels: Float[Tensor, "n K"]


def measure(flow: Float[Tensor, "2 H W"], truth: Truth, speeds: Sequence[float]) -> dict[str, Sum]:
    """One pair under every measure that its truth allows, in pixels; of outliers the number.

    The names are ``EPE``, the same of pixels that are ``non-occluded`` and ``occluded`` where the data say which are,
    those of each range of true ``speeds`` (``s0-10``: from 0 to below 10), and ``Fl-all``.
    """
    error = (flow.double() - truth.flow.double()).norm(dim=0)
    speed = truth.flow.double().norm(dim=0)
    parts = {EPE: truth.known}
    if truth.occluded is not None:
        parts |= {"non-occluded": truth.known & ~truth.occluded, "occluded": truth.known & truth.occluded}
    for low, high in zip((0.0, *speeds), (*speeds, float("inf")), strict=True):
        name = f"s{low:g}+" if high == float("inf") else f"s{low:g}-{high:g}"
        parts[name] = truth.known & (speed >= low) & (speed < high)
    found = {name: Sum(float(error[part].sum()), int(part.sum())) for name, part in parts.items()}
    wrong = (error > OUTLIER["pixels"]) & (error > OUTLIER["share"] * speed) & truth.known
    return found | {OUTLIERS: Sum(float(wrong.sum()), int(truth.known.sum()))}


def tally(pairs: Sequence[Mapping[str, Sum]]) -> Tally:
    """What was measured of each pair; a measure that a pair does not have is of none of its pixels."""
    names = [name for name in dict.fromkeys(name for pair in pairs for name in pair) if name != OUTLIERS]
    names = tuple(name for name in (*names, OUTLIERS) if any(name in pair and pair[name].pixels for pair in pairs))
    if not names:
        raise DataError(f"the true flow of {len(pairs)} pairs is known at none of their pixels: no score")
    rows = torch.tensor([[pair.get(name, Sum(0.0, 0)) for name in names] for pair in pairs], dtype=torch.float64)
    return Tally(names, rows[..., 0], rows[..., 1])


def score(own: Tally, best: Tally | None = None) -> dict[str, Any]:
    """The end-point error with its interval, the pairs and pixels behind it, and every measure with its own.

    ``ahead`` is the interval of how much smaller the end-point error of ``best`` is, on the same pairs: the same pairs
    are hard for everyone, so that it tells more than two intervals side by side. Of one pair there are no intervals.
    """
    means = own.totals.sum(0) / own.pixels.sum(0)
    drawn = _resampled(own)
    cells = {
        name: {
            "score": means[k].item(),
            **ends(drawn[:, k], len(own.totals)),
            "pixels": int(own.pixels[:, k].sum()),
        }
        for k, name in enumerate(own.names)
    }
    whole = cells[EPE] | {"pairs": len(own.totals), "measures": cells}
    if best is not None:
        whole["ahead"] = ends((drawn - _resampled(best))[:, own.names.index(EPE)], len(own.totals))
    return whole


def _resampled(own: Tally) -> Float[Tensor, "R K"]:
    """Every measure over pairs drawn with replacement; not a number where no pixel was drawn."""
    size = len(own.names)
    return resampled(torch.cat([own.totals, own.pixels], 1), lambda sums: sums[:, :size] / sums[:, size:])
