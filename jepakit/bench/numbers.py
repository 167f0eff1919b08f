"""What many measurements say: medians, quartiles, ratios with an interval. Nothing here is assumed to be normal."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

LEVEL = 0.95
"""Least confidence of an interval, where there are measurements enough for it."""


class Spread(NamedTuple):
    """The middle of measurements, and the two quartiles that half of them lie between."""

    median: float
    low: float
    high: float


class Interval(NamedTuple):
    """The median of measurements, and where with ``confidence`` that of all that could be made lies."""

    median: float
    low: float
    high: float
    confidence: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    ordered = sorted(values)
    return Spread(median(ordered), _quantile(ordered, 0.25), _quantile(ordered, 0.75))


def interval(values: Sequence[float]) -> Interval:
    """The median and its interval between two of the values, the narrowest with ``LEVEL`` of confidence.

    Order statistics: how many of n values lie below the true median is binomial with one half, however they are
    distributed. Fewer than six values cannot reach the level; what they do reach is said.
    """
    ordered, count = sorted(values), len(values)
    below = [math.comb(count, k) / 2**count for k in range(count // 2 + 1)]
    cut = max((k for k in range((count + 1) // 2) if 1 - 2 * sum(below[: k + 1]) >= LEVEL), default=0)
    confidence = max(0.0, 1 - 2 * sum(below[: cut + 1]))
    return Interval(median(ordered), ordered[cut], ordered[count - 1 - cut], confidence)


def parts(steps: Sequence[Mapping[str, float]], order: Sequence[str]) -> dict[str, tuple[Spread, float]]:
    """Of each part of some steps its seconds and its share of all time, those of ``order`` first.

    A part that a step lacks took no time there.
    """
    names = [name for name in order if any(name in step for step in steps)]
    names += sorted({name for step in steps for name in step} - set(names))
    whole = sum(sum(step.values()) for step in steps)
    each = {name: [step.get(name, 0.0) for step in steps] for name in names}
    return {name: (spread(values), sum(values) / whole) for name, values in each.items()}


def growth(points: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """How time grows from each point to the next one: the exponent, 1 where twice as much takes twice as long. None for
    the first, and where nothing changes."""
    found: list[float | None] = [None]
    for one, other in zip(points, points[1:], strict=False):
        further = math.log(other["at"] / one["at"]) if min(one["at"], other["at"]) > 0 else 0.0
        longer = math.log(other["seconds"]["median"] / one["seconds"]["median"])
        found.append(longer / further if further else None)
    return found


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
