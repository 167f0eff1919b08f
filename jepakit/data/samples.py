"""One sample, and many of them stacked: all that happens in a worker process."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from jepakit import seeds
from jepakit.data import BadSample
from jepakit.data.views import View
from jepakit.errors import DataError
from jepakit.protocols import Source

MAX_TRIES = 100
"""Samples that are tried in the place of one before the data set is given up."""


def permutation(n: int, *key: int | str) -> Int[Tensor, "n"]:
    """The numbers below ``n`` in an order that depends on the key alone."""
    return torch.randperm(n, generator=seeds.generator(*key))


class Sample(NamedTuple):
    """What a worker makes of a key: ``pieces[v]`` is uint8 ``C T h w``."""

    pieces: tuple[Tensor, ...]
    mirrored: tuple[bool, ...]
    labels: dict[str, int | float]
    index: int
    replaced: list[dict[str, Any]]


class Parts(NamedTuple):
    """A batch on its way. Pieces of different sizes travel end to end in one block, which costs one transfer."""

    pixels: list[UInt8[Tensor, "..."]]
    shapes: list[list[tuple[int, ...]]]
    mirrored: list[Bool[Tensor, "B"]]
    labels: dict[str, Tensor]
    index: Int[Tensor, "B"]
    replaced: list[dict[str, Any]]


class Samples(Dataset):
    """The source seen through views: the key ``(epoch, index)`` says all there is to know. Spawn-safe.

    With ``drawn``, a source that has clips to choose from (``sample``) chooses by chance; else it gives its one answer.
    """

    def __init__(self, source: Source, views: tuple[View, ...], seed: int, fit: bool, drawn: bool = False):
        self.source, self.views, self.seed, self.fit = source, views, seed, fit
        self._draw = getattr(source, "sample", None) if drawn else None

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, asked = key
        picture, labels, index, replaced = self.read(asked, epoch)
        rng = seeds.generator(self.seed, "view", epoch, asked)
        taken = [view.take(picture, rng) for view in self.views]
        pieces = (view.fit(piece) if self.fit else piece for view, (piece, _) in zip(self.views, taken, strict=True))
        return Sample(tuple(pieces), tuple(flip for _, flip in taken), labels, index, replaced)

    def read(self, asked: int, epoch: int = 0) -> tuple[Tensor, dict[str, int | float], int, list[dict[str, Any]]]:
        """Sample ``asked``, or the first readable one after it in its keyed permutation. Raises DataError."""
        bad: list[tuple[int, BadSample]] = []
        for index in self._candidates(asked):
            try:
                picture, labels = self._one(index, epoch)
            except BadSample as error:
                bad.append((index, error))
                continue
            replaced = [{"index": i, "path": e.path, "reason": e.reason, "replaced_by": index} for i, e in bad]
            return picture, labels, index, replaced
        raise DataError(f"{len(bad)} samples in a row could not be read, the last one was {bad[-1][1]}")

    def _one(self, index: int, epoch: int) -> tuple[Tensor, dict[str, int | float]]:
        if self._draw is None:
            return self.source[index]
        return self._draw(index, seeds.generator(self.seed, "clip", epoch, index))

    def _candidates(self, asked: int) -> Iterable[int]:
        yield asked
        others = permutation(len(self.source), self.seed, "replace", asked)[:MAX_TRIES].tolist()
        yield from (index for index in others if index != asked)


def collate(samples: list[Sample]) -> Parts:
    """Stack what has one size, string together what has not."""
    pixels, shapes = [], []
    for pieces in zip(*(sample.pieces for sample in samples), strict=True):
        same = len({piece.shape for piece in pieces}) == 1
        pixels.append(torch.stack(pieces) if same else torch.cat([piece.flatten() for piece in pieces]))
        shapes.append([] if same else [tuple(piece.shape) for piece in pieces])
    return Parts(
        pixels,
        shapes,
        [torch.tensor(flips) for flips in zip(*(sample.mirrored for sample in samples), strict=True)],
        {name: torch.tensor([sample.labels[name] for sample in samples]) for name in samples[0].labels},
        torch.tensor([sample.index for sample in samples]),
        [bad for sample in samples for bad in sample.replaced],
    )
