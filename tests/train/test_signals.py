"""Ctrl-C, SIGTERM and the death of workers, at awkward moments, in this process."""

import multiprocessing
import os
import signal
import time

import pytest

from jepakit import checkpoint, train
from jepakit.errors import DataError
from tests.train import tiny

FAR = {"trainer__checkpoint_every": 100}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_step_and_saves(number, tmp_path, at, capsys):
    at(4, lambda: signal.raise_signal(number))
    assert train.run(tiny.config(**FAR), tmp_path) == train.INTERRUPTED == 130
    assert tiny.saved(tiny.config(), tmp_path)[0] == 4
    assert f"stopped and saved at step 4; go on with: jepakit train run={tmp_path}" in capsys.readouterr().out


def test_a_second_ctrl_c_ends_at_once(tmp_path, at, monkeypatch, undisturbed):
    """Even within the save that the first one asked for: it is not there, and the one before it is."""
    made, original = tiny.config(trainer__checkpoint_every=3), checkpoint.write

    def write(path, content):
        if path.parent.name.startswith("step-00000005"):
            signal.raise_signal(signal.SIGINT)
        original(path, content)

    at(5, lambda: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(checkpoint, "write", write)
    with pytest.raises(KeyboardInterrupt):
        train.run(made, tmp_path)
    monkeypatch.undo()
    assert tiny.saved(made, tmp_path)[0] == 3


def test_the_last_step_is_finished_whatever_comes(tmp_path, at):
    at(tiny.STEPS, lambda: signal.raise_signal(signal.SIGINT))
    assert train.run(tiny.config(), tmp_path) == 0


def kill_worker() -> None:
    """The news of its death arrives within the step."""
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    time.sleep(0.1)


def test_a_worker_that_dies_within_a_step_is_one_line(tmp_path, at):
    """torch tells of it from a signal handler, which must not tear the step or a checkpoint apart."""
    at(3, kill_worker)
    made = tiny.config(data__workers=1, trainer__checkpoint_every=1)
    with pytest.raises(DataError, match="^DataLoader worker .*; if memory ran out, try fewer data.workers$") as caught:
        train.run(made, tmp_path)
    assert "\n" not in str(caught.value)
    log = tiny.lines(tmp_path)
    assert len(log) >= 3 and tiny.saved(made, tmp_path)[0] == len(log)
    assert not multiprocessing.active_children()


def test_a_signal_that_ends_the_workers_too_still_saves(tmp_path, at, undisturbed):
    """As from a batch system, which signals every process of a job."""

    def end_all() -> None:
        signal.raise_signal(signal.SIGTERM)
        kill_worker()

    at(6, end_all)
    made = tiny.config(data__workers=1, **FAR)
    assert train.run(made, tmp_path) == train.INTERRUPTED
    assert tiny.saved(made, tmp_path)[0] == 6
    assert train.run(made, tmp_path) == 0
    assert tiny.lines(tmp_path) == undisturbed()[0]
