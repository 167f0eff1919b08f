"""Few labels: subsets of the fit samples, and what frozen features are worth with so many.

A subset is drawn class by class, and a smaller one lies within each larger one of the same seed. The classifier is a
logistic regression, as in the low-shot evaluations of MSN (arXiv 2204.07141) by I-JEPA's first author. I-JEPA's own
table of 1 % of the labels is that of fine-tuned encoders: ``finetune.py``.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from jepakit.evaluate.features import Extracted
from jepakit.evaluate.frozen import POOLED, Layer, as_numpy, check, interval, logistic
from jepakit.evaluate.protocol import positive
from jepakit.seeds import generator, key

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Settings:
    """What a low-shot score depends on, beside the features.

    Of each class a ``share`` of the fit samples is used, at least one, or ``per_class`` of them; there are ``seeds``
    subsets. ``strengths`` are scikit-learn's C, chosen by cross-validation of ``folds`` within a subset, and
    ``strength`` is that of a subset with a class too small to be divided.
    """

    layer: Layer
    share: float | None
    per_class: int | None
    seeds: int
    normalisation: Literal["standardised", "l2"]
    strengths: tuple[float, ...]
    strength: float
    folds: int
    max_iter: int
    FACTS: ClassVar[dict[str, Any]] = POOLED | {"classifier": "multinomial logistic regression"}

    def __post_init__(self) -> None:
        positive(self, "seeds", "strengths", "strength", "max_iter")
        refuse_amount(self.share, self.per_class)
        if amount(self.share, self.per_class) is None:
            raise ValueError("one of share and per_class has to be given")
        if self.folds < 2:
            raise ValueError(f"folds={self.folds}: cross-validation takes at least 2")


class Fitted(NamedTuple):
    """One subset: which test samples were told right, the strength, and accuracies of what was tried."""

    right: Bool[Tensor, "n"]
    strength: float
    tried: dict[float, float]


def lowshot(
    fit: Extracted, test: Extracted, classes: int, settings: Settings, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """The mean accuracy over the subsets, its interval over subsets and test samples together, and each subset's.

    ``said`` are remarks, a line each. Raises DataError for features that are not finite or belong to fewer than two
    classes.
    """
    s = settings
    fit, test = (part.seen(s.layer) for part in (fit.part(fit.index.argsort()), test))
    check(fit, test)
    wanted = amount(s.share, s.per_class)
    assert wanted is not None
    said: list[str] = []
    found, rows = [], torch.empty(0, dtype=torch.long)
    for seed in range(s.seeds):
        rows = subset(fit.y, wanted, seed)
        found.append(_fit(fit.part(rows), test, s, seed, said))
    used = fit.y[rows].bincount(minlength=classes)
    said += short(fit.y, wanted, classes)
    return {
        **summary(torch.stack([each.right for each in found])),
        "fit": len(rows),
        "test": len(test.y),
        "C": [each.strength for each in found],
        "tried": [each.tried for each in found],
        "used": used.tolist(),
        "said": list(dict.fromkeys(said)),
    }


def subset(y: Int[Tensor, "n"], share_or_k: float | int, seed: int) -> Int[Tensor, "m"]:
    """Numbers of the samples of a subset, ascending: of each class a share, at least one, or so many (all that there
    are of a smaller one). The first ones of a permutation of (seed, class): smaller subsets lie within larger ones."""
    found = []
    for label in y.unique().tolist():
        members = (y == label).nonzero().squeeze(1)
        count = share_or_k if isinstance(share_or_k, int) else max(1, round(share_or_k * len(members)))
        found.append(members[torch.randperm(len(members), generator=generator("lowshot", seed, label))[:count]])
    return torch.cat(found).sort().values


def amount(share: float | None, per_class: int | None) -> float | int | None:
    """What ``subset`` is asked for; None: all samples."""
    return share if per_class is None else per_class


def refuse_amount(share: float | None, per_class: int | None) -> None:
    """Raise ValueError where both are given, or one that is none."""
    if share is not None and per_class is not None:
        raise ValueError(f"share={share:g} and per_class={per_class}: only one of them can be meant, the other is null")
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"share={share:g}: above 0, at most 1")
    if per_class is not None and per_class < 1:
        raise ValueError(f"per_class={per_class}: at least 1")


def short(y: Int[Tensor, "n"], wanted: float | int, classes: int) -> list[str]:
    """What has to be said of classes that have too few samples, or none."""
    counts = y.bincount(minlength=classes)
    said = []
    if isinstance(wanted, int) and (few := ((counts < wanted) & (counts > 0)).nonzero().flatten().tolist()):
        said.append(
            f"of {len(few)} of {classes} classes there are fewer than {wanted} fit samples, all are used: {few}"
        )
    if missing := (counts == 0).nonzero().flatten().tolist():
        said.append(f"of {len(missing)} of {classes} classes there is no fit sample: {missing}")
    return said


def summary(right: Bool[Tensor, "seeds n"]) -> dict[str, Any]:
    """Mean accuracy, and its interval: Wilson's over the test samples and Student's over the subsets, whose
    half-widths are added as squares (as in MOVER, Zou and Donner 2008). Of one subset it is Wilson's alone."""
    from scipy.stats import t

    scores = right.double().mean(1)
    score, count = float(scores.mean()), len(scores)
    low, high = interval(score, right.shape[1])
    half = 0.0
    if count > 1:
        half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1) * scores.std() / math.sqrt(count))
    return {
        "score": score,
        "low": max(score - math.hypot(score - low, half), 0.0),
        "high": min(score + math.hypot(high - score, half), 1.0),
        "over_test": [low, high],
        "over_seeds": [max(score - half, 0.0), min(score + half, 1.0)] if count > 1 else None,
        "scores": scores.tolist(),
    }


