"""Parts of a step add up to all of it."""

import contextlib

import pytest
import torch

from jepakit.bench.split import CLOCKS, Split, clock
from jepakit.errors import ConfigError
from tests.bench.clocks import Told


@pytest.fixture(name="clock")
def told() -> Told:
    return Told()


def test_parts_and_what_lies_between(clock):
    split = Split(clock)
    with split.step():
        clock.passes(1)
        for seconds in (2, 4):
            with split("masks"):
                clock.passes(seconds)
        with split("loss"):
            clock.passes(8)
        clock.passes(16)
    assert split.taken() == [{"rest": 17, "masks": 6, "loss": 8}]


def test_what_is_within_a_part_is_that_parts(clock):
    split = Split(clock)
    with split.step(), split("target"):
        clock.passes(1)
        with split("context"):
            clock.passes(2)
        clock.passes(4)
    assert split.taken() == [{"rest": 0, "target": 7}]


def test_outside_of_steps_nothing_is_noted(clock):
    split = Split(clock)
    with split("data"):
        clock.passes(1)
    assert split.taken() == []


def test_a_step_is_taken_once(clock):
    split = Split(clock)
    for seconds in (1, 2):
        with split.step():
            clock.passes(seconds)
    assert split.taken() == [{"rest": 1}, {"rest": 2}] and split.taken() == []
    assert clock.settled == 2


def test_a_part_that_fails_ends(clock):
    split = Split(clock)
    with pytest.raises(KeyError), split.step(), split("loss"):
        clock.passes(1)
        raise KeyError
    with split.step(), split("masks"):
        clock.passes(2)
    assert split.taken()[-1] == {"rest": 0, "masks": 2}


def test_parts_are_named_to_whoever_asks(clock):
    names = []

    @contextlib.contextmanager
    def around(name):
        names.append(name)
        yield

    split = Split(clock, around)
    with split.step(), split("loss"), split("masks"):
        pass
    assert names == ["loss"]


def test_cpu_time_of_a_gpu_is_refused():
    with pytest.raises(ConfigError, match="clock=cpu tells nothing of cuda"):
        clock(torch.device("cuda"), CLOCKS["cpu"])


@pytest.mark.gpu
def test_a_gpus_time_is_that_of_its_stream():
    """What the host only starts is told to where it is computed."""
    device = torch.device("cuda")
    split, large = Split(clock(device)), torch.ones(8192, 8192, device=device)
    for _ in range(2):
        with split.step(), split("backward"):
            for _ in range(8):
                large @ large
    warm = split.taken()[-1]
    assert warm["backward"] > 10 * warm["rest"]
