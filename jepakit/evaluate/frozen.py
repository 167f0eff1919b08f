"""Scores of frozen features that take no time: nearest neighbours, and linear probes in closed form.

Each is computed by a library that is trusted for it: lightly's vote, scikit-learn's ridge and logistic regression. What
is chosen is chosen on a held-out part of the fit samples; the test samples choose nothing.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from jepakit.errors import DataError
from jepakit.evaluate.features import Extracted, split
from jepakit.evaluate.protocol import positive

Layer = Literal["last", "last4"]
"""The mean patch token of the last layer, or those of the last four, one after the other."""

POOLED = {"pooling": "mean over patch tokens", "measure": "top-1", "augmentation": "none"}


class Vote(NamedTuple):
    """What a k-NN score depends on, beside the features."""

    k: int = 20
    temperature: float = 0.07


@dataclass(frozen=True)
class Knn:
    """A vote of the nearest neighbours."""

    layer: Layer
    k: int
    temperature: float
    FACTS: ClassVar[dict[str, Any]] = POOLED | {"normalisation": "l2", "similarity": "cosine"}

    def __post_init__(self) -> None:
        positive(self, "k", "temperature")


@dataclass(frozen=True)
class Ridge:
    """Ridge regression; ``alphas`` are strengths per sample."""

    layer: Layer
    alphas: tuple[float, ...]
    held_out: float
    FACTS: ClassVar[dict[str, Any]] = POOLED | {
        "normalisation": "standardised",
        "classifier": "ridge regression on one-hot labels",
    }

    def __post_init__(self) -> None:
        positive(self, "alphas")
        refuse_share(self.held_out)


@dataclass(frozen=True)
class Logistic:
    """Logistic regression; ``strengths`` are scikit-learn's C."""

    layer: Layer
    strengths: tuple[float, ...]
    max_iter: int
    held_out: float
    FACTS: ClassVar[dict[str, Any]] = POOLED | {
        "normalisation": "standardised",
        "classifier": "multinomial logistic regression",
    }

    def __post_init__(self) -> None:
        positive(self, "strengths", "max_iter")
        refuse_share(self.held_out)


def score_knn(fit: Extracted, test: Extracted, classes: int, settings: Knn, device: Any = "cpu") -> dict[str, Any]:
    """A cell of a table."""
    fit, test = fit.seen(settings.layer), test.seen(settings.layer)
    return cell(knn(fit, test, classes, settings.k, settings.temperature), fit, test)


def score_ridge(fit: Extracted, test: Extracted, classes: int, settings: Ridge, device: Any = "cpu") -> dict[str, Any]:
    """A cell of a table, with the strength that was chosen."""
    found = best(fit.seen(settings.layer), test.seen(settings.layer), settings.alphas, settings.held_out, ridge)
    return cell(found.score, fit, test) | {"alpha": found.strength, "tried": found.tried}


def score_logistic(
    fit: Extracted, test: Extracted, classes: int, settings: Logistic, device: Any = "cpu"
) -> dict[str, Any]:
    """A cell of a table, with the strength that was chosen, and whether any fit came to an end before its own."""
    unfinished: list[float] = []

    def models(x: np.ndarray, y: np.ndarray, strengths: Sequence[float]) -> list[Any]:
        return [logistic(x, y, strength, settings.max_iter, unfinished) for strength in strengths]

    found = best(fit.seen(settings.layer), test.seen(settings.layer), settings.strengths, settings.held_out, models)
    more = {"unfinished": sorted(set(unfinished))} if unfinished else {}
    return cell(found.score, fit, test) | {"C": found.strength, "tried": found.tried, **more}


def cell(score: float, fit: Extracted, test: Extracted) -> dict[str, Any]:
    """An accuracy with its interval and the samples behind it."""
    low, high = interval(score, len(test.y))
    return {"score": score, "low": low, "high": high, "fit": len(fit.y), "test": len(test.y)}


