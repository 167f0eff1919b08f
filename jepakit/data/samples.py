"""One sample, and many of them stacked: all that happens in a worker process."""

import copy
from collections.abc import Iterable
from itertools import chain
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from jepakit import seeds
from jepakit.data import BadSample
from jepakit.data.colour import How
from jepakit.data.desks import Desks, TooLong
from jepakit.data.mix import Mix, permutation
from jepakit.data.scaled import Enough
from jepakit.data.views import RandomView, View
from jepakit.errors import DataError
from jepakit.protocols import Source

MAX_TRIES = 100
"""Samples that are tried in the place of one before the data set is given up."""


class Sample(NamedTuple):
    """One place in a batch: ``pieces[v]`` is uint8 ``C T S S``, and ``how[v]`` is all that was decided about it."""

    pieces: tuple[Tensor, ...]
    how: tuple[How, ...]
    labels: dict[str, int | float]
    index: int
    replaced: list[dict[str, Any]]


class Parts(NamedTuple):
    """A batch on its way."""

    pixels: list[UInt8[Tensor, "B C T S S"]]
    how: list[Float[Tensor, "B P"]]
    labels: dict[str, Tensor]
    index: Int[Tensor, "B"]
    replaced: list[dict[str, Any]]


class Samples(Dataset):
    """The source seen through views: the key ``(turn, index)`` says all there is to know. Spawn-safe.

    ``turn`` is how many times the sample was drawn before: the epoch, or the pass over its part of a mixture. With
    ``drawn``, a source that has clips to choose from (``sample``) chooses by chance, and each of ``clips`` (of a source
    with ``several``) is a place in the batch, or all are one where views say which of them they look at; else it gives
    its fixed answer, and all views of all clips are one place. One with ``scaled_decode`` is told what is enough of a
    picture where that is ``drawn``.
    """

    def __init__(self, source: Source, views: tuple[View, ...], seed: int, drawn: bool = False, clips: int = 1):
        self.source, self.views, self.seed = source, views, seed
        self.drawn, self.clips, self._mix, self.desks = drawn, clips, Mix.of(source), Desks(0)
        self._scaled = drawn and getattr(source, "scaled_decode", False)

    def at(self, desks: Desks) -> "Samples":
        """The same samples, for workers that sit at ``desks``: these know what is read, and for how long it may be."""
        copied = copy.copy(self)
        copied.desks = desks
        return copied

    def __getitem__(self, key: tuple[int, int]) -> list[Sample]:
        turn, asked = key
        rngs = [seeds.generator(self.seed, "view", turn, asked, *number) for number in self._numbers()]
        enough = Enough(self.views, rngs) if self._scaled else None
        clips, labels, index, replaced = self.read(asked, turn, enough)
        full = enough.full if enough else None
        looks = [
            [_look(*each, full) for each in zip(self.views, rngs, place, strict=True)] for place in self._places(clips)
        ]
        found = []
        for look in looks if self.drawn else [list(chain.from_iterable(looks))]:
            pieces, how = zip(*look, strict=True)
            found.append(Sample(pieces, how, labels, index, [] if found else replaced))
        return found

    def _numbers(self) -> list[list[int]]:
        """Of each view, its part of the key. A lone view has none, and so has the first of several; those that look at
        single frames have that of the first of them, and are drawn alike."""
        frames = [number for number, view in enumerate(self.views) if getattr(view, "frame", None) is not None]
        numbers = [frames[0] if number in frames else number for number in range(len(self.views))]
        return [[number] * (number > 0) for number in numbers]

    def read(
        self, asked: int, turn: int = 0, enough: Enough | None = None
    ) -> tuple[tuple[Tensor, ...], dict[str, int | float], int, list[dict[str, Any]]]:
        """Sample ``asked``, or the first readable one after it in its keyed permutation. Raises DataError."""
        bad: list[tuple[int, BadSample]] = []
        for index in self._candidates(asked):
            try:
                with self.desks.reading(index):
                    clips, labels = self._clips(index, turn, enough)
            except TooLong as error:
                bad.append((index, BadSample(self.source.describe(index), str(error))))
                continue
            except BadSample as error:
                bad.append((index, error))
                continue
            replaced = [{"index": i, "path": e.path, "reason": e.reason, "replaced_by": index} for i, e in bad]
            return clips, labels, index, replaced
        raise DataError(f"{len(bad)} samples in a row could not be read, the last one was {bad[-1][1]}")

    def _clips(self, index: int, turn: int, enough: Enough | None) -> tuple[tuple[Tensor, ...], dict[str, int | float]]:
        source: Any = self.source
        if enough is not None:
            enough.forget()
            picture, labels = source.scaled(index, enough)
            return (picture,), labels
        rng = seeds.generator(self.seed, "clip", turn, index) if self.drawn else None
        if self.clips > 1:
            clips, labels = source.several(index, self.clips, rng)
            return tuple(clips), labels
        picture, labels = source.sample(index, rng) if rng and hasattr(source, "sample") else source[index]
        return (picture,), labels

    def _places(self, clips: tuple[Tensor, ...]) -> list[list[Tensor]]:
        """For each place in a batch, the clip that each view looks at."""
        chosen = [getattr(view, "clip", None) for view in self.views]
        if all(number is None for number in chosen):
            return [[clip] * len(chosen) for clip in clips]
        return [[clips[number or 0] for number in chosen]]

    def _candidates(self, asked: int) -> Iterable[int]:
        """The sample itself, then others of its part."""
        yield asked
        _, part = self._mix.part(asked)
        others = permutation(len(part), self.seed, "replace", asked)[:MAX_TRIES].tolist()
        yield from (part[number] for number in others if part[number] != asked)


def _look(view: View, rng: torch.Generator, clip: Tensor, full: tuple[int, int] | None) -> tuple[Tensor, How]:
    piece, how = view.take(clip, rng, full) if full and isinstance(view, RandomView) else view.take(clip, rng)
    return view.fit(piece), how


def collate(drawn: list[list[Sample]]) -> Parts:
    """Stack them; in a worker in memory that is shared already."""
    samples = list(chain.from_iterable(drawn))
    return Parts(
        [default_collate(list(pieces)).contiguous() for pieces in zip(*(s.pieces for s in samples), strict=True)],
        [torch.tensor(rows) for rows in zip(*(sample.how for sample in samples), strict=True)],
        {name: torch.tensor([sample.labels[name] for sample in samples]) for name in samples[0].labels},
        torch.tensor([sample.index for sample in samples]),
        [bad for sample in samples for bad in sample.replaced],
    )
