"""Learning rate and weight decay: pure functions of the step, so that a resumed run needs no schedule's state.

Steps are counted from 0. The released I-JEPA code advances its schedules before the optimiser's step: the first step
runs at their second value, and so it does here.
"""

import math
from collections.abc import Callable, Sequence


def warmup_cosine(step: int, start: float, peak: float, final: float, warmup: int, total: int) -> float:
    """Linear from ``start`` to ``peak`` over ``warmup`` steps, then a cosine to ``final`` at step ``total``.

    Past ``total`` the cosine goes on and never falls below ``final`` (as released: a stretched schedule is cut off).
    """
    return _warmup(step, start, peak, final, warmup, total, _half_wave)


def warmup_linear(step: int, start: float, peak: float, final: float, warmup: int, total: int) -> float:
    """The same, but for a straight line in place of the cosine (V-JEPA 2's cooldown, which has no warm-up)."""
    return _warmup(step, start, peak, final, warmup, total, lambda progress: 1 - progress)


DECAYS: dict[str, Callable[..., float]] = {"cosine": warmup_cosine, "linear": warmup_linear}
"""A learning rate's schedules, by the shape of their second part."""


def _half_wave(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _warmup(
    step: int, start: float, peak: float, final: float, warmup: int, total: int, left: Callable[[float], float]
) -> float:
    now = step + 1
    if now < warmup:
        return start + now / max(1, warmup) * (peak - start)
    progress = (now - warmup) / max(1, total - warmup)
    return max(final, final + (peak - final) * left(progress))


def cosine(step: int, ends: Sequence[float], total: int) -> float:
    """A cosine from the first of ``ends`` to the second at step ``total``, and never beyond."""
    start, end = ends
    value = end + (start - end) * _half_wave((step + 1) / max(1, total))
    return max(end, value) if end <= start else min(end, value)