def _fit(part: Extracted, test: Extracted, settings: Settings, seed: int, said: list[str]) -> Fitted:
    """Choose the strength within the subset, fit on all of it, and ask about the test samples."""
    s, y = settings, as_numpy(part.y).astype(int)
    tried = _tried(part, s, seed, said)
    strength = max(tried, key=lambda each: tried[each]) if tried else s.strength
    model, seen = _model(part, s, strength, said)
    return Fitted(torch.from_numpy(model.predict(seen(test)) == as_numpy(test.y).astype(y.dtype)), strength, tried)


def _tried(part: Extracted, settings: Settings, seed: int, said: list[str]) -> dict[float, float]:
    """Share of the subset that is told right by models that have not seen it, for every strength; empty where there is
    nothing to choose or nothing to choose on."""
    from sklearn.model_selection import StratifiedKFold

    s, least = settings, int(part.y.unique(return_counts=True)[1].min())
    if len(s.strengths) < 2:
        return {}
    if least < 2:
        said.append(f"a class of one sample cannot be divided: C={s.strength:g} is not chosen but given")
        return {}
    folds = StratifiedKFold(min(s.folds, least), shuffle=True, random_state=key("lowshot", seed) % 2**32)
    right = dict.fromkeys(s.strengths, 0.0)
    for fold, held in folds.split(np.zeros(len(part.y)), as_numpy(part.y)):
        some, others = (part.part(torch.from_numpy(rows)) for rows in (fold, held))
        for strength in s.strengths:
            model, seen = _model(some, s, strength, said)
            right[strength] += float((model.predict(seen(others)) == as_numpy(others.y)).sum())
    return {strength: count / len(part.y) for strength, count in right.items()}


def _model(part: Extracted, settings: Settings, strength: float, said: list[str]) -> tuple[Any, Any]:
    """A logistic regression, and what makes its features of others."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    scaler = make_pipeline(StandardScaler() if settings.normalisation == "standardised" else Normalizer())
    unfinished: list[float] = []
    model = logistic(scaler.fit_transform(as_numpy(part.x)), as_numpy(part.y), strength, settings.max_iter, unfinished)
    if unfinished:
        said.append(f"C={strength:g} is not solved to the end after max_iter={settings.max_iter} iterations")
    return model, lambda other: scaler.transform(as_numpy(other.x))
