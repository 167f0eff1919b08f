"""Places drawn at random, hidden for the whole length of a clip."""

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from jepakit.types import Grid, Mask


class RandomTubes:
    """Places of the frame, drawn for each sample, are imagined at all times, as one block; all others are seen.

    Nothing is cut: every sample has as many. Of a clip of one frame, they are single tokens.

    Args:
        ratio: share of the frame that is imagined. The number of places that are seen is rounded down.

    Raises:
        ValueError: where nothing is left to see or to imagine on a grid; for a ratio that is none.
    """

    def __init__(self, ratio: float = 0.9):
        if not 0 < ratio < 1:
            raise ValueError(f"ratio lies between 0 and 1, not {ratio}")
        self.ratio = ratio

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        places = grid.h * grid.w
        seen = int(places * (1 - self.ratio) + 1e-9)  # without, a tenth of 100 places would be 9: 1 - 0.9 is below 0.1
        if not 0 < seen < places:
            raise ValueError(
                f"no room on a grid of {grid.t} x {grid.h} x {grid.w}: a ratio of {self.ratio} leaves {seen} of "
                f"{places} places to see"
            )
        order = torch.rand(batch_size, places, generator=rng).argsort(1)
        target = through(order[:, seen:].sort(1).values, grid)
        return [Mask(through(order[:, :seen].sort(1).values, grid), target.unsqueeze(1))]


def through(places: Int[Tensor, "B P"], grid: Grid) -> Int[Tensor, "B K"]:
    """Indices of the tokens at these places, at all times, ascending."""
    start = torch.arange(grid.t) * (grid.h * grid.w)
    return (places[:, None] + start[:, None]).flatten(1)
