"""A score while training: k nearest neighbours and effective rank on samples that are not trained on."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from jepakit.evaluate.features import Extracted, Reading, extract, raw_pixels, samples, split
from jepakit.evaluate.protocols import Vote, knn
from jepakit.health import effective_rank
from jepakit.protocols import Source


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
        self.parts = _parts(source, held_out, limit, reading.label or "")
        self.vote = vote or Vote()
        self.classes = len(self.parts[1].source.classes.get(reading.label or "", ()))
        self.reading = reading if self.classes else reading._replace(label=None)

    def __call__(self, backbone: nn.Module) -> dict[str, float]:
        """``knn`` (of labelled data) and ``rankme``; not a number where features are not finite."""
        fit, test = (extract(backbone, part.source, self.reading, part.rows) for part in self.parts)
        return self._score("knn", fit, test) | {"rankme": float(effective_rank(torch.cat([fit.x, test.x])))}

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
