"""``trainer.devices=2`` from end to end: signalled, continued, killed, started again; nobody is ever left behind."""

import os
import signal

from tests.launch.commands import FOREVER, HERE, TINY, until
from tests.train import tiny


def newest(folder) -> int:
    return int(tiny.checkpoints(folder)[-1].name.removeprefix("step-"))


def test_one_run_through_all_that_clusters_do(tmp_path, begin):
    """SIGTERM to the launcher, SIGUSR1 to a rank, SIGKILL to a rank, SIGKILL to the launcher: the run goes on from what
    was saved, and nobody stays behind."""
    folder, steps = tmp_path / "run", 0

    first = begin(folder, *TINY, FOREVER, "trainer.devices=2")
    first.wait_for_step(3)
    assert sorted(first.workers()) == [0, 1]
    assert first.end(signal.SIGTERM) == 130, first.said()
    steps = len(tiny.lines(folder))
    assert first.said().count(f"stopped and saved at step {steps}; go on with: jepakit train run={folder}") == 1
    assert newest(folder) == steps and "rror" not in first.said() and not (folder / "finished").exists()

    second = begin(folder, "--plugin", str(HERE / "quiet.py"))
    second.wait_for_step(steps + 2)
    assert second.end(signal.SIGUSR1, second.workers()[1]) == 130, second.said()
    assert f"resumed at step {steps}" in second.said() and "rror" not in second.said()
    steps = len(tiny.lines(folder))
    assert newest(folder) == steps

    third = begin(folder, "--plugin", str(HERE / "quiet.py"), "trainer.restarts=1")
    third.wait_for_step(steps + 2)
    doomed = third.workers()
    os.kill(doomed[1], signal.SIGKILL)
    until(lambda: third.said().count("resumed at step") == 2 or third.process.poll() is not None)
    killed = "rank 1 was killed (SIGKILL), as happens where memory runs out; the run can go on from step"
    assert f"jepakit: warning: {killed}" in third.said() and "; all start again, for the 1. of 1 times" in third.said()
    assert third.said().count("rror") == 0

    assert third.end(signal.SIGKILL) == -signal.SIGKILL
    log = tiny.lines(folder)
    assert [line["step"] for line in log] == list(range(1, len(log) + 1))  # none lost, none doubled


def test_a_mistake_in_one_rank_is_told_once(tmp_path, begin):
    folder = tmp_path / "run"
    running = begin(folder, *TINY, FOREVER, "trainer.devices=2", QUIET="data@3")
    assert running.end() == 2, running.said()
    assert running.said().splitlines()[-1] == "jepakit: error: rank 1: a shelf is empty"
    assert running.said().count("rror") == 1 and "Traceback" not in running.said()
