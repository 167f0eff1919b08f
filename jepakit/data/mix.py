"""Several roots as one data set, and how often each of them has its turn.

The samples of the roots follow one another. Classes of the same name are one class (numbers in lists are names too);
where a root has no labels, none of them has. Without weights an epoch is a permutation of all samples. With weights:

* An epoch has as many draws as there are samples (less those that fill no batch). Each root has its share of them, by
  its weight and to the nearest draw that makes them all (largest remainder), and the draws are shuffled.
* A root is gone through pass by pass, each another permutation, and the next epoch goes on where this one stopped: no
  sample comes again before all of its root have been seen. Views and clips are drawn anew in each pass.

The released code draws each sample by itself and with replacement (src/datasets/utils/weighted_sampler.py).
"""

import math
import os
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from jepakit import seeds
from jepakit.errors import ConfigError, DataError


class Found(NamedTuple):
    """What lies in one root, or in several: paths below ``root``, names of classes, the class of each path (none where
    there are no names), how many other files of each kind, and the samples of each root."""

    root: str
    paths: list[str]
    names: tuple[str, ...]
    labels: Int[np.ndarray, "n"]
    others: Counter[str]
    parts: tuple[int, ...]


class Mix(NamedTuple):
    """The samples of each part of a source, and the weights of the parts (None: every sample once an epoch)."""

    parts: tuple[int, ...]
    weights: tuple[float, ...] | None = None

    @classmethod
    def of(cls, source: Any) -> "Mix":
        """What a source says of itself in ``parts`` and ``weights``; one part where it says nothing."""
        return cls(tuple(getattr(source, "parts", (len(source),))), getattr(source, "weights", None))

    def part(self, index: int) -> tuple[int, range]:
        """The number of the part that sample ``index`` belongs to, and its samples."""
        ends = list(accumulate(self.parts))
        number = int(np.searchsorted(ends, index, side="right"))
        return number, range(ends[number] - self.parts[number], ends[number])

    def shares(self, count: int) -> list[int]:
        """How many of ``count`` draws each part has: their sum is ``count``, each within one of its exact share.

        Raises DataError for a weight so small that its part would have none.
        """
        assert self.weights is not None
        exact = [count * weight / math.fsum(self.weights) for weight in self.weights]
        left = count - sum(map(math.floor, exact))
        first = sorted(range(len(exact)), key=lambda part: math.floor(exact[part]) - exact[part])[:left]
        found = [math.floor(share) + (part in first) for part, share in enumerate(exact)]
        if 0 in found:
            small = self.weights[found.index(0)]
            raise DataError(
                f"data.weights={list(self.weights)}: {small:g} is less than one of {count:,} draws an epoch"
            )
        return found

    def order(self, count: int, seed: int, epoch: int) -> Int[Tensor, "n 2"]:
        """The draws of an epoch as (pass, sample), at least ``count``: which of its passes a sample is drawn for."""
        if self.weights is None:
            samples = permutation(sum(self.parts), seed, "order", epoch)
            return torch.stack([torch.full_like(samples, epoch), samples], 1)
        shares = self.shares(count)
        drawn = [self._draws(part, epoch * share, share, seed) for part, share in enumerate(shares)]
        return torch.cat(drawn)[permutation(count, seed, "mix", epoch)]

    def _draws(self, part: int, start: int, count: int, seed: int) -> Int[Tensor, "n 2"]:
        """Draws ``start`` to ``start + count - 1`` of a part, counted from the beginning of training."""
        size, first = self.parts[part], sum(self.parts[:part])
        passes = range(start // size, (start + count - 1) // size + 1)
        samples = torch.cat([permutation(size, seed, "order", part, number) for number in passes]) + first
        numbered = torch.stack([torch.arange(passes.start, passes.stop).repeat_interleave(size), samples], 1)
        return numbered[start % size :][:count]


def permutation(n: int, *key: int | str) -> Int[Tensor, "n"]:
    """The numbers below ``n`` in an order that depends on the key alone."""
    return torch.randperm(n, generator=seeds.generator(*key))


def roots(root: str | list[str], weights: list[float] | None) -> tuple[list[str], tuple[float, ...] | None]:
    """The roots, one or several, and their weights: none for one root alone, which is all there is whatever they say.

    Raises ConfigError for no root, and for weights that are not above 0 or not one for each root.
    """
    several = list(root) if isinstance(root, (list, tuple)) else [root]
    if not several:
        raise ConfigError("data.root=[] is empty: give the path of a folder, or several, data.root=[A,B]")
    for weight in weights or ():
        if not 0 < weight < math.inf:
            raise ConfigError(f"data.weights={list(weights or ())}: {weight:g} is out of range, it has to be above 0")
    if weights is None or len(several) == 1:
        return several, None
    if len(weights) != len(several):
        raise ConfigError(
            f"data.weights={list(weights)} has {len(weights)} numbers, data.root has {len(several)} roots"
        )
    return several, tuple(weights)


def join(found: Sequence[Found]) -> Found:
    """Several roots as one: see the top of this file."""
    if len(found) == 1:
        return found[0]
    paths = [os.path.join(os.path.abspath(each.root), path) for each in found for path in each.paths]
    names, labels = _labels(found)
    others = sum((each.others for each in found), Counter())
    above = os.path.commonpath([os.path.abspath(each.root) for each in found])
    return Found(above, paths, names, labels, others, tuple(len(each.paths) for each in found))


def describe(given: Sequence[str], parts: Sequence[int], weights: Sequence[float] | None) -> str:
    """The samples and weights of several roots, as the end of a line; of one alone, whether weights were given it."""
    if len(parts) == 1:
        return "; one root: data.weights is not used" if weights else ""
    shares = [f", weight {weight:g}" for weight in weights] if weights else [""] * len(parts)
    each = [f"{root} ({size:,}{share})" for root, size, share in zip(given, parts, shares, strict=True)]
    return f"; {len(parts)} roots: {', '.join(each)}"


def _labels(found: Sequence[Found]) -> tuple[tuple[str, ...], Int[np.ndarray, "n"]]:
    if not all(each.names for each in found):
        return (), np.zeros(0, np.int32)
    names = found[0].names
    if any(set(each.names) != set(names) for each in found):
        names = tuple(sorted({name for each in found for name in each.names}, key=number_or_name))
    number = {name: i for i, name in enumerate(names)}
    return names, np.concatenate([np.array([number[n] for n in each.names], np.int32)[each.labels] for each in found])


def number_or_name(name: str) -> tuple[bool, int, str]:
    """A key that sorts numbers as numbers, before names."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)
