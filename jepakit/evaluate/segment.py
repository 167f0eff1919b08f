"""What each pixel shows, told by one linear layer on frozen patch tokens: DINOv2's linear segmentation.

Tokens are whitened, logits are brought to the size of the map, and the mean cross-entropy of the known pixels is
minimised by AdamW. Probes for a grid of learning rates and weight decays learn at once from the same batches; one is
chosen on a held-out part of the fit samples, and fitted again on all of them. Test samples choose nothing.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from jepakit.evaluate.bootstrap import interval
from jepakit.evaluate.dense import (
    CHUNK,
    Dense,
    Head,
    Levels,
    at_once,
    check,
    deviations,
    kept,
    known,
    moments,
    spread,
)
from jepakit.evaluate.features import split
from jepakit.evaluate.frozen import refuse_share
from jepakit.evaluate.protocol import not_negative, positive
from jepakit.seeds import generator

Device = torch.device | str
ROUNDING = 1e-6
"""Variance along a principal axis over that along the first, below which it is rounding of float16."""


@dataclass(frozen=True)
class Segment:
    """``warmup`` is the share of the ``steps`` in which the rate rises; after it the rate falls linearly to 0."""

    levels: Levels
    steps: int
    warmup: float
    batch_size: int
    lrs: tuple[float, ...]
    weight_decays: tuple[float, ...]
    held_out: float
    seed: int
    FACTS: ClassVar[dict[str, Any]] = {
        "map": "segment",
        "measure": "mIoU",
        "normalisation": "whitened",
        "upsampling": "bilinear, of logits",
        "tokens": "float16",
        "interval": "bootstrap over test samples",
    }

    def __post_init__(self) -> None:
        positive(self, "steps", "batch_size", "lrs")
        refuse_share(self.held_out)
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup:g}: a share from 0 to below 1")
        not_negative(self, "weight_decays")

    @property
    def grid(self) -> list[tuple[float, float]]:
        """Learning rate and weight decay of every probe."""
        return list(product(self.lrs, self.weight_decays))


def segment(
    fit: Dense, test: Dense, classes: int, settings: Segment, device: Device = "cpu", keep: list[Tensor] | None = None
) -> dict[str, Any]:
    """A cell of a table: the mean intersection over union of the best of a grid of linear probes.

    Its answers for the first test samples are put into ``keep``. Raises DataError for tokens that are not finite, and
    where nothing is known of a part.
    """
    check(fit, test)
    head, about = learn(fit, settings, device)
    return judged(kept(told(head, fit, test, device), keep), fit, test, classes) | about


def constant(
    fit: Dense,
    test: Dense,
    classes: int,
    settings: Any = None,
    device: Device = "cpu",
    keep: list[Tensor] | None = None,
) -> dict[str, Any]:
    """The control: at each place the class that is there most often in the fit samples, whatever the picture."""
    places = torch.zeros(classes, *fit.maps.shape[1:])
    for maps in fit.maps.split(CHUNK):
        for number in maps[known(maps)].unique().tolist():
            places[number] += (maps == number).sum(0)
    whole = places.sum((1, 2), keepdim=True)
    most = (places + whole / (2 * whole.sum())).argmax(0)  # where nobody knows, and of equals, the most frequent one
    answers = (most.expand(len(each), -1, -1) for each in test.maps.split(CHUNK))
    return judged(kept(answers, keep), fit, test, classes)


def learn(fit: Dense, settings: Segment, device: Device = "cpu") -> tuple[Head, dict[str, Any]]:
    """The best probe, fitted on all samples, and how it was chosen. It answers for the ``present`` classes alone."""
    part, held = (fit.part(rows) for rows in split(len(fit.maps), 1 - settings.held_out))
    tried, best = [], 0
    if len(settings.grid) > 1 and known(held.maps).any() and known(part.maps).any():
        heads, classes = fitted(part, settings, settings.grid, device), int(fit.maps.max()) + 1
        scores = [judged(told(head, part, held, device), part, held, classes, False)["score"] for head in heads]
        tried = [
            {"lr": lr, "weight_decay": wd, "held_out": s} for (lr, wd), s in zip(settings.grid, scores, strict=True)
        ]
        best = max(range(len(scores)), key=scores.__getitem__)
    lr, weight_decay = settings.grid[best]
    (head,) = fitted(fit, settings, [(lr, weight_decay)], device)
    return head, {"lr": lr, "weight_decay": weight_decay, "tried": tried}


def present(fit: Dense) -> Int[Tensor, "K"]:
    """The classes that the fit samples show: a probe knows no others."""
    return fit.maps[known(fit.maps)].unique().long()


def told(head: Head, fit: Dense, part: Dense, device: Device = "cpu") -> Iterator[Int[Tensor, "B S S"]]:
    """The classes that a probe which was fitted on ``fit`` tells, a few samples at a time."""
    classes = present(fit)
    return (classes[answer.argmax(3).cpu()] for answer in head.answers(part, device))


def fitted(fit: Dense, settings: Segment, grid: Sequence[tuple[float, float]], device: Device) -> list[Head]:
    """A probe for each (learning rate, weight decay). All start from the share of each class, and learn from the same
    batches."""
    classes, kind = present(fit), torch.float64 if fit.tokens.dtype == torch.float64 else torch.float32
    mean, whiten = (each.to(device, kind) for each in whitening(fit.tokens))
    number = torch.full((int(classes.max()) + 2,), -1).index_put_((classes,), torch.arange(len(classes)))
    shares = torch.bincount(number[fit.maps[known(fit.maps)].long()]).to(device, kind)
    starts = torch.zeros(len(classes), whiten.shape[1], dtype=kind, device=device), (shares / shares.sum()).log()
    probes = [Head(*(start.clone().requires_grad_() for start in starts)) for _ in grid]
    optimizer = torch.optim.AdamW(
        {"params": [values], "lr": lr, "weight_decay": decay * (values.ndim > 1)}
        for probe, (lr, decay) in zip(probes, grid, strict=True)
        for values in probe
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings))
    for rows in _order(len(fit.maps), settings):
        tokens = (fit.tokens[rows].to(device, kind) - mean) @ whiten
        maps = number[fit.maps[rows].long()].to(device)  # -1, the unknown, is the last one
        for probe in probes:  # one after the other: as fast as side by side, in the memory of one
            _backward(probe, tokens, fit.grid, maps)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return [_folded(probe, mean, whiten) for probe in probes]


def whitening(tokens: Float[Tensor, "n N D"]) -> tuple[Float[Tensor, "D"], Float[Tensor, "D R"]]:
    """Mean of all tokens, and the matrix to their principal axes, each of deviation 1; without those that are rounding.

    It changes nothing of what a linear layer can tell. But AdamW, whose steps are along axes, needs a fraction of them
    where axes are independent: on features of low rank it is far from its end otherwise. Float64.
    """
    mean, covariance = moments(tokens)
    deviation = deviations(mean, covariance)
    values, vectors = torch.linalg.eigh(covariance / torch.outer(deviation, deviation))
    seen = values > ROUNDING * values[-1].clamp(min=ROUNDING)
    return mean, vectors[:, seen] / values[seen].sqrt() / deviation[:, None]


def _backward(probe: Head, tokens: Tensor, grid: tuple[int, int], maps: Tensor) -> None:
    """Gradients of the mean cross-entropy of the known pixels, in as many pieces as there is room for."""
    pieces, count = at_once(len(probe.bias), maps.shape[-1]), (maps >= 0).sum().clamp(min=1)
    for some, truth in zip(tokens.split(pieces), maps.split(pieces), strict=True):
        logits = spread(F.linear(some, probe.weight, probe.bias), grid, maps.shape[-1])
        (F.cross_entropy(logits.flatten(0, 2), truth.flatten(), ignore_index=-1, reduction="sum") / count).backward()


def _folded(probe: Head, mean: Tensor, whiten: Tensor) -> Head:
    """The same probe for tokens as they are."""
    weight = probe.weight.detach() @ whiten.T
    return Head(weight.cpu(), (probe.bias.detach() - weight @ mean).cpu())


def _rate(step: int, settings: Segment) -> float:
    rising = max(round(settings.warmup * settings.steps), 1)
    return min((step + 1) / rising, 1.0) * (1 - step / settings.steps)


def _order(count: int, settings: Segment) -> Iterator[Int[Tensor, "n"]]:
    """The samples of every step: a permutation of (seed, pass), cut into batches."""
    size = min(settings.batch_size, count)
    each = count // size
    order = torch.empty(0, dtype=torch.long)
    for step in range(settings.steps):
        if step % each == 0:
            order = torch.randperm(count, generator=generator("segment", settings.seed, "order", step // each))
        yield order[step % each * size :][:size]


def judged(answers: Iterable[Tensor], fit: Dense, test: Dense, classes: int, intervals: bool = True) -> dict[str, Any]:
    """Scores of what was told of the test samples, over their known pixels.

    Of a class: pixels that were rightly called so, over those that are or were called so. The mean is over the classes
    that the test samples show.
    """
    tally = torch.zeros(len(test.maps), 3, classes, dtype=torch.float64)
    row = 0
    for told_ in answers:
        truth = test.maps[row : row + len(told_)].long()
        where = truth >= 0
        place = (torch.arange(len(told_))[:, None, None] * classes).expand_as(truth)
        for column, (of, pixels) in enumerate(((truth, where & (told_ == truth)), (truth, where), (told_, where))):
            counted = torch.bincount((place + of)[pixels], minlength=len(told_) * classes)
            tally[row : row + len(told_), column] = counted.view(-1, classes).double()
        row += len(told_)
    sums = tally.flatten(1)
    hits, true, _ = whole = tally.sum(0)
    shown = true > 0
    return {
        "score": mean_iou(sums.sum(0, keepdim=True)).item(),
        **(interval(sums, mean_iou) if intervals else {}),
        "pixel_accuracy": (hits.sum() / true.sum()).item(),
        "iou": dict(zip(torch.nonzero(shown).flatten().tolist(), iou(whole)[shown].tolist(), strict=True)),
        "fit": len(fit.maps),
        "test": len(test.maps),
    }


def iou(sums: Float[Tensor, "*n 3 K"]) -> Float[Tensor, "*n K"]:
    """Of each class, from pixels rightly called so, that are so, and that were called so; nan where none is so."""
    hits, true, said = sums.unbind(-2)
    return torch.where(true > 0, hits / (true + said - hits), math.nan)


def mean_iou(sums: Float[Tensor, "n K3"]) -> Float[Tensor, "n"]:
    """The mean over the classes that there are, of the same sums end to end."""
    return iou(sums.unflatten(-1, (3, -1))).nanmean(-1)
