"""What is made of what workers say, and of those that could not say anything."""

import os
import pickle
import signal
import subprocess

import pytest

from jepakit import processes
from jepakit.errors import UserError
from jepakit.room import Report, Room

CASES = {
    "all finished": ([Report(0), Report(0, rank=1)], {}, False, 0, ""),
    "all stopped": ([Report(130), Report(130, rank=1)], {}, True, 130, ""),
    "all say the same": ([Report(2, "no such"), Report(2, "no such", rank=1)], {}, False, 2, "no such"),
    "one says it": (
        [Report(3, "not finite", rank=1, time=2.0), Report(2, elsewhere=True, time=1.0)],
        {},
        False,
        3,
        "rank 1: not finite",
    ),
    "a mistake of the program's, and those that lost it": (
        [Report(1, "ValueError: x", "Traceback\n", rank=1, time=1.0), Report(1, "RuntimeError: gloo", "T\n", time=2.0)],
        {0: 1, 1: 1},
        False,
        1,
        "rank 1: ValueError: x; nothing had been saved yet",
    ),
    "killed, and one that lost it": (
        [Report(1, "RuntimeError: gloo", "Traceback\n")],
        {0: 1, 1: -9},
        False,
        137,
        "rank 1 was killed (SIGKILL), as happens where memory runs out; nothing had been saved yet",
    ),
    "a fault of memory": ([], {1: -11, 0: -15}, False, 139, "rank 1 was killed (SIGSEGV); nothing had been saved yet"),
    "asked before it began": ([], {1: -15, 0: -15}, True, 130, ""),
    "silent": ([Report(0)], {1: 7}, False, 7, "rank 1 ended with exit code 7; nothing had been saved yet"),
}


@pytest.mark.parametrize("case", CASES)
def test_outcome(case, tmp_path):
    reports, codes, asked, code, line = CASES[case]
    room, agent = Room(tmp_path), processes.Agent([], 2, str(tmp_path))
    agent.codes = codes
    for report in reports:
        room.leave(report)
    if not line:
        assert processes._outcome(room, agent, asked, tmp_path) == code
        return
    with pytest.raises(UserError) as caught:
        processes._outcome(room, agent, asked, tmp_path)
    assert (str(caught.value), caught.value.exit_code) == (line, code)
    assert isinstance(caught.value, processes.Lost) == ("saved" in line)  # what may go better another time
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.exit_code) == (line, code)


def test_who_comes_after_the_end_was_asked_for_has_nothing_to_do(tmp_path):
    room = Room(tmp_path)
    assert room.enter(0)
    (tmp_path / "asked").touch()
    assert not room.enter(1)


def test_a_process_that_has_died_is_seen(tmp_path):
    room = Room(tmp_path)
    room.enter(0)
    assert not room.failed()
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / "1.pid").write_text(str(ended.pid))
    assert room.failed()
    room.leave(Report(0, rank=1))
    assert not room.failed()


def test_only_one_process_is_asked(tmp_path, monkeypatch):
    room, sent = Room(tmp_path), []
    for rank in (0, 1):
        room.enter(rank)
        (tmp_path / f"{rank}.pid").write_text(str(os.getpid()))
    monkeypatch.setattr(os, "kill", lambda process, number: sent.append(number))
    room.ask()
    assert [number for number in sent if number] == [signal.SIGTERM] and (tmp_path / "asked").exists()


CORES = [(None, None, 2, "4"), (None, None, 16, "1"), ("3", None, 2, "3"), (None, 5, 2, None)]


@pytest.mark.parametrize(("given", "threads", "count", "told"), CORES)
def test_processes_share_the_cores(given, threads, count, told, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8))
    found = processes._variables({"threads": threads, "devices": count}, "/place")
    assert found.get("OMP_NUM_THREADS") == told
