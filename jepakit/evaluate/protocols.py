"""What a score means: k nearest neighbours and a linear probe on frozen features.

A protocol is described by a small dictionary with a version, which is stamped into every result: a number without it
cannot be compared. Change the version whenever a protocol would give other numbers.
"""

import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from jepakit.errors import DataError
from jepakit.evaluate.features import Extracted, split

ALPHAS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Strengths of the probe's regularisation, per sample (scikit-learn's ``C`` is ``1 / (alpha * samples)``)."""

PATIENCE = 2
"""Weaker regularisations in a row that may do worse before the search ends: the weakest are the slowest to fit."""

HELD_OUT = 0.2
"""Share of the fit features on which the strength is chosen; the test features are never looked at."""

MAX_ITER = 3000

NAMES = ("knn", "linear")


class Vote(NamedTuple):
    """What a k-NN score depends on, beside the features."""

    k: int = 20
    temperature: float = 0.07


class Probe(NamedTuple):
    """A linear probe's accuracy, the strength that was chosen, accuracies by strength, and if the fit converged."""

    score: float
    alpha: float
    tried: dict[float, float]
    converged: bool


def describe(name: str, vote: Vote) -> dict[str, Any]:
    """The protocol as it is stamped into results."""
    common = {"protocol": name, "version": 1, "layer": "last", "pooling": "mean over patch tokens", "measure": "top-1"}
    if name == "knn":
        return common | {"normalisation": "l2", "similarity": "cosine", **vote._asdict()}
    grid = {"alphas": list(ALPHAS), "patience": PATIENCE, "held_out": HELD_OUT, "max_iter": MAX_ITER}
    return common | {"normalisation": "standardised", "classifier": "logistic regression, lbfgs"} | grid


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
    """Accuracy of a logistic regression on standardised features.

    Its strength is the one that does best on a held-out part of ``train``; the probe is then fitted on all of
    ``train``. Raises DataError for features that are not finite or belong to fewer than two classes.
    """
    check(train, test)
    fit, held = (train.part(rows) for rows in split(len(train.y), 1 - HELD_OUT))
    tried = _search(fit, held)
    alpha = max(tried, key=lambda a: tried[a])
    score, converged = next(_path(train, test, (alpha,)))
    return Probe(score, alpha, tried, converged)


def interval(score: float, samples: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy over so many test samples (it says nothing of the spread over seeds)."""
    z = 1.959964
    middle = (score + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * math.sqrt(score * (1 - score) / samples + z * z / (4 * samples**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def check(train: Extracted, test: Extracted) -> None:
    """Refuse features that no protocol can score, as DataError."""
    for name, part in (("fit", train), ("test", test)):
        bad = int((~torch.isfinite(part.x).all(1)).sum())
        if bad:
            raise DataError(f"the features of {bad} of {len(part.x)} {name} samples are not finite: no score")
    if len(train.y.unique()) < 2:
        raise DataError(f"the {len(train.y)} fit samples belong to fewer than two classes: no score")


def _search(fit: Extracted, held: Extracted) -> dict[float, float]:
    """Held-out accuracy by strength, from the strongest on, until it keeps falling."""
    tried: dict[float, float] = {}
    if len(fit.y.unique()) < 2:  # a handful of samples: nothing to choose on
        return {1.0: math.nan}
    worse = 0
    for alpha, (score, _) in zip(ALPHAS, _path(fit, held, ALPHAS), strict=False):
        worse = 0 if score > max(tried.values(), default=-1.0) else worse + 1
        tried[alpha] = score
        if worse == PATIENCE:
            break
    return tried


def _path(fit: Extracted, test: Extracted, alphas: tuple[float, ...]) -> Iterator[tuple[float, bool]]:
    """Fit from strength to strength, each from where the last one ended; yields accuracy and convergence."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(_numpy(fit.x))
    x, x_test = scaler.transform(_numpy(fit.x)), scaler.transform(_numpy(test.x))
    model = LogisticRegression(max_iter=MAX_ITER, warm_start=True)
    for alpha in alphas:
        model.C = 1 / (alpha * len(x))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(x, _numpy(fit.y))
        stopped = any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        yield float((model.predict(x_test) == _numpy(test.y)).mean()), not stopped


def _numpy(x: Tensor) -> np.ndarray:
    return x.cpu().numpy()
