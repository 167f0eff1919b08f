"""What a score means: k nearest neighbours and a linear probe on frozen features.

A protocol is described by a small dictionary with a version, which is stamped into every result: a number without it
cannot be compared. Change the version whenever a protocol would give other numbers.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from jepakit.errors import DataError
from jepakit.evaluate.features import Extracted, split

ALPHAS = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Strengths of the probe's regularisation, per sample (scikit-learn's ``alpha`` is that times the samples)."""

HELD_OUT = 0.2
"""Share of the fit features on which the strength is chosen; the test features are never looked at."""

NAMES = ("knn", "linear")


class Vote(NamedTuple):
    """What a k-NN score depends on, beside the features."""

    k: int = 20
    temperature: float = 0.07


class Probe(NamedTuple):
    """A linear probe's accuracy, the strength that was chosen, and held-out accuracies by strength."""

    score: float
    alpha: float
    tried: dict[float, float]


def describe(name: str, vote: Vote) -> dict[str, Any]:
    """The protocol as it is stamped into results."""
    common = {"protocol": name, "version": 1, "layer": "last", "pooling": "mean over patch tokens", "measure": "top-1"}
    if name == "knn":
        return common | {"normalisation": "l2", "similarity": "cosine", **vote._asdict()}
    grid = {"alphas": list(ALPHAS), "held_out": HELD_OUT}
    return common | {"normalisation": "standardised", "classifier": "ridge regression on one-hot labels"} | grid


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


def linear(train: Extracted, test: Extracted) -> Probe:
    """Accuracy of a ridge regression from standardised features to one-hot labels.

    Solved exactly and in seconds, whatever the features' condition (a logistic regression on features that are nearly
    of one direction takes thousands of iterations). Its strength is the one that does best on a held-out part of
    ``train``; the probe is then fitted on all of ``train``. Raises DataError for features that are not finite or
    belong to fewer than two classes.
    """
    check(train, test)
    fit, held = (train.part(rows) for rows in split(len(train.y), 1 - HELD_OUT))
    if len(fit.y.unique()) < 2:  # a handful of samples: nothing to choose on
        return Probe(_ridge(train, test, (1.0,))[1.0], 1.0, {1.0: math.nan})
    tried = _ridge(fit, held, ALPHAS)
    alpha = max(tried, key=lambda a: tried[a])
    return Probe(_ridge(train, test, (alpha,))[alpha], alpha, tried)


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


def _ridge(fit: Extracted, test: Extracted, alphas: tuple[float, ...]) -> dict[float, float]:
    """Accuracy by strength."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(_numpy(fit.x))
    x, x_test = scaler.transform(_numpy(fit.x)), scaler.transform(_numpy(test.x))
    y, y_test = _numpy(fit.y), _numpy(test.y)
    models = {alpha: RidgeClassifier(alpha=alpha * len(x)).fit(x, y) for alpha in alphas}
    return {alpha: float((model.predict(x_test) == y_test).mean()) for alpha, model in models.items()}


def _numpy(x: Tensor) -> np.ndarray:
    """In float64: strengths differ by more than float32 resolves."""
    return x.double().cpu().numpy()
