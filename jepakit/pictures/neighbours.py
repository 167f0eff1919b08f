"""Which pictures an encoder finds alike, beside what one finds that has not been trained."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from jepakit.data.views import CentreView
from jepakit.evaluate.features import Extracted, Reading, extract, samples
from jepakit.pictures.mosaic import Cell, Row, mosaic
from jepakit.pictures.panels import frame
from jepakit.pictures.style import colour
from jepakit.protocols import Source
from jepakit.seeds import generator

SAMPLES = 256
"""Samples that neighbours are looked for among, at most."""

QUERIES, NEAREST = 6, 4
"""Pictures on a sheet, and the nearest ones of each that are shown."""

SAME = colour(6)
"""Colour of the border around neighbours that have the label of what they are near to."""

LETTERS = 13
"""Of a label that are written."""


class Near(NamedTuple):
    """What was found: of ``among`` samples the share of the ``NEAREST`` that have the same value of ``label``, by
    encoder; ``chance`` is that of any two samples. Without labels ``share`` is empty."""

    among: int
    label: str
    share: dict[str, float]
    chance: float


def neighbours(
    backbones: Mapping[str, nn.Module], source: Source, reading: Reading, out: Path, limit: int = SAMPLES
) -> Near:
    """Draw a few samples, and for each encoder the samples whose mean token has the largest cosine with theirs.

    Args:
        backbones: by the words that stand above their neighbours.
        limit: samples of ``source`` that are read, at most.

    Raises DataError where none can be read.
    """
    label = next(iter(source.classes), "")
    reading = reading._replace(label=label or None)
    found = {name: extract(each, source, reading, samples(len(source), limit)) for name, each in backbones.items()}
    first = next(iter(found.values()))
    count = min(NEAREST, max(len(first.index) - 1, 1))
    near = {name: nearest(each, count) for name, each in found.items()}
    queries = torch.randperm(len(first.index), generator=generator("neighbours"))[:QUERIES].tolist()
    rows, image = [], functools.cache(lambda index: _image(source, reading, index))  # clips take long to read
    for query in queries:
        cells = [Cell(image(int(first.index[query])), _named(source, first, query, label), bold=True)]
        for number in (int(number) for each in near.values() for number in each[query]):
            same = bool(label) and bool(first.y[number] == first.y[query])
            words = _named(source, first, number, label)
            cells.append(Cell(image(int(first.index[number])), words, SAME if same else ""))
        rows.append(Row(cells, below=0.04))
    heads = ["picture", *(name if i == 0 else "" for name in near for i in range(count))]
    apart = {1 + number * count: 0.15 for number in range(len(near))}
    result = Near(len(first.index), label, _shares(first, near) if label else {}, _chance(first) if label else 0.0)
    mosaic(rows, heads, out, told(result), apart)
    return result


def nearest(found: Extracted, count: int) -> Int[Tensor, "n k"]:
    """For each sample the numbers of those with the largest cosine, itself left out, the nearest first."""
    unit = normalize(found.x.float(), dim=-1)
    return (unit @ unit.T).fill_diagonal_(-2).topk(min(count, max(len(unit) - 1, 1)), dim=1).indices


def told(near: Near) -> list[str]:
    """The sheet's words."""
    said = [f"nearest of {near.among} samples by the cosine of mean tokens; in a row: the nearest first"]
    if near.share:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in near.share.items())
        said += [f"framed: the same {near.label}; among the {NEAREST} nearest: {shares}, any two {near.chance:.0%}"]
    return said


def _named(source: Source, found: Extracted, number: int, label: str) -> str:
    """What a sample's label is called, shortened; nothing without labels."""
    words = source.classes[label][int(found.y[number])] if label else ""
    return words if len(words) <= LETTERS else f"{words[: LETTERS - 2]}.."


def _image(source: Source, reading: Reading, index: int) -> np.ndarray:
    """A sample as evaluations see it; of a clip the middle frame."""
    view = CentreView(int(reading.data["size"]))
    piece = view.fit(view.take(source[index][0], generator("neighbours"))[0])
    return frame(piece, piece.shape[1] // 2)


def _shares(found: Extracted, near: Mapping[str, Int[Tensor, "n k"]]) -> dict[str, float]:
    return {name: float((found.y[each] == found.y[:, None]).float().mean()) for name, each in near.items()}


def _chance(found: Extracted) -> float:
    """How often two of the samples have the same label."""
    counts = found.y.unique(return_counts=True)[1].double()
    return float((counts * (counts - 1)).sum() / max(len(found.y) * (len(found.y) - 1), 1))
