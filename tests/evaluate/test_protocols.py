import pytest
import torch

from jepakit.errors import DataError
from jepakit.evaluate.features import Extracted
from jepakit.evaluate.protocols import ALPHAS, Vote, describe, interval, knn, linear


def clouds(count: int, seed: int, gap: float, classes: int = 4, width: int = 12) -> Extracted:
    """Gaussian clouds whose centres lie ``gap`` apart along one axis for each class."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    x = torch.randn(count, width, generator=rng) + gap * torch.nn.functional.one_hot(y, width)
    return Extracted(x, y, torch.arange(count))


def test_far_clouds_are_told_apart_and_equal_ones_are_not():
    far, near = (clouds(400, 0, gap) for gap in (8.0, 0.0)), (clouds(400, 1, gap) for gap in (8.0, 0.0))
    for train, test, good in zip(far, near, (True, False), strict=True):
        for score in (knn(train, test, 4), linear(train, test).score):
            assert score > 0.97 if good else abs(score - 0.25) < 0.1


def test_noise_wants_a_strong_regularisation():
    train, test = clouds(900, 0, 1.5, width=300), clouds(400, 1, 1.5, width=300)
    probe = linear(train, test)
    assert probe.alpha >= 0.1 and set(probe.tried) <= set(ALPHAS) and len(probe.tried) > 2


def test_the_test_features_do_not_choose_the_strength():
    train = clouds(200, 0, 1.5)
    tried = [linear(train, clouds(100, seed, 1.5)).tried for seed in (1, 2)]
    assert tried[0] == tried[1]


def test_probes_are_deterministic_and_leave_random_state_alone():
    train, test = clouds(100, 0, 1.0), clouds(100, 1, 1.0)
    before = torch.random.get_rng_state()
    assert linear(train, test) == linear(train, test) and knn(train, test, 4) == knn(train, test, 4)
    assert torch.equal(before, torch.random.get_rng_state())


def test_fewer_samples_than_neighbours():
    assert knn(clouds(8, 0, 9.0), clouds(8, 1, 9.0), 4, k=50) > 0.5


def test_what_cannot_be_scored_is_refused():
    train, test = clouds(40, 0, 1.0), clouds(40, 1, 1.0)
    broken = test._replace(x=test.x.clone().fill_(torch.nan))
    for score in (lambda: knn(train, broken, 4), lambda: linear(train, broken)):
        with pytest.raises(DataError, match="40 of 40 test samples are not finite"):
            score()
    with pytest.raises(DataError, match="fewer than two classes"):
        linear(train._replace(y=train.y * 0), test)


def test_interval_holds_the_score_and_narrows():
    wide, narrow = interval(0.4, 100), interval(0.4, 10_000)
    assert wide[0] < narrow[0] < 0.4 < narrow[1] < wide[1]
    assert interval(1.0, 10)[1] == pytest.approx(1.0) and interval(0.0, 10)[0] == pytest.approx(0.0)
    assert interval(0.4, 100) == pytest.approx((0.3094, 0.4980), abs=1e-4)  # Wilson, without continuity correction


def test_a_protocol_says_what_it_is():
    assert describe("knn", Vote(7))["k"] == 7 and describe("linear", Vote())["alphas"] == list(ALPHAS)
