"""Fine-tuning: the whole backbone learns, with a linear head on its pooled features.

Learning (tuning.py) happens to a copy; the backbone that is given is read, and nothing of it or of the random state
changes. Each draw has a key: the order of the samples, their views, what is mixed, what is dropped.
"""

import dataclasses
import sys
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.errors import DataError
from jepakit.evaluate.augment import Pixel
from jepakit.evaluate.data import Part
from jepakit.evaluate.features import Change, Extracted, Reading, collect, raw_pixels
from jepakit.evaluate.frozen import interval
from jepakit.evaluate.lowshot import amount, refuse_amount, short, subset
from jepakit.evaluate.protocol import positive
from jepakit.evaluate.tuning import Task, right, tune

MOST_MAGNITUDE = 30
"""Of torchvision's RandAugment."""

FEW = 16
"""Samples of which one has to be readable, to know the shape of all."""


@dataclass(frozen=True)
class Settings:
    """What a fine-tuned score depends on, beside the backbone.

    Of each class a ``share`` of the fit samples is used, or ``per_class`` of them (both None: all). A step takes
    ``accumulate`` batches of ``batch_size``; rates and weight decays go each with each, a rate being that of the head
    (``layerdecay.py``), warmed up for ``warmup`` of the ``epochs``. ``norm`` is what lies between pooling and head.
    """

    share: float | None
    per_class: int | None
    epochs: int
    warmup: float
    batch_size: int
    accumulate: int
    lrs: tuple[float, ...]
    weight_decays: tuple[float, ...]
    layer_decay: float
    norm: Literal["none", "layer", "batch"]
    drop_path: float
    label_smoothing: float
    crop_scale: tuple[float, ...]
    crop_ratio: tuple[float, ...]
    flip: bool
    augment_ops: int
    augment_magnitude: int
    mixup: float
    cutmix: float
    held_out: float
    seed: int
    FACTS: ClassVar[dict[str, Any]] = {
        "layer": "last",
        "pooling": "mean over patch tokens",
        "measure": "top-1",
        "optimizer": "AdamW, cosine to 0",
    }

    def __post_init__(self) -> None:
        positive(self, "epochs", "accumulate", "lrs", "layer_decay", "crop_scale", "crop_ratio")
        if self.batch_size < 2:
            raise ValueError(f"batch_size={self.batch_size}: at least 2, a batch norm finds no variance in one sample")
        refuse_amount(self.share, self.per_class)
        for name in ("warmup", "weight_decays", "augment_ops", "augment_magnitude", "mixup", "cutmix"):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,)) < 0:
                raise ValueError(f"{name}={value}: it must not be below 0")
        for name in ("drop_path", "label_smoothing", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name):g}: from 0 to below 1")
        if self.warmup > self.epochs:
            raise ValueError(f"warmup={self.warmup:g}: not more than epochs={self.epochs}")
        for name in ("crop_scale", "crop_ratio"):
            if len(ends := getattr(self, name)) != 2 or ends[0] > ends[1]:
                raise ValueError(f"{name}={list(ends)}: two numbers, the smaller one first")
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale={list(self.crop_scale)}: shares of the picture's area, at most 1")
        if self.augment_magnitude > MOST_MAGNITUDE:
            raise ValueError(f"augment_magnitude={self.augment_magnitude}: at most {MOST_MAGNITUDE}")


class Rate(NamedTuple):
    """One point of the grid."""

    lr: float
    weight_decay: float