def knn(
    train: Extracted, test: Extracted, classes: int, k: int = Vote().k, temperature: float = Vote().temperature
) -> float:
    """Accuracy of a vote of the ``k`` nearest neighbours, weighted by ``exp(cosine / temperature)`` (InstDisc).

    Where there are fewer than ``k`` fit samples, all of them vote. Raises DataError for features that are not finite.
    """
    from lightly.utils.benchmarking.knn import knn_predict  # imports for seconds: only where it is used

    check(train, test)
    bank = F.normalize(train.x, dim=1).T.contiguous()
    right = 0
    for x, y in zip(F.normalize(test.x, dim=1).split(512), test.y.split(512), strict=True):
        guess = knn_predict(x, bank, train.y, classes, knn_k=min(k, len(train.y)), knn_t=temperature)
        right += int((guess[:, 0] == y).sum())
    return right / len(test.y)


class Best(NamedTuple):
    """An accuracy, the strength that was chosen, and held-out accuracies by strength."""

    score: float
    strength: float
    tried: dict[float, float]


Models = Callable[[np.ndarray, np.ndarray, Sequence[float]], Sequence[Any]]
"""From features, labels and strengths to fitted models of scikit-learn, one for each strength."""


def best(train: Extracted, test: Extracted, strengths: Sequence[float], held_out: float, models: Models) -> Best:
    """Accuracy of the model whose strength does best on a held-out part of ``train``, fitted on all of ``train``.

    Features are standardised by what the model is fitted on. Raises DataError for features that are not finite or
    belong to fewer than two classes.
    """
    check(train, test)
    part, held = (train.part(rows) for rows in split(len(train.y), 1 - held_out))
    if len(part.y.unique()) < 2:  # a handful of samples: nothing to choose on
        middle = sorted(strengths)[len(strengths) // 2]
        return Best(_accuracies(train, test, (middle,), models)[middle], middle, {middle: math.nan})
    tried = _accuracies(part, held, strengths, models)
    chosen = max(tried, key=lambda strength: tried[strength])
    return Best(_accuracies(train, test, (chosen,), models)[chosen], chosen, tried)


def _accuracies(fit: Extracted, test: Extracted, strengths: Sequence[float], models: Models) -> dict[float, float]:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(as_numpy(fit.x))
    x, x_test = scaler.transform(as_numpy(fit.x)), scaler.transform(as_numpy(test.x))
    y, y_test = as_numpy(fit.y), as_numpy(test.y)
    fitted = zip(strengths, models(x, y, strengths), strict=True)
    return {strength: float((model.predict(x_test) == y_test).mean()) for strength, model in fitted}


def ridge(x: np.ndarray, y: np.ndarray, strengths: Sequence[float]) -> list[Any]:
    """Solved exactly and in seconds, whatever the features' condition (a logistic regression on features that are
    nearly of one direction takes thousands of iterations)."""
    from sklearn.linear_model import RidgeClassifier

    return [RidgeClassifier(alpha=alpha * len(x)).fit(x, y) for alpha in strengths]


def logistic(x: np.ndarray, y: np.ndarray, strength: float, most: int, unfinished: list[float]) -> Any:
    """Notes the strength where the solver came to its last iteration."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConvergenceWarning)
        model = LogisticRegression(C=strength, max_iter=most).fit(x, y)
    for each in said:
        if issubclass(each.category, ConvergenceWarning):
            unfinished.append(strength)
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return model


def interval(score: float, samples: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy over so many test samples (it says nothing of the spread over seeds)."""
    z = 1.959964
    middle = (score + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * math.sqrt(score * (1 - score) / samples + z * z / (4 * samples**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def check(train: Extracted, test: Extracted) -> None:
    """Refuse features that no protocol can score, as DataError."""
    for name, part in (("fit", train), ("test", test)):
        bad = int((~torch.isfinite(part.x.flatten(1)).all(1)).sum())
        if bad:
            raise DataError(f"the features of {bad} of {len(part.x)} {name} samples are not finite: no score")
    if len(train.y.unique()) < 2:
        raise DataError(f"the {len(train.y)} fit samples belong to fewer than two classes: no score")


def refuse_share(held_out: float) -> None:
    """Raise ValueError for a held-out part that leaves nothing on one side."""
    if not 0 < held_out < 1:
        raise ValueError(f"held_out={held_out:g}: a share between 0 and 1")


def as_numpy(x: Tensor) -> np.ndarray:
    """In float64: strengths differ by more than float32 resolves."""
    return x.double().cpu().numpy()
