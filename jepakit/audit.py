"""What a masker does on average, for every token: masks in, numbers out.

One draw shows little. Over hundreds of batches it shows which tokens are never seen or never imagined, what the cut
to a batch's shortest context takes away, and from where. ``jepakit/starved.py`` says what to make of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepakit.protocols import Masker
from jepakit.seeds import generator
from jepakit.types import Grid, Mask

SINGLES = 4000
"""Batches of one that are drawn besides: nothing is cut from a batch of one, whatever the masker."""


@dataclass(frozen=True)
class Counts:
    """One question of a step, counted over ``n`` batches; None where it is the whole view.

    Masks of one kind that share context and views are one question; several target blocks of a sample count as one
    set of tokens. Shares are of a batch's samples.

    ``uncut`` is what ``context`` is before the batch cut. ``kept`` and ``whole`` are a context's tokens after and
    before it, ``asked`` the tokens of each target block.
    """

    grid: Grid
    samples: int
    kind: int
    views: tuple[int, tuple[int, ...]]
    context: Float[Tensor, "n t h w"] | None
    target: Float[Tensor, "n t h w"] | None
    uncut: Float[Tensor, "t h w"] | None
    kept: Int[Tensor, "n"]
    whole: Int[Tensor, "m"]
    asked: Int[Tensor, "n M"]

    def numbers(self) -> dict[str, Any]:
        """All of it as plain data, shares averaged over the batches."""
        found: dict[str, Any] = {"kind": self.kind, "context_view": self.views[0], "target_views": self.views[1]}
        found["target_blocks"] = self.asked.shape[1]
        lengths = {"context": self.kept, "context_before_the_cut": self.whole, "target_block": self.asked}
        found["lengths"] = {name: histogram(values) for name, values in lengths.items()}
        maps = {"context": self.context, "target": self.target}
        maps = {name: None if share is None else share.mean(0) for name, share in maps.items()}
        maps["context_before_the_cut"] = self.uncut
        found["maps"] = {name: _plain(share) for name, share in maps.items()}
        found["profiles"] = {
            name: None if share is None else {axis: _plain(line) for axis, line in profiles(share).items()}
            for name, share in maps.items()
        }
        return found


class Draw(NamedTuple):
    """One question of one batch, counted."""

    kind: int
    views: tuple[int, tuple[int, ...]]
    context: Float[Tensor, "t h w"] | None
    target: Float[Tensor, "t h w"] | None
    kept: int
    asked: tuple[int, ...]


def audit(
    masker: Masker, grid: Grid, batch_size: int, batches: int, seed: int, singles: int | None = None
) -> list[Counts]:
    """Count the masks that a run with this seed would draw in its first ``batches`` steps (of each the first
    micro-batch), and those of ``singles`` batches of one.

    Raises ValueError where the masker finds no room, or asks a number of questions that changes.
    """
    drawn = [count(masker(grid, batch_size, generator("masks", seed, i, 0)), grid, batch_size) for i in range(batches)]
    alone = [
        count(masker(grid, 1, generator("masks", seed, "alone", i)), grid, 1)
        for i in range(SINGLES if singles is None else singles)
    ]
    if len({len(draw) for draw in (*drawn, *alone)}) > 1:
        raise ValueError("the number of its masks changes from batch to batch: there is nothing to average")
    questions = zip(zip(*drawn, strict=True), zip(*alone, strict=True), strict=True)
    return [_over(grid, batch_size, each, single) for each, single in questions]


def count(masks: Sequence[Mask], grid: Grid, batch: int) -> list[Draw]:
    """Count one batch's masks, question by question."""
    questions: dict[tuple, list[Mask]] = {}
    for mask in masks:
        questions.setdefault((mask.kind, (mask.context_view, mask.target_views), id(mask.context)), []).append(mask)
    return [
        Draw(
            kind,
            views,
            share([same[0].context], grid, batch),
            share([mask.imagined for mask in same], grid, batch),
            grid.size if same[0].context is None else same[0].context.shape[1],
            tuple(size for mask in same for size in _sizes(mask.imagined, grid)),
        )
        for (kind, views, _), same in questions.items()
    ]


def share(indices: Sequence[Tensor | None], grid: Grid, batch: int) -> Float[Tensor, "t h w"] | None:
    """For each token the share of samples that name it in any of the tensors; None where one is the whole view."""
    chosen = torch.zeros(batch, grid.size, dtype=torch.bool)
    for index in indices:
        if index is None:
            return None
        chosen.scatter_(1, index.flatten(1), True)
    return chosen.float().mean(0).view(tuple(grid))


def profiles(share: Float[Tensor, "t h w"]) -> dict[str, Tensor]:
    """The mean share along each axis; of clips also along time."""
    found = {"row": share.mean((0, 2)), "column": share.mean((0, 1))}
    return found | ({"time": share.mean((1, 2))} if len(share) > 1 else {})


def histogram(values: Tensor) -> dict[str, int]:
    """How often each whole number is there."""
    each, times = values.unique(return_counts=True)
    return {str(value): number for value, number in zip(each.tolist(), times.tolist(), strict=True)}


def _sizes(target: Tensor | None, grid: Grid) -> list[int]:
    return [grid.size] if target is None else [target.shape[2]] * target.shape[1]


def _over(grid: Grid, samples: int, drawn: Sequence[Draw], alone: Sequence[Draw]) -> Counts:
    """One question over all batches."""

    def stacked(draws: Sequence[Draw], name: str) -> Tensor | None:
        found = [getattr(draw, name) for draw in draws]
        return None if found[0] is None else torch.stack(found)

    uncut = [draw.context for draw in alone]
    return Counts(
        grid,
        samples,
        drawn[0].kind,
        drawn[0].views,
        stacked(drawn, "context"),
        stacked(drawn, "target"),
        None if uncut[0] is None else sum(uncut) / len(uncut),
        torch.tensor([draw.kept for draw in drawn]),
        torch.tensor([draw.kept for draw in alone]),
        torch.tensor([draw.asked for draw in drawn]),
    )


def _plain(share: Tensor | None) -> Any:
    """Nested lists with a few digits; a map of an image without its one time slice."""
    if share is None:
        return None
    share = share[0] if share.ndim == 3 and len(share) == 1 else share
    return (share.double() * 1e5).round().div(1e5).tolist()
