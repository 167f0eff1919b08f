"""Blocks of the frame that are hidden for the whole length of a clip, drawn for a whole batch at once."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Generator, Tensor

from jepakit.marks import earliest, inside
from jepakit.types import Grid, Mask
from jepakit_tubes.marks import foremost, lowest, others, through
from jepakit_tubes.recall import Recall
from jepakit_tubes.sizes import Sizes, refuse


class Tubes:
    """For each kind of mask, several blocks a sample: their union is to be imagined, as one, and all else is seen.

    A block's size is drawn once for a batch and kind, its position for every sample. Blocks may overlap; what leaves
    nothing to see is drawn again. Of a clip of one frame, blocks are rectangles.

    Args:
        blocks: number of blocks, of each kind.
        scales: a block's share of the frame, of each kind. The paper's are short-range and long-range masks.
        aspect: range of a block's height over its width.
        temporal_scale: range of its share of the clip's length.
        max_temporal_keep: share of the clip, from its start, that context may lie in; all later tokens are to be
            imagined (the paper's causal multi-block).
        max_keep: most tokens of a context.
        cut: which side is cut to the batch's smallest; of ``context`` and ``target`` the other is all else (the
            full_complement and pred_full_complement of V-JEPA 2's code).
        mode: ``unbiased`` or ``official``, see the package.
        recall, recall_steps, recall_by_distance: weight of a loss on the context's tokens, and how it comes about, see
            ``recall``; 0: what is seen is not asked for.

    Raises:
        ValueError: where some size that could be drawn on a grid has no tokens, or could hardly leave any to be seen;
            for arguments that mean nothing.
    """

    def __init__(
        self,
        blocks: tuple[int, ...] = (8, 2),
        scales: tuple[float, ...] = (0.15, 0.7),
        aspect: tuple[float, float] = (0.75, 1.5),
        temporal_scale: tuple[float, float] = (1.0, 1.0),
        max_temporal_keep: float = 1.0,
        max_keep: int | None = None,
        cut: Literal["both", "context", "target"] = "both",
        mode: Literal["unbiased", "official"] = "unbiased",
        recall: float = 0.0,
        recall_steps: tuple[int, int] = (15000, 30000),
        recall_by_distance: bool = True,
    ):
        _refuse(blocks, scales, max_temporal_keep, max_keep, cut)
        self.blocks, self.sizes = blocks, [Sizes(scale, aspect, temporal_scale) for scale in scales]
        self.max_temporal_keep, self.max_keep, self.cut, self.mode = max_temporal_keep, max_keep, cut, mode
        self.recall = Recall(recall, recall_steps, recall_by_distance)

    def __call__(self, grid: Grid, batch_size: int, rng: Generator, step: int = 0) -> list[Mask]:
        for sizes, count in zip(self.sizes, self.blocks, strict=True):
            refuse(sizes, grid, count)
        draws = torch.rand(len(self.blocks), 2, generator=rng, dtype=torch.float64).tolist()
        if self.mode == "official":  # the released generators of all kinds count from one seed
            draws = draws[:1] * len(self.blocks)
        masks = []
        for kind, (sizes, count) in enumerate(zip(self.sizes, self.blocks, strict=True)):
            size = sizes.fit(grid, tuple(draws[kind]))
            frame = grid._replace(t=1) if self.whole(grid, size) else grid  # a frame that stands for all
            hidden = self.hidden(frame, (min(size[0], frame.t), *size[1:]), (batch_size, count), rng)
            context, target = (through(part, frame, grid) for part in self.parts(hidden, grid, rng))
            masks.append(Mask(context, target.unsqueeze(1), kind=kind))
        return [self.recall(mask, grid, step) for mask in masks] if self.recall.share else masks

    def whole(self, grid: Grid, size: tuple[int, int, int]) -> bool:
        """Whether a place is seen at all times or at none: neither blocks nor cuts divide tubes."""
        divides = self.max_temporal_keep < 1 or (self.max_keep or 0) % grid.t
        return self.mode == "unbiased" and size[0] == grid.t and not divides

    def hidden(
        self, grid: Grid, size: tuple[int, int, int], shape: tuple[int, int], rng: Generator
    ) -> Bool[ndarray, "B N"]:
        """What lies in a sample's blocks, or too late to be seen. ``sizes.refuse`` is why this comes to an end."""
        late = max(1, int(grid.t * self.max_temporal_keep)) * grid.h * grid.w
        hidden = union(grid, size, shape, rng)
        hidden[:, late:] = True
        while len(again := np.flatnonzero(hidden.all(1))):
            hidden[again, :late] = union(grid, size, (len(again), shape[1]), rng)[:, :late]
        return hidden

    def parts(
        self, hidden: Bool[ndarray, "B N"], grid: Grid, rng: Generator
    ) -> tuple[Int[Tensor, "B K"], Int[Tensor, "B Q"]]:
        """Context and target, each of one size for the whole batch."""
        size = hidden.shape[1]
        if self.cut == "target":
            target = self.shorten(hidden, None, grid, rng)
            return others(target, size), target
        context = self.shorten(~hidden, self.max_keep, grid, rng)
        if self.cut == "context":
            return context, others(context, size)
        return context, self.shorten(hidden, None, grid, rng)

    def shorten(self, tokens: Bool[ndarray, "B N"], most: int | None, grid: Grid, rng: Generator) -> Int[Tensor, "B K"]:
        """As many tokens of each sample as the batch's smallest has, and no more than ``most``."""
        if self.mode == "official":
            return earliest(tokens, most)
        frames, batch = tokens.shape[1] // (grid.h * grid.w), len(tokens)
        count = int(tokens.sum(1, dtype=np.int32).min())
        if most is not None:
            count = min(count, most * frames // grid.t)
        places = torch.rand(batch, grid.h * grid.w, generator=rng, dtype=torch.float32)
        times = torch.rand(batch, grid.t, generator=rng, dtype=torch.float32)
        if frames == 1:
            return lowest(tokens, count, places)
        return foremost(tokens, count, tube_after_tube(places, times))


def tube_after_tube(places: Float[Tensor, "B P"], times: Float[Tensor, "B T"]) -> Int[Tensor, "B N"]:
    """All tokens, tubes in random order, so that one at most is cut in two; and that one loses any of its times."""
    return (places.argsort(1)[:, :, None] + times.argsort(1)[:, None] * places.shape[1]).flatten(1)


def union(grid: Grid, size: tuple[int, int, int], shape: tuple[int, int], rng: Generator) -> Bool[ndarray, "B N"]:
    """What lies in any of a sample's blocks, all of one size, placed anywhere on the grid."""
    if 1 < grid.t == size[0]:  # one frame stands for all
        return np.tile(union(grid._replace(t=1), (1, *size[1:]), shape, rng), grid.t)
    rooms = (length - part + 1 for length, part in zip(grid, size, strict=True))
    time, row, column = (torch.randint(0, room, shape, generator=rng) for room in rooms)
    return inside(grid, size, ((time * grid.h + row) * grid.w + column).T).any(0)


def _refuse(
    blocks: tuple[int, ...], scales: tuple[float, ...], max_temporal_keep: float, max_keep: int | None, cut: str
) -> None:
    """Raise ValueError for arguments that mean nothing."""
    if not blocks or len(blocks) != len(scales):
        raise ValueError(f"each kind of mask has a number of blocks and a scale, not {len(blocks)} and {len(scales)}")
    if min(blocks) < 1:
        raise ValueError(f"blocks={list(blocks)}: each kind has one block at least")
    if not 0 < max_temporal_keep <= 1:
        raise ValueError(f"max_temporal_keep lies above 0 and up to 1, not {max_temporal_keep}")
    if max_keep is not None and max_keep < 1:
        raise ValueError(f"max_keep={max_keep}: a context has one token at least")
    if max_keep is not None and cut == "target":
        raise ValueError(f"max_keep={max_keep} limits a context that is cut, which cut=target does not; leave one out")
