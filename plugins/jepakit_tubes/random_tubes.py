"""Places drawn at random, hidden for the whole length of a clip."""

import numpy as np
import torch
from torch import Generator

from jepakit.types import Grid, Mask
from jepakit_tubes.marks import lowest, others, through


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
        everywhere = np.ones((batch_size, places), dtype=bool)
        context = lowest(everywhere, seen, torch.rand(batch_size, places, generator=rng, dtype=torch.float32))
        frame = grid._replace(t=1)
        return [Mask(through(context, frame, grid), through(others(context, places), frame, grid).unsqueeze(1))]
