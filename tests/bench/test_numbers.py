"""Medians, quartiles, and intervals that hold."""

import random

import pytest
import torch

from jepakit.bench.numbers import LEVEL, interval, parts, spread
from jepakit.bench.result import ratio
from jepakit.bench.sides import Side
from jepakit.bench.split import Split
from tests.bench.clocks import Told
from tests.train import tiny


def test_quartiles():
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == (3, 2, 4)
    assert spread([1.0, 2.0]) == (1.5, 1.25, 1.75)
    assert spread([7.0]) == (7, 7, 7)


@pytest.mark.parametrize(
    ("count", "cut", "confidence"), [(1, 0, 0), (5, 0, 0.9375), (6, 0, 0.96875), (9, 1, 0.9609375)]
)
def test_which_values_an_interval_lies_between(count, cut, confidence):
    found = interval([float(value) for value in reversed(range(count))])
    assert (found.low, found.high, found.confidence) == (cut, count - 1 - cut, confidence)


def test_an_interval_is_the_narrowest_that_is_sure_enough():
    for count in range(6, 60):
        assert LEVEL <= interval([float(value) for value in range(count)]).confidence < 0.995


def test_an_interval_holds_as_often_as_it_says():
    """Of something far from normal: the logarithm of one such value is exponential."""
    rng, tries = random.Random(0), 2000
    found = [interval([rng.paretovariate(1.5) for _ in range(9)]) for _ in range(tries)]
    held = sum(each.low <= 2 ** (1 / 1.5) <= each.high for each in found) / tries
    assert abs(held - found[0].confidence) < 0.015


def test_shares_are_those_of_all_time():
    found = parts([{"a": 1.0, "b": 3.0}, {"a": 1.0, "c": 5.0}], ("b", "a", "z"))
    assert list(found) == ["b", "a", "c"]
    assert {name: share for name, (_, share) in found.items()} == {"b": 0.3, "a": 0.2, "c": 0.5}
    assert found["b"][0].median == 1.5  # no time in one of two steps


def side(samples: int, rounds: list[list[float]]) -> Side:
    made = Side("", lambda: samples, Split(Told()), torch.device("cpu"), tiny.config())
    made.samples, made.rounds = samples, [[{"rest": value} for value in each] for each in rounds]
    return made


def test_a_ratio_is_of_rounds_that_followed_one_another():
    """The machine gets slower; within each pair one is twice as fast: a step takes as long, and twice the samples."""
    slower = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    one = side(8, [[2 * value, 2 * value, 90 * value] for value in slower])
    other = side(4, [[2 * value] for value in slower])
    assert ratio([one, other], 0, 1) == {
        "of": 0,
        "to": 1,
        "pairs": 7,
        "median": 2.0,
        "low": 2.0,
        "high": 2.0,
        "confidence": 1 - 2 / 2**7,
    }


def test_a_ratio_that_is_known_is_found():
    rng = random.Random(0)
    rounds = [[[rng.gammavariate(9, took) for _ in range(10)] for _ in range(40)] for took in (1.0, 1.3)]
    found = ratio([side(1, each) for each in rounds], 0, 1)
    assert found["low"] < 1.3 < found["high"] and found["high"] - found["low"] < 0.2
    assert found["low"] <= found["median"] <= found["high"]
