"""A run that was stopped and went on is, to the last bit, the run that was not."""

import signal

import pytest

from jepakit import train
from tests.train import tiny

HALF = tiny.STEPS // 2
MIXED = {"trainer__accumulate": 2, "anti_collapse": {n: {"name": n} for n in ("ema", "vicreg", "sigreg")}}
LARS = {"optim__name": "lars"}
CASES = {
    "within an epoch": (HALF + 1, {}, {}),
    "between epochs": (2 * tiny.EPOCH, {}, {}),
    "after the first step": (1, {}, {}),
    "from no worker to two": (HALF, {"data__workers": 0}, {"data__workers": 2}),
    "from two workers to one": (HALF, {"data__workers": 2}, {"data__workers": 1}),
    "bf16": (HALF, {"trainer__precision": "bf16"}, {"trainer__precision": "bf16"}),
    "accumulated": (HALF - 1, {"trainer__accumulate": 2}, {"trainer__accumulate": 2}),
    "statistics of all micro-batches": (HALF, MIXED, MIXED),
    "LARS": (HALF, LARS, LARS),
    "clipped": (HALF, {"optim__clip": 1e-3}, {"optim__clip": 1e-3}),
}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("case", CASES)
def test_stopped_and_continued(case, tmp_path, at, undisturbed):
    stop, first, then = CASES[case]
    log, state = undisturbed(**{key: value for key, value in then.items() if key != "data__workers"})
    at(stop, lambda: signal.raise_signal(signal.SIGINT))
    assert train.run(tiny.config(**first), tmp_path) == train.INTERRUPTED
    assert len(tiny.lines(tmp_path)) == stop == tiny.saved(tiny.config(**first), tmp_path)[0]
    assert train.run(tiny.config(**then), tmp_path) == 0
    assert [line["step"] for line in log] == list(range(1, tiny.STEPS + 1))
    assert tiny.lines(tmp_path) == log
    step, again = tiny.saved(tiny.config(**then), tmp_path)
    assert step == tiny.STEPS and tiny.same(again, state)
    moments = "momentum_buffer" if then == LARS else "exp_avg"
    assert any(moments in name for name in state) and any("teacher" in name for name in state)


def test_a_crash_goes_on_from_the_last_checkpoint(tmp_path, at, undisturbed, capsys):
    log, state = undisturbed()

    def fail() -> None:
        raise OSError("the power went")

    at(9, fail)
    made = tiny.config(trainer__checkpoint_every=4)
    with pytest.raises(OSError, match="the power went"):
        train.run(made, tmp_path)
    assert len(tiny.lines(tmp_path)) == 8
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "loss": 0.1}\n{"step": 10, "lo')  # lines past the checkpoint, one of them cut off
    assert train.run(made, tmp_path) == 0
    assert "resumed at step 8" in capsys.readouterr().out
    assert tiny.lines(tmp_path) == log and tiny.same(tiny.saved(made, tmp_path)[1], state)


def test_a_finished_run_is_left_as_it_is(tmp_path):
    made = tiny.config(trainer__steps=2)
    assert train.run(made, tmp_path) == 0
    log, before = tiny.lines(tmp_path), [path.stat().st_mtime_ns for path in tiny.checkpoints(tmp_path)]
    assert train.run(made, tmp_path) == 0
    assert tiny.lines(tmp_path) == log
    assert [path.stat().st_mtime_ns for path in tiny.checkpoints(tmp_path)] == before


def test_other_seeds_give_other_runs(undisturbed):
    """Or all of the above would compare nothing."""
    first, other = undisturbed(), undisturbed(seed=1)
    assert [line["loss"] for line in first[0]] != [line["loss"] for line in other[0]]
    assert len({line["loss"] for line in first[0]}) == tiny.STEPS and not tiny.same(first[1], other[1])


def test_a_run_that_is_made_longer_goes_on(tmp_path):
    assert train.run(tiny.config(trainer__steps=2), tmp_path) == 0
    assert train.run(tiny.config(trainer__steps=4), tmp_path) == 0
    assert [line["step"] for line in tiny.lines(tmp_path)] == [1, 2, 3, 4]


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path, at, undisturbed):
    """Its log does too: also the line of step 0, which holds the scores to beat."""
    options = {"evaluate__every": 6, "trainer__checkpoint_every": 6}

    def fail() -> None:
        raise OSError("gone")

    at(4, fail)
    with pytest.raises(OSError, match="gone"):
        train.run(tiny.config(**options), tmp_path)
    assert train.run(tiny.config(**options), tmp_path) == 0
    assert tiny.lines(tmp_path) == undisturbed(**options)[0]
