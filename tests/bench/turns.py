"""Two ways to do the same, timed in turns."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Ratio(NamedTuple):
    """Of pairs that were timed one after the other."""

    median: float
    least: float
    most: float


def seconds(call: Callable[[], Any], span: float = 0.0) -> float:
    """CPU time of the process, so that others who use the machine do not count: of one call, or the mean over as many
    as ``span`` seconds have room for."""
    begun, calls = time.process_time(), 0
    while (spent := time.process_time() - begun) < span or not calls:
        call()
        calls += 1
    return spent / calls


def ratio(ones: Sequence[float], others: Sequence[float]) -> Ratio:
    """How many times as long the first ones took, pair by pair."""
    found = sorted(one / other for one, other in zip(ones, others, strict=True))
    return Ratio(statistics.median(found), found[0], found[-1])
