"""Few labels: what a subset is, and what is scored with it."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from jepakit.catalog import collect
from jepakit.errors import DataError
from jepakit.evaluate import protocol
from jepakit.evaluate.features import Extracted
from jepakit.evaluate.frozen import interval
from jepakit.evaluate.lowshot import Settings, lowshot, short, subset, summary
from jepakit.seeds import key

SETTINGS = Settings(
    layer="last",
    share=None,
    per_class=5,
    seeds=3,
    normalisation="standardised",
    strengths=(0.01, 1.0),
    strength=0.1,
    folds=3,
    max_iter=200,
)
CLASSES = 4


def settings(**changed: object) -> Settings:
    return dataclasses.replace(SETTINGS, **changed)


def clouds(count: int, seed: int, apart: float = 3.0, width: int = 8) -> Extracted:
    """A cloud for each class, its middle on an axis of its own."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    x = torch.randn(count, width, generator=rng)
    x[torch.arange(count), y] += apart
    return Extracted(x, y, torch.arange(count))


@pytest.mark.parametrize(("wanted", "counts"), [(0.1, [1, 2, 10, 1]), (0.5, [4, 10, 50, 1]), (1.0, [7, 20, 100, 1])])
def test_a_share_is_one_of_each_class(wanted, counts):
    y = torch.cat([torch.full((n,), label) for label, n in enumerate([7, 20, 100, 1])])
    assert counts == [max(1, round(wanted * n)) for n in (7, 20, 100, 1)]
    rows = subset(y, wanted, 0)
    assert y[rows].bincount().tolist() == counts and rows.tolist() == sorted(set(rows.tolist()))


def test_so_many_of_each_class_or_all_there_are():
    y = torch.tensor([0] * 9 + [2] * 3 + [1] * 6)
    assert y[subset(y, 4, 0)].bincount().tolist() == [4, 4, 3]
    assert short(y, 4, 4) == [
        "of 1 of 4 classes there are fewer than 4 fit samples, all are used: [2]",
        "of 1 of 4 classes there is no fit sample: [3]",
    ]
    assert short(y, 0.01, 3) == []


def test_subsets_of_a_seed_lie_within_one_another_and_seeds_differ():
    y = torch.arange(600) % 7
    sizes = (0.01, 1, 0.05, 5, 0.1, 20, 0.9)
    nested = sorted((set(subset(y, size, 3).tolist()) for size in sizes), key=len)
    assert all(small <= large for small, large in zip(nested, nested[1:], strict=False))
    assert torch.equal(subset(y, 0.1, 3), subset(y, 0.1, 3))
    assert not torch.equal(subset(y, 0.1, 3), subset(y, 0.1, 4))


def test_what_can_be_learned_is_learned_and_noise_stays_at_chance():
    found = lowshot(clouds(200, 0), clouds(400, 1), CLASSES, SETTINGS)
    assert found["score"] > 0.8 and found["fit"] == 20 and found["test"] == 400 and found["used"] == [5] * CLASSES
    assert len(found["scores"]) == 3 and found["score"] == pytest.approx(np.mean(found["scores"]))
    assert found["low"] < min(found["over_test"][0], found["over_seeds"][0]) < found["score"] < found["high"]
    noise = lowshot(clouds(200, 0, apart=0.0), clouds(400, 1, apart=0.0), CLASSES, SETTINGS)
    assert noise["low"] < 1 / CLASSES < noise["high"] and noise["score"] < 0.35


def test_more_labels_are_worth_more():
    scores = [
        lowshot(clouds(400, 0, 1.5), clouds(400, 1, 1.5), CLASSES, settings(per_class=k))["score"] for k in (1, 50)
    ]
    assert scores[0] + 0.1 < scores[1]


def test_the_labels_of_test_samples_are_not_seen():
    test, rng = clouds(400, 1), torch.Generator().manual_seed(0)
    lied = test._replace(y=test.y[torch.randperm(400, generator=rng)])
    honest, found = (lowshot(clouds(200, 0), each, CLASSES, SETTINGS) for each in (test, lied))
    assert honest["tried"] == found["tried"] and honest["C"] == found["C"]
    assert found["score"] < 0.35


def test_the_order_of_samples_does_not_matter():
    fit, test, rng = clouds(200, 0, 1.0), clouds(100, 1, 1.0), torch.Generator().manual_seed(0)
    shuffled = [part.part(torch.randperm(len(part.y), generator=rng)) for part in (fit, test)]
    assert lowshot(fit, test, CLASSES, SETTINGS) == lowshot(*shuffled, CLASSES, SETTINGS)


