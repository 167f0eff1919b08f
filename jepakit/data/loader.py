"""Samples become batches, the same ones whatever the number of workers, from any micro-batch on.

Nothing here has a state: the order is a permutation of (seed, epoch), or that of a mixture (mix.py), a view is drawn
from (seed, epoch, index, its number) and so is the clip of a video, and a sample that cannot be read is replaced by the
next one of a permutation of (seed, index), from the same part of a mixture. Where a sample is several clips of one
video (the source's ``clips``), they lie in one batch, and each counts as a sample of it.
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from jepakit.data import read_options
from jepakit.data.colour import COLUMN
from jepakit.data.desks import Desks
from jepakit.data.mix import Mix
from jepakit.data.samples import Parts, Samples, collate
from jepakit.data.views import CentreView, Normalise, RandomView, View, drawn_views
from jepakit.data.workers import items, workers
from jepakit.errors import ConfigError, DataError
from jepakit.options import DataOptions
from jepakit.protocols import Source
from jepakit.types import Batch


class Loader:
    """Batches for training.

    Args:
        source: the samples.
        options: ``config["data"]``, or the ``DataOptions`` keys of it.
        seed: of order and views.
        device: where the batches go, with 8 bits a value; floats are made of them there.
        rank, world: this process among those that share a step.
        views: ``config["views"]``, what is seen of a sample; nothing: one view, as ``options`` say.
        accumulate: micro-batches of a step. An epoch is whole steps, if there are samples for one.

    ``Batch.condition`` holds for each view how it came about, ``B P`` with the columns of ``colour.How``.

    Raises:
        ConfigError: an option out of its range.
        DataError: fewer samples than one step takes, or a part of a mixture that would have none of an epoch.
    """

    def __init__(
        self,
        source: Source,
        options: Mapping[str, Any],
        seed: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        views: Mapping[str, Mapping[str, Any]] | None = None,
        accumulate: int = 1,
    ):
        self.accumulate = accumulate
        self.source, self.seed, self.rank, self.world = source, seed, rank, world
        self.options, self.device = read_options(options), torch.device(device)
        o = self.options
        self.views: tuple[View, ...] = drawn_views(o, views or {})
        clips: int = getattr(source, "clips", 1)
        self.clips = 1 if _chosen(self.views, clips) else clips
        if o.batch_size % self.clips:
            raise ConfigError(f"data.batch_size={o.batch_size} is no multiple of data.clips={self.clips}")
        if len(self) == 0:
            raise DataError(
                f"the data set has {len(source) * self.clips} samples, fewer than the {o.batch_size * world} of one "
                f"batch; give data.batch_size={max(1, len(source) // world) * self.clips} or more data"
            )
        self._step, self._mix = o.batch_size // self.clips * world, Mix.of(source)
        if self._mix.weights:
            self._mix.shares(len(self) * self._step)
        self._stream = Stream(source, self.views, seed, self.options, self.device, drawn=True, clips=clips)

    def __len__(self) -> int:
        """Micro-batches in an epoch; what is left over waits for the next permutation."""
        there = len(self.source) * self.clips // (self.options.batch_size * self.world)
        return there - there % self.accumulate if there >= self.accumulate else there

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Micro-batches ``start`` to ``stop - 1`` counted from the beginning of training, across epochs.

        Closing the generator ends the workers. Raises DataError if a worker dies or nothing can be read.
        """
        return self._stream(self.keys(start, stop))

    def keys(self, start: int, stop: int) -> Iterator[list[tuple[int, int]]]:
        """The keys of each micro-batch of this rank: (epoch, index), or (pass, index) of a mixture with weights."""
        size, known, order = self._step // self.world, -1, torch.empty(0)
        for number in range(start, stop):
            epoch, position = divmod(number, len(self))
            if epoch != known:
                known, order = epoch, self._mix.order(len(self) * self._step, self.seed, epoch)
            first = (position * self.world + self.rank) * size
            yield [(turn, index) for turn, index in order[first : first + size].tolist()]


def evaluation_batches(
    source: Source,
    options: Mapping[str, Any],
    device: torch.device | str = "cpu",
    indices: Sequence[int] | None = None,
    views: tuple[View, ...] | None = None,
    clips: int = 1,
) -> Iterator[Batch]:
    """Every sample once (or those of ``indices``), in order; the last batch may be smaller.

    ``Batch.views`` are ``views`` (None: a centred one) of the first of its ``clips`` (more than one need a source with
    ``several``), then those of the next. A sample that cannot be read is replaced, as in training, and listed in
    ``Batch.replaced``.
    """
    checked = read_options(options)
    chosen = range(len(source)) if indices is None else indices
    stream = Stream(source, views or (CentreView(checked.size),), 0, checked, torch.device(device), clips=clips)
    keys = [(0, int(index)) for index in chosen]
    return stream([keys[i : i + checked.batch_size] for i in range(0, len(keys), checked.batch_size)])


class Stream:
    """Keys in, batches out: worker processes, the transfer, and what is done on the device."""

    def __init__(
        self,
        source: Source,
        views: tuple[View, ...],
        seed: int,
        options: DataOptions,
        device: torch.device,
        drawn: bool = False,
        clips: int = 1,
    ):
        channels = getattr(source, "channels", len(options.mean))
        if channels != len(options.mean):
            raise ConfigError(f"data.mean has {len(options.mean)} channels, the pictures have {channels}")
        self.views, self.device, self._drawn = views if drawn else views * clips, device, drawn
        self._samples = Samples(source, views, seed, drawn, clips)
        self._normalise = Normalise(options.mean, options.std, device)
        self._workers, self._timeout = workers(options.workers), options.timeout

    def __call__(self, keys: Iterable[list[tuple[int, int]]]) -> Iterator[Batch]:
        desks = Desks(self._workers, self._timeout, self._samples.source.describe)
        loader = DataLoader(
            self._samples.at(desks),
            batch_sampler=keys,  # type: ignore[arg-type]
            collate_fn=collate,
            num_workers=self._workers,
            pin_memory=self.device.type == "cuda",
            timeout=desks.look,
            generator=torch.Generator(),  # or it would draw from the global one
        )
        with contextlib.closing(items(loader)) as stream:
            for parts in stream:
                yield self._finish(parts)

    def _finish(self, parts: Parts) -> Batch:
        views = tuple(map(self._seen, self.views, parts.pixels, parts.how))
        labels = {name: values.to(self.device, non_blocking=True) for name, values in parts.labels.items()}
        condition = tuple(how.to(self.device, non_blocking=True) for how in parts.how) if self._drawn else None
        return Batch(views, labels, parts.index, condition, tuple(parts.replaced))

    def _seen(self, view: View, pixels: UInt8[Tensor, "B C T S S"], how: Tensor) -> Float[Tensor, "B C T S S"]:
        change = None
        if isinstance(view, RandomView) and view.colour.changes:
            from jepakit.data.recolour import recolour  # kornia: not for those who change no colours

            change = functools.partial(recolour, how=how, radius=view.colour.radius)
        return self._normalise(pixels.to(self.device, non_blocking=True), how[:, COLUMN["mirrored"]] > 0, change)


def _chosen(views: Sequence[View], clips: int) -> bool:
    """Whether views say which of a sample's clips they look at. Raises ConfigError for one that there is not."""
    chosen = [view.clip for view in views if isinstance(view, RandomView) and view.clip is not None]
    for number in chosen:
        if number >= clips:
            raise ConfigError(f"views.*.clip={number}: a sample has {clips} (data.clips), and the first is 0")
    return bool(chosen)
