"""What a mask names of the tokens that are marked: those of blocks, and some of many."""

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Generator, Tensor

from jepakit.marks import indices, shifted
from jepakit.types import Grid


def tokens(grid: Grid, size: tuple[int, int], first: Int[Tensor, "*S"]) -> Int[Tensor, "*S Q"]:
    """Indices of the tokens of each block, ascending."""
    return first[..., None] + torch.from_numpy(np.flatnonzero(shifted(grid, size)[0]))


def some(marks: Bool[ndarray, "B N"], count: int, rng: Generator) -> Int[Tensor, "B {count}"]:
    """Of ``count`` marks of each sample, which has as many at least, ascending: those with the highest draws."""
    draws = torch.rand(marks.shape, generator=rng, dtype=torch.float32)
    bits = draws.numpy().view(np.int32)  # numbers in the same order, which are sorted faster
    bits *= marks
    kept = bits >= np.partition(bits, -count, axis=1)[:, -count, None]
    if np.count_nonzero(kept) == count * len(kept):
        return indices(kept)
    draws.masked_fill_(torch.from_numpy(~marks), -1.0)  # two draws are equal, as in one of 100,000 samples
    return draws.topk(count, dim=1).indices.sort(1).values