@pytest.mark.parametrize("normalisation", ["standardised", "l2"])
def test_it_is_scikit_learns_regression_on_the_subset(normalisation):
    fit, test = clouds(200, 0, 1.0), clouds(300, 1, 1.0)
    found = lowshot(fit, test, CLASSES, settings(normalisation=normalisation, strengths=(1.0,), strength=1.0, seeds=1))
    part = fit.part(subset(fit.y, 5, 0))
    x, x_test = part.x.double().numpy(), test.x.double().numpy()
    if normalisation == "l2":
        x, x_test = normalize(x), normalize(x_test)
    else:
        scaler = StandardScaler().fit(x)
        x, x_test = scaler.transform(x), scaler.transform(x_test)
    model = LogisticRegression(C=1.0, max_iter=200).fit(x, part.y.numpy())
    assert found["scores"] == [pytest.approx(model.score(x_test, test.y.numpy()))]
    assert found["C"] == [1.0] and found["tried"] == [{}] and found["over_seeds"] is None


def test_the_strength_is_chosen_by_scikit_learns_cross_validation():
    fit, test = clouds(200, 0, 0.5), clouds(100, 1, 0.5)
    found = lowshot(fit, test, CLASSES, settings(seeds=1, strengths=(0.01, 100.0)))
    part = fit.part(subset(fit.y, 5, 0))
    folds = StratifiedKFold(3, shuffle=True, random_state=key("lowshot", 0) % 2**32)
    for strength, accuracy in found["tried"][0].items():
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200))
        told = cross_val_predict(model, part.x.double().numpy(), part.y.numpy(), cv=folds)
        assert accuracy == pytest.approx((told == part.y.numpy()).mean()) and accuracy < 0.8
    assert found["C"] == [max(found["tried"][0], key=found["tried"][0].get)]


def test_a_class_of_one_sample_leaves_nothing_to_choose_on():
    found = lowshot(clouds(200, 0), clouds(100, 1), CLASSES, settings(per_class=1))
    assert found["C"] == [0.1] * 3 and found["tried"] == [{}] * 3
    assert found["said"] == ["a class of one sample cannot be divided: C=0.1 is not chosen but given"]


def test_a_solver_that_gave_up_is_named():
    found = lowshot(clouds(200, 0), clouds(100, 1), CLASSES, settings(max_iter=1, strengths=(1.0,), strength=1.0))
    assert found["said"] == ["C=1 is not solved to the end after max_iter=1 iterations"]


def test_the_interval_is_of_test_samples_and_of_seeds():
    right = torch.zeros(3, 100, dtype=torch.bool)
    for row, count in zip(right, (40, 50, 60), strict=True):
        row[:count] = True
    found, (low, high) = summary(right), interval(0.5, 100)
    half = t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert found["over_seeds"] == pytest.approx([0.5 - half, 0.5 + half])
    assert found["low"] == pytest.approx(0.5 - math.hypot(0.5 - low, half))
    assert found["high"] == pytest.approx(0.5 + math.hypot(high - 0.5, half))
    alone = summary(right[1:2])
    assert (alone["low"], alone["high"]) == interval(0.5, 100) and alone["over_seeds"] is None
    perfect = summary(torch.ones(3, 50, dtype=torch.bool))
    assert perfect["high"] == 1 and perfect["low"] == pytest.approx(interval(1.0, 50)[0])


def test_the_last_layer_alone_is_read():
    fit, test = clouds(200, 0), clouds(100, 1)
    both = [part._replace(x=torch.cat([torch.randn(len(part.y), 8), part.x], 1), widths=(8, 8)) for part in (fit, test)]
    assert lowshot(*both, CLASSES, SETTINGS) == lowshot(fit, test, CLASSES, SETTINGS)


def test_what_cannot_be_scored_is_refused():
    fit, test = clouds(40, 0), clouds(20, 1)
    with pytest.raises(DataError, match="not finite"):
        lowshot(fit._replace(x=fit.x / 0), test, CLASSES, SETTINGS)
    with pytest.raises(DataError, match="fewer than two classes"):
        lowshot(fit._replace(y=fit.y * 0), test, CLASSES, SETTINGS)


@pytest.mark.parametrize(
    ("name", "amounts"), [("lowshot", (0.01, None)), ("lowshot_10", (0.1, None)), ("lowshot_5shot", (None, 5))]
)
def test_the_files_are_whole(name, amounts, monkeypatch):
    monkeypatch.setitem(protocol.KINDS, "lowshot", protocol.Kind("lowshot", "Settings", "lowshot", protocol.LAYERS))
    found = protocol.load(collect(), name).settings
    assert (found.share, found.per_class) == amounts and found.strength in found.strengths


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"share": 0.1}, "share=0.1 and per_class=5: only one"),
        ({"per_class": None}, "one of share and per_class has to be given"),
        ({"share": 1.5, "per_class": None}, "share=1.5: above 0, at most 1"),
        ({"per_class": 0}, "per_class=0: at least 1"),
        ({"folds": 1}, "folds=1: cross-validation takes at least 2"),
        ({"strength": 0.0}, "strength=0: it must be above 0"),
    ],
)
def test_settings_that_cannot_be_meant(changed, message):
    with pytest.raises(ValueError, match=message):
        settings(**changed)
