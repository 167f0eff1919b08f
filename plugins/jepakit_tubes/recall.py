"""What V-JEPA 2.1 asks for beside what is hidden: what is seen.

A loss on hidden tokens alone leaves features of seen ones free to hold anything, and they get noisy. So the predictor
answers for the context as well, with a weight that grows from nothing, and that is less the farther a token lies from
what is hidden. Source: arXiv 2603.14482 and its released code, ``predict_all`` and ``weight_distance_loss``.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from jepakit.types import Grid, Mask


@dataclass(frozen=True)
class Recall:
    """Adds the context to what a mask asks for.

    Args:
        share: weight of the mean error over the context, beside the mean error over the target.
        steps: first and last step of a straight line from none of that weight to all of it.
        by_distance: the error of a token is divided by the root of its distance from the nearest target token.

    Raises:
        ValueError: for a weight below zero, and for steps that are not in order.
    """

    share: float
    steps: tuple[int, int]
    by_distance: bool

    def __post_init__(self):
        if self.share < 0:
            raise ValueError(f"recall is the weight of the loss on context tokens, 0 or more, not {self.share}")
        first, last = self.steps
        if not 0 <= first <= last:
            raise ValueError(f"recall_steps are a first and a last step, in order, not {list(self.steps)}")

    def at(self, step: int) -> float:
        """The weight at an optimiser step, from 0."""
        first, last = self.steps
        return self.share if step >= last else self.share * max(0.0, (step - first) / (last - first))

    def __call__(self, mask: Mask, grid: Grid, step: int) -> Mask:
        """The mask with its context in each target block. Weights are such that the mean over all that is asked for is
        the mean over what is hidden, plus the weighted mean over what is seen."""
        again = mask.context.unsqueeze(1).expand(-1, mask.target.shape[1], -1)  # B M K
        target = torch.cat([mask.target, again], dim=2)
        asked, hidden, seen = target.shape[2], mask.target.shape[2], mask.context.shape[1]
        closeness = torch.ones(again.shape)
        if self.by_distance:
            closeness = distances(mask.context, mask.target.flatten(1), grid).rsqrt().unsqueeze(1).expand(again.shape)
        weights = [torch.full(mask.target.shape, asked / hidden), closeness * (self.at(step) * asked / seen)]
        return mask._replace(target=target, weight=torch.cat(weights, dim=2), recall=seen)


def distances(tokens: Int[Tensor, "B K"], others: Int[Tensor, "B Q"], grid: Grid) -> Float[Tensor, "B K"]:
    """From each token to the nearest of the others, as the crow flies; a step in time is as long as one in space."""
    away = torch.ones(len(tokens), grid.size, dtype=torch.bool).scatter_(1, others, False).numpy()
    frames = away.reshape(len(away), grid.t, -1)
    if (frames == frames[:, :1]).all():  # a frame that stands for all
        away, grid = frames[:, 0], grid._replace(t=1)
    found = torch.from_numpy(squares(away, grid)).gather(1, tokens % grid.size)
    return found.double().sqrt().to(torch.get_default_dtype())


def squares(away: Bool[ndarray, "B N"], grid: Grid) -> Int[ndarray, "B N"]:
    """Of the distance from each token to the nearest that is not ``away``: along one axis after the other, step by step
    as far as any may still be, for all samples at once. They lie last, so that each operation is on one row of memory.
    """
    far = sum(grid) ** 2  # beyond all
    field = (away.T * (np.int16 if 2 * far < 2**15 else np.int32)(far)).reshape(*grid, -1)
    for _ in grid:
        lines = np.ascontiguousarray(field)
        near, moved = lines.copy(), np.empty_like(lines)
        for step in range(1, min(len(lines), math.ceil(lines.max() ** 0.5))):
            np.add(lines, step * step, out=moved)
            np.minimum(near[step:], moved[:-step], out=near[step:])
            np.minimum(near[:-step], moved[step:], out=near[:-step])
        field = np.moveaxis(near, 0, 2)
    return np.ascontiguousarray(field.reshape(grid.size, -1).T)
