"""Rounds of steps, side by side."""

from collections.abc import Sequence

from jepakit.bench.sides import Side

WARM = 2
"""Steps that come before all others: what is made at the first use is made then."""


def measure(sides: Sequence[Side], steps: int, repeats: int) -> None:
    """Rounds of ``steps`` steps, each side in turn, ``repeats`` times: what slows the machine down meets all alike."""
    for side in sides:
        side.take(WARM + side.settle)
    for _ in range(repeats):
        for side in sides:
            side.turn(steps, side.settle if len(sides) > 1 else 0)
