"""What a run says of its own speed."""

import pytest
import torch

from jepakit.pace import Pace, instruments, memory, sample_flops
from tests.bench.clocks import Told
from tests.train import tiny


@pytest.fixture
def clock() -> Told:
    return Told()


def step(pace: Pace, clock: Told, waits: float, computes: float, samples: int = 8) -> None:
    with pace.waiting():
        clock.passes(waits)
    clock.passes(computes)
    pace.count(samples)


def test_a_line_has_what_came_since_the_one_before(clock):
    pace = Pace(clock=clock)
    step(pace, clock, waits=1, computes=3)
    first = pace.line()
    assert first["images_per_second"] == first["images_per_second_rank"] == 2 and first["data_wait"] == 0.25
    step(pace, clock, waits=0, computes=1)
    step(pace, clock, waits=0.5, computes=0.5)
    second = pace.line()
    assert second["images_per_second"] == 8 and second["data_wait"] == 0.25


def test_what_is_no_training_never_happened(clock):
    pace = Pace(clock=clock)
    step(pace, clock, waits=1, computes=3)
    with pace.paused():
        clock.passes(1000)
    line = pace.line()
    assert line["images_per_second"] == 2 and line["data_wait"] == 0.25 and pace.left(10) == 40


def test_a_pause_ends_where_something_fails(clock):
    pace = Pace(clock=clock)
    for what in (pace.paused, pace.waiting):
        with pytest.raises(KeyError), what():
            clock.passes(2)
            raise KeyError
    assert pace.counts.seconds == pace.counts.waiting == 2


def test_all_processes_go_at_the_same_pace(clock):
    pace = Pace(world=4, flops=10.0, peak=100.0, clock=clock)
    step(pace, clock, waits=0, computes=4)
    line = pace.line()
    assert (line["images_per_second"], line["images_per_second_rank"]) == (8, 2)
    assert line["mfu"] == 0.2  # 2 samples a second of 10 operations, of the 100 that one device can do


def test_utilisation_counts_the_time_that_is_waited(clock):
    busy, waiting = (Pace(flops=10.0, peak=100.0, clock=clock) for _ in range(2))
    step(busy, clock, waits=0, computes=4)
    assert busy.line()["mfu"] == 0.2
    step(waiting, clock, waits=4, computes=0)
    assert waiting.line()["mfu"] == 0.1


@pytest.mark.parametrize("known", [{"flops": 10.0}, {"peak": 100.0}, {}])
def test_no_utilisation_without_both_figures(known, clock):
    pace = Pace(**known, clock=clock)
    step(pace, clock, waits=0, computes=1)
    assert "mfu" not in pace.line()


def test_what_is_left_goes_by_the_whole_run(clock):
    pace = Pace(clock=clock)
    assert pace.left(5) == 0
    for seconds in (10, 2):
        step(pace, clock, waits=0, computes=seconds)
        pace.line()
    assert pace.left(5) == 30


def test_no_time_at_all_is_no_division_by_zero(clock):
    line = Pace(flops=1.0, peak=1.0, clock=clock).line()
    assert line["images_per_second"] == line["data_wait"] == line["mfu"] == 0


def test_memory():
    held = memory(torch.device("cpu"))
    assert held.keys() == {"memory_gib"} and 0.01 < held["memory_gib"] < 1000


def test_a_run_on_a_cpu_has_no_utilisation():
    pace = instruments(tiny.config(), torch.device("cpu"), 2)
    assert (pace.world, pace.peak, pace.flops) == (2, None, None)


def test_operations_of_a_sample_do_not_hang_on_the_batch():
    one, other = (sample_flops(tiny.config(data__batch_size=size, masker={"name": "random"})) for size in (4, 8))
    assert one == other > 0


@pytest.mark.gpu
def test_memory_of_a_gpu():
    held = memory(torch.device("cuda"))
    assert held["gpu_reserved_gib"] >= held["gpu_memory_gib"] >= 0
