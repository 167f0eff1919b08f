"""Labels of generated samples: all combinations equally often, and each computed from the sample's index alone."""

import itertools
import math

from jepakit import seeds


def spread(index: int, sizes: tuple[int, ...], *key: int | str) -> list[int]:
    """A digit below each of ``sizes``: all combinations once in every run of as many indices, in no order.

    Every n-th sample is then as balanced as all of them, whatever n.
    """
    digits = []
    for size in sizes:
        index, digit = divmod(index, size)
        digits.append((digit + seeds.key(*key, size, index)) % size)
    return digits


def stir(index: int, cycle: int) -> int:
    """The index to ``spread`` in place of ``index``, so that neighbours differ in all digits, not just in the first.

    Every run of ``cycle`` indices is gone through once, in steps of the golden section.
    """
    step = next(n for n in itertools.count(int(cycle * (math.sqrt(5) - 1) / 2)) if math.gcd(n, cycle) == 1)
    run, at = divmod(index, cycle)
    return run * cycle + at * step % cycle