def finetune(
    backbone: nn.Module, fit: Part, test: Part, classes: int, settings: Settings, reading: Reading
) -> dict[str, Any]:
    """A cell: the accuracy of a copy of the backbone that has learned from ``fit``, over the samples of ``test``.

    Where there is a grid, its best point is the one that is right most often on a held-out part of the fit samples;
    the copy then learns from all of them. The test samples choose nothing. ``said`` are remarks, a line each.

    Raises:
        DataError: samples of fewer than two classes.
        ConfigError: paths to drop in an encoder that has no place for it, colours that RandAugment does not know.
    """
    wanted, said = amount(settings.share, settings.per_class), []
    labels = known_labels(fit, reading)
    if wanted is not None:
        said += short(labels.y, wanted, classes)
        labels = labels.part(subset(labels.y, wanted, settings.seed))
    if len(labels.y.unique()) < 2:
        raise DataError(f"the {len(labels.y)} fit samples belong to fewer than two classes: no score")
    task = Task(fit._replace(rows=labels.index), classes, settings, reading)
    tried = _tried(backbone, task, labels.y, said)
    rate = max(tried, key=lambda each: tried[each]) if tried else _grid(settings)[0]
    tuned = tune(backbone, task, *rate)
    told, skipped = right(tuned.model, test, reading)
    score = float(told.double().mean())
    low, high = interval(score, len(told))
    return {
        **{"score": score, "low": low, "high": high, "fit": len(labels.y), "test": len(told), **rate._asdict()},
        "tried": [each._asdict() | {"held_out": value} for each, value in tried.items()],
        "used": labels.y.bincount(minlength=classes).tolist(),
        "steps": task.steps,
        "rates": tuned.rates,
        "skipped": {"fit": [*dict.fromkeys([*labels.skipped, *tuned.skipped])], "test": list(skipped)},
        "said": said + tuned.said,
    }


def pixels(
    fit: Part, test: Part, classes: int, settings: Settings, reading: Reading, change: Change | None = None
) -> dict[str, Any]:
    """A control's cell: the same head, learning and views, of raw pixels; with ``change``, of what that makes of a
    clip."""
    few = raw_pixels(fit.source, Reading(reading.data, label=None), fit.rows[:FEW], change=change)
    plain = dataclasses.replace(settings, drop_path=0.0)
    return finetune(Pixels(few.x.shape[1], change), fit, test, classes, plain, reading._replace(alone=False))


class Pixels(nn.Module):
    """A backbone that learns nothing: as ``features.raw_pixels``, but normalised, ``width`` numbers as one token."""

    def __init__(self, width: int, change: Change | None = None, side: int = 16):
        super().__init__()
        self.width, self.change, self.side = width, change, side

    def forward(self, pixels: Float[Tensor, "B C T H W"], keep: Any = None) -> Float[Tensor, "B 1 D"]:
        clip = pixels if self.change is None else self.change(pixels)
        ends = clip[:, :, sorted({0, clip.shape[2] - 1})]
        return nn.functional.adaptive_avg_pool3d(ends, (None, self.side, self.side)).flatten(1).unsqueeze(1)


def known_labels(part: Part, reading: Reading) -> Extracted:
    """The labels of a part's samples that can be read, in order; ``x`` is nothing."""
    quick = Reading(reading.data, label=reading.label, views=(Pixel(),))
    return collect(lambda pixels: torch.zeros(len(pixels), 1), part.source, quick, part.rows)


def divided(y: Int[Tensor, "n"], held_out: float, seed: int) -> tuple[Int[Tensor, "m"], Int[Tensor, "k"]]:
    """Numbers of the samples to learn from and of those to choose on: of each class a share of ``held_out``, but never
    its only one."""
    part = subset(y, 1 - held_out, seed)
    held = torch.ones(len(y), dtype=torch.bool)
    held[part] = False
    return part, held.nonzero().squeeze(1)


def _tried(backbone: nn.Module, task: Task, y: Int[Tensor, "n"], said: list[str]) -> dict[Rate, float]:
    """Held-out accuracy of every point of the grid; empty where there is nothing to choose or nothing to choose on."""
    s, found = task.settings, {}
    learned, held = (task.part._replace(rows=task.part.rows[rows]) for rows in divided(y, s.held_out, s.seed))
    if len(_grid(s)) < 2:
        return {}
    if not len(held.rows):
        said.append("no class has a sample to hold out: learning rate and weight decay are the first of the grid")
        return {}
    for rate in _grid(s):
        tuned = tune(backbone, task._replace(part=learned), *rate)
        found[rate] = float(right(tuned.model, held, task.reading)[0].double().mean())
        print(
            f"finetune: lr {rate.lr:g}, weight decay {rate.weight_decay:g}: held-out {found[rate]:.3f}", file=sys.stderr
        )
    return found


def _grid(settings: Settings) -> list[Rate]:
    return [Rate(*each) for each in product(settings.lrs, settings.weight_decays)]
