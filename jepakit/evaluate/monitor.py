"""A score while training: k nearest neighbours, and in how many directions features vary, on samples that are not
trained on."""

import contextlib
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.data import read_options
from jepakit.data.loader import Stream
from jepakit.data.views import RandomView
from jepakit.device import autocast
from jepakit.evaluate.features import (
    WORKERS_PAY,
    Extracted,
    Reading,
    extract,
    pool,
    raw_pixels,
    represented,
    samples,
    split,
    undisturbed,
)
from jepakit.evaluate.frozen import Vote, knn
from jepakit.health.spectra import decay, effective_rank, has_decay, lidar, spectrum
from jepakit.protocols import Source

LOOKS, CROPS = 4, (0.3, 1.0)
"""Views of a sample for LiDAR, and the share of its area that they take: the same for every run."""
SHARE, FEWEST = 4, 8
"""Of the samples that a score looks at, one in so many is looked at again for LiDAR, a view in the place of a sample;
and the fewest samples that it is computed of."""


class Part(NamedTuple):
    """Some samples of a source."""

    source: Source
    rows: Int[Tensor, "n"]


class Monitor:
    """Scores a backbone as it is, without a trace in the training's state; always on the same samples.

    Fit samples come from ``source`` and test samples from ``held_out`` where both have the same classes; otherwise
    both come from a fixed split of whichever is labelled. Without labels there is no k-NN score, only the rank.

    Args:
        limit: samples for fit and test together, at most.
    """

    def __init__(
        self, source: Source, held_out: Source | None, reading: Reading, limit: int = 2000, vote: Vote | None = None
    ):
        self.limit = limit
        self.parts = _parts(source, held_out, limit, reading.label or "")
        self.vote = vote or Vote()
        self.classes = len(self.parts[1].source.classes.get(reading.label or "", ()))
        self.reading = reading if self.classes else reading._replace(label=None)

    def __call__(self, backbone: nn.Module) -> dict[str, float]:
        """``knn`` (of labelled data), ``rankme``, ``alpha_req`` and ``lidar`` (see ``jepakit.health.spectra``), the
        last two where there are samples enough; not a number where features are not finite."""
        fit, test = (extract(backbone, part.source, self.reading, part.rows) for part in self.parts)
        x = torch.cat([fit.x, test.x])
        shares = spectrum(x)
        found = self._score("knn", fit, test) | {"rankme": float(effective_rank(x))}
        return found | ({"alpha_req": float(decay(shares))} if has_decay(shares) else {}) | self.lidar(backbone)

    def lidar(self, backbone: nn.Module) -> dict[str, float]:
        """``lidar`` of ``LOOKS`` crops each of the first test samples, always the same ones; empty where there are
        fewer than ``FEWEST``."""
        part = self.parts[1]
        rows = part.rows[: self.limit // SHARE // LOOKS]
        if len(rows) < FEWEST:
            return {}
        data = read_options(self.reading.data)
        data = replace(data, workers=0 if len(rows) * LOOKS < WORKERS_PAY else data.workers)
        views = (RandomView(data.size, CROPS, tuple(data.crop_ratio), flip=True),) * LOOKS
        stream = Stream(part.source, views, 0, data, torch.device(self.reading.device), drawn=True)
        some = max(data.batch_size // LOOKS, 1)
        keys = [[(0, int(row)) for row in each] for each in rows.split(some)]
        with undisturbed(backbone), contextlib.closing(stream(iter(keys))) as batches:
            found = [[self._encoded(backbone, view) for view in batch.views] for batch in batches]
        x = torch.cat([torch.stack(each, 1) for each in found])
        return {"lidar": float(lidar(x))}

    def _encoded(self, backbone: nn.Module, pixels: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D"]:
        with autocast(pixels.device, self.reading.precision):
            return pool(represented(backbone, pixels, self.reading.alone)).cpu()

    def controls(self, random_backbone: nn.Module) -> dict[str, float]:
        """What there is to beat on the same samples: ``knn_random`` and ``knn_pixels``; empty without labels."""
        if not self.classes:
            return {}
        random = (extract(random_backbone, part.source, self.reading, part.rows) for part in self.parts)
        pixels = (raw_pixels(part.source, self.reading, part.rows) for part in self.parts)
        return self._score("knn_random", *random) | self._score("knn_pixels", *pixels)

    def _score(self, name: str, fit: Extracted, test: Extracted) -> dict[str, float]:
        if not self.classes:
            return {}
        finite = bool(torch.isfinite(fit.x).all() and torch.isfinite(test.x).all())
        return {name: knn(fit, test, self.classes, *self.vote) if finite else float("nan")}


def _parts(source: Source, held_out: Source | None, limit: int, label: str) -> tuple[Part, Part]:
    """Fit and test samples: see ``Monitor``."""
    names = source.classes.get(label)
    if held_out is not None and names is not None and held_out.classes.get(label) == names:
        half = limit // 2
        return Part(source, samples(len(source), half)), Part(held_out, samples(len(held_out), half))
    alone = source if held_out is None or (names is not None and label not in held_out.classes) else held_out
    rows = samples(len(alone), limit)
    fit, test = split(len(rows), 0.5)
    return Part(alone, rows[fit]), Part(alone, rows[test])
