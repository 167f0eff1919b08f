"""The processes of ``trainer.devices=N`` on this machine: started, told to stop, ended, and what became of each.

torch's elastic agent starts them and ends those that another one has left alone. Beside it this module does what the
agent does not: a signal is passed on once, and nobody hurries those who save; who outlives a dead process does not wait
for it for half a minute; and what workers have to say about their end is said once.
"""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jepakit.errors import UserError
from jepakit.room import INTERRUPTED, LAUNCHER, ROOM, Report, Room, failure

GRACE = 5.0
"""Seconds that processes have to end by themselves once one of them has failed."""
POLL = 0.1
"""Seconds between two looks at the processes."""


def run(folder: Path, trainer: Mapping[str, Any], files: Sequence[Path] = ()) -> int:
    """Train in ``trainer.devices`` processes what a run's folder says. Returns their exit code.

    Where one dies, all are started again as often as ``trainer.restarts`` says. Raises UserError, with an exit code of
    its own, where one has failed; KeyboardInterrupt at a second Ctrl-C.
    """
    command = [*_python(), "-m", "jepakit.worker", str(folder)]
    command += [word for file in files for word in ("--plugin", str(file))]
    for again in range(1, trainer["restarts"] + 1):
        try:
            return _once(command, folder, trainer)
        except Lost as lost:
            said = f"{lost}; all start again, for the {again}. of {trainer['restarts']} times"
            print(f"jepakit: warning: {said}", file=sys.stderr, flush=True)
    return _once(command, folder, trainer)


def _once(command: Sequence[str], folder: Path, trainer: Mapping[str, Any]) -> int:
    """Start all, and wait for their end."""
    with tempfile.TemporaryDirectory(prefix="jepakit-") as place:
        room, agent = Room(Path(place)), Agent(command, trainer["devices"], place)
        with _told(**_variables(trainer, place)), _asked() as asked:
            try:
                agent.start()
                _watch(agent, room, asked)
            finally:
                room.kill()  # what a worker had started, and has not ended with it
        if len(asked) > 1:
            raise KeyboardInterrupt
        return _outcome(room, agent, bool(asked), folder)


def _python() -> list[str]:
    """This interpreter, which looks for modules in the working directory only where this process does."""
    here = {"", os.getcwd()} & set(sys.path)
    return [sys.executable, *([] if here else ["-P"])]


def _variables(trainer: Mapping[str, Any], place: str) -> dict[str, str]:
    """What workers are told beside who they are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {} if trainer["threads"] else {"OMP_NUM_THREADS": str(max(1, cores // trainer["devices"]))}
    return {**threads, **os.environ, ROOM: place, LAUNCHER: str(os.getpid())}


@contextlib.contextmanager
def _told(**variables: str) -> Iterator[None]:
    """An environment, which the agent hands on."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _asked() -> Iterator[list[int]]:
    """The signals that came in meanwhile."""
    from jepakit.signals import STOP

    asked: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: asked.append(number)) for number in STOP}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Agent(threading.Thread):
    """torch's elastic agent. It is kept off the main thread, where it would answer signals in its own way: by ending
    the workers, with SIGKILL for those that save for longer than half a minute."""

    def __init__(self, command: Sequence[str], count: int, place: str) -> None:
        super().__init__(name="jepakit-agent", daemon=True)
        self.command, self.count, self.place = command, count, place
        self.codes: dict[int, int] = {}
        """Exit codes of processes that did not end well, by rank; below zero: the signal that ended it."""
        self.failure: BaseException | None = None

    def run(self) -> None:
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it says, the reports say too
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=self.count,
            run_id=Path(self.place).name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,  # its restarts may meet the addresses of those that died (torch 2.15)
            monitor_interval=POLL,
            logs_specs=DefaultLogsSpecs(log_dir=self.place),
        )
        try:
            elastic_launch(config, self.command[0])(*self.command[1:])
        except ChildFailedError as error:
            first = sorted(error.failures.items(), key=lambda each: each[1].timestamp)
            self.codes = {rank: failure.exitcode for rank, failure in first}
        except BaseException as error:
            self.failure = error


def _watch(agent: Agent, room: Room, asked: Sequence[int]) -> None:
    """Until the agent is done."""
    passed, since = False, None
    while agent.is_alive():
        agent.join(POLL)
        if asked and not passed:
            passed = True
            room.ask()
        since = (since or time.monotonic()) if room.failed() else None
        if len(asked) > 1 or (since and time.monotonic() - since > GRACE):
            room.kill()


# How it ended -------------------------------------------------------------------------------------------------------


class Lost(UserError):
    """A process has died, or the program has made a mistake: another time it may go better."""


def _outcome(room: Room, agent: Agent, asked: bool, folder: Path) -> int:
    """The exit code of all, or the error of the one that failed first: the others failed because of it."""
    if agent.failure is not None:
        raise agent.failure
    reports = room.reports()
    said = {each.rank for each in reports} | room.killed
    ended = {rank: code for rank, code in agent.codes.items() if rank not in said}
    if killed := [rank for rank, code in ended.items() if code < 0 and code != -signal.SIGTERM]:
        raise _died(killed[0], ended[killed[0]], folder)
    if mistakes := [each for each in reports if each.error and not each.trace]:
        same = len({each.rank for each in mistakes if each.error == mistakes[0].error}) == agent.count
        raise failure(_whose(mistakes[0], not same), mistakes[0].code)
    if asked and ended:
        return INTERRUPTED  # before there was anything to save
    if traces := [each for each in reports if each.trace]:
        print(traces[0].trace, end="", file=sys.stderr)
        raise failure(f"{_whose(traces[0], True)}; {_go_on(folder)}", traces[0].code, Lost)
    if ended:
        raise _died(*next(iter(ended.items())), folder)
    return max(each.code for each in reports)


def _whose(report: Report, named: bool) -> str:
    return f"rank {report.rank}: {report.error}" if named else report.error


def _died(rank: int, code: int, folder: Path) -> UserError:
    """The line about a process that could not say anything itself."""
    if code >= 0:
        return failure(f"rank {rank} ended with exit code {code}; {_go_on(folder)}", code or 1, Lost)
    name = signal.Signals(-code).name
    memory = ", as happens where memory runs out" if -code == signal.SIGKILL else ""
    return failure(f"rank {rank} was killed ({name}){memory}; {_go_on(folder)}", 128 - code, Lost)


def _go_on(folder: Path) -> str:
    """From where a run can go on, and how."""
    from jepakit import checkpoint

    steps = [int(each.name.rpartition("-")[2]) for each in checkpoint.folders(folder)]
    if not steps:
        return "nothing had been saved yet"
    return f"the run can go on from step {max(steps)}: jepakit train run={folder}"
