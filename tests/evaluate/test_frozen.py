"""Scores in closed form: what they tell, that scikit-learn tells the same, and that nothing chooses by the test."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jepakit.catalog import collect
from jepakit.errors import DataError
from jepakit.evaluate.features import Extracted, Reading, extract
from jepakit.evaluate.frozen import interval, knn
from jepakit.evaluate.protocol import chosen

from .fakes import DATA, Blocks, Stripes

CATALOG = collect()
FAST = ("knn", "ridge", "logistic", "linear")


def clouds(count: int, seed: int, gap: float, classes: int = 4, width: int = 12) -> Extracted:
    """Gaussian clouds whose centres lie ``gap`` apart along one axis for each class."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    x = torch.randn(count, width, generator=rng) + gap * torch.nn.functional.one_hot(y, width)
    return Extracted(x, y, torch.arange(count))


def cell(name: str, fit: Extracted, test: Extracted, classes: int = 4, **own) -> dict:
    """A score by the protocol's file, but for some settings."""
    quick = {"epochs": 8, "lrs": (1.0, 0.01), "batch_size": 64} if name == "linear" else {}
    (protocol,) = chosen(CATALOG, name, quick | own)
    return protocol.score(fit, test, classes, protocol.settings)


@pytest.mark.parametrize("name", FAST)
def test_far_clouds_are_told_apart_and_equal_ones_are_not(name):
    far, near = (cell(name, clouds(400, 0, gap), clouds(400, 1, gap)) for gap in (8.0, 0.0))
    assert far["score"] > 0.97 and abs(near["score"] - 0.25) < 0.1
    assert far["low"] <= far["score"] <= far["high"] and (far["fit"], far["test"]) == (400, 400)


def test_noise_wants_a_strong_regularisation():
    train, test = clouds(900, 0, 1.5, width=300), clouds(400, 1, 1.5, width=300)
    found = cell("ridge", train, test)
    assert found["alpha"] >= 0.1 and len(found["tried"]) > 2
    assert cell("logistic", train, test)["C"] <= 0.01


@pytest.mark.parametrize("name", FAST)
def test_the_test_features_choose_nothing_and_scores_repeat(name):
    train, before = clouds(200, 0, 1.5), torch.random.get_rng_state()
    one, two, same = (cell(name, train, clouds(100, seed, 1.5)) for seed in (1, 2, 1))
    assert one == same and one.get("tried") == two.get("tried")
    assert torch.equal(before, torch.random.get_rng_state())


def test_fewer_samples_than_neighbours():
    assert knn(clouds(8, 0, 9.0), clouds(8, 1, 9.0), 4, k=50) > 0.5


@pytest.mark.parametrize("name", FAST)
def test_what_cannot_be_scored_is_refused(name):
    train, test = clouds(40, 0, 1.0), clouds(40, 1, 1.0)
    broken = test._replace(x=test.x.clone().fill_(torch.nan))
    with pytest.raises(DataError, match="40 of 40 test samples are not finite"):
        cell(name, train, broken)
    with pytest.raises(DataError, match="fewer than two classes"):
        cell(name, train._replace(y=train.y * 0), test)


def test_a_fit_that_did_not_come_to_its_end_is_said():
    found = cell("logistic", clouds(100, 0, 1.0), clouds(50, 1, 1.0), max_iter=1, strengths=(1.0, 0.1))
    assert found["unfinished"]
    assert "unfinished" not in cell("logistic", clouds(100, 0, 1.0), clouds(50, 1, 1.0))


def test_interval_holds_the_score_and_narrows():
    wide, narrow = interval(0.4, 100), interval(0.4, 10_000)
    assert wide[0] < narrow[0] < 0.4 < narrow[1] < wide[1]
    assert interval(1.0, 10)[1] == pytest.approx(1.0) and interval(0.0, 10)[0] == pytest.approx(0.0)
    assert interval(0.4, 100) == pytest.approx((0.3094, 0.4980), abs=1e-4)  # Wilson, without continuity correction


# The same features through scikit-learn ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(real_data) -> tuple[Extracted, Extracted]:
    """Frozen features of photographs, by an encoder that was not trained."""
    from jepakit.data import open_source

    options = DATA | {"name": "folder", "size": 32, "batch_size": 100}
    from jepakit.config import resolve

    parts = []
    for split, count in (("train", 600), ("val", 300)):
        data = resolve(["data=folder", f"data.root={real_data / 'cifar10' / split}", "data.size=32"])["data"]
        source = open_source(data)
        rows = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[:count]
        parts.append(extract(Blocks(), source, Reading(data | {"workers": 0, "batch_size": 100}), rows))
    assert options["name"] == "folder"
    return parts[0], parts[1]


@pytest.fixture(scope="module")
def made() -> tuple[Extracted, Extracted]:
    """The same of pictures that the tests make."""
    return extract(Blocks(), Stripes(300), Reading(DATA)), extract(Blocks(), Stripes(150, seed=4), Reading(DATA))


@pytest.fixture(params=["made", "real"])
def pair(request) -> tuple[Extracted, Extracted]:
    return request.getfixturevalue(request.param)


def test_knn_is_scikit_learns(pair):
    from sklearn.neighbors import KNeighborsClassifier

    fit, test = pair
    x, x_test = (F.normalize(part.x, dim=1).double().numpy() for part in pair)
    weigh = lambda distances: np.exp((1 - distances) / 0.07)  # noqa: E731
    model = KNeighborsClassifier(20, metric="cosine", weights=weigh).fit(x, fit.y)
    found = cell("knn", fit, test, int(fit.y.max()) + 1)
    assert found["score"] == pytest.approx(model.score(x_test, test.y), abs=2.5 / len(test.y))  # ties in float32


@pytest.mark.parametrize("name", ["ridge", "logistic"])
def test_linear_probes_are_scikit_learns(pair, name):
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fit, test = pair
    found = cell(name, fit, test, int(fit.y.max()) + 1)
    x, x_test = (part.x.double().numpy() for part in pair)
    model = RidgeClassifier(alpha=found["alpha"] * len(x)) if name == "ridge" else LogisticRegression(C=found["C"])
    if name == "logistic":
        model.set_params(max_iter=1000)
    assert found["score"] == make_pipeline(StandardScaler(), model).fit(x, fit.y).score(x_test, test.y)


def test_a_linear_head_comes_to_where_scikit_learn_ends(made):
    """Heads without weight decay that learn for long minimise what an unpenalised logistic regression does."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    from jepakit.evaluate import linear

    part = clouds(240, 0, 1.0)
    part = part._replace(x=(part.x - part.x.mean(0)) / part.x.std(0, correction=0))
    settings = chosen(CATALOG, "linear", {"epochs": 300, "batch_size": 240, "lr_batch": 240})[0].settings
    head = linear.Head("last", "none", 2.0, 0.0)
    (group,) = linear.learn(part, 4, [head], settings, "cpu")
    with torch.no_grad():
        own = F.cross_entropy(group.eval()(part.x)[:, 0], part.y).item()
    best = LogisticRegression(C=1e6, max_iter=5000, tol=1e-8).fit(part.x.double().numpy(), part.y)
    assert own == pytest.approx(log_loss(part.y, best.predict_proba(part.x.double().numpy())), rel=2e-3)
