"""What a mask names of the tokens that are marked: some of many, all others, and those of every frame."""

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int
from numpy import ndarray
from torch import Tensor

from jepakit.marks import indices
from jepakit.types import Grid


def others(index: Int[Tensor, "B K"], size: int) -> Int[Tensor, "B Q"]:
    """All of ``size`` tokens that are not named, ascending."""
    return indices(torch.ones(len(index), size, dtype=torch.bool).scatter_(1, index, False).numpy())


def lowest(marks: Bool[ndarray, "B N"], count: int, draws: Float32[Tensor, "B N"]) -> Int[Tensor, "B {count}"]:
    """Of ``count`` marks of each sample, which has as many at least, ascending: those with the lowest draws."""
    bits = (draws.numpy() + ~marks).view(np.int32)  # numbers in the same order, which are sorted faster
    kept = bits <= np.partition(bits, count - 1, axis=1)[:, count - 1, None]
    if np.count_nonzero(kept) == count * len(kept):
        return indices(kept)
    return foremost(marks, count, draws.argsort(1))  # two draws are equal, as in one of 100,000 samples


def foremost(marks: Bool[ndarray, "B N"], count: int, order: Int[Tensor, "B N"]) -> Int[Tensor, "B {count}"]:
    """Of the first ``count`` marks of each sample in an order of its own, ascending."""
    ordered = torch.from_numpy(marks).gather(1, order)
    kept = torch.zeros_like(ordered).scatter_(1, order, ordered & (ordered.cumsum(1) <= count))
    return indices(kept.numpy())


def through(index: Int[Tensor, "B P"], part: Grid, grid: Grid) -> Int[Tensor, "B K"]:
    """Indices on a grid, ascending, from those on a part of it that is repeated in time: a frame, or all of it."""
    if part == grid:
        return index
    return (index[:, None] + torch.arange(0, grid.size, part.size)[:, None]).flatten(1)
