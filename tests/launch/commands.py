"""Command lines in processes of their own, which bear a mark by which every process that they leave behind is found."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from tests.train.test_command import SETTINGS

HERE = Path(__file__).parent
MARK = "JEPAKIT_TEST_MARK"
TINY = [*" ".join(SETTINGS).split(), "data.workers=0", "trainer.checkpoint_every=2", "--plugin", str(HERE / "quiet.py")]
"""The smallest run there is, without pictures."""
FOREVER = "trainer.steps=100000"
JEPAKIT = [sys.executable, "-m", "jepakit.cli"]
PATIENCE = 120.0
"""Seconds after which something that should have happened has not."""


class Command:
    """A process that can be waited for, signalled, and looked for everything it has left."""

    def __init__(self, folder: Path, argv: list[str], **variables: str):
        self.folder, self.mark = folder, uuid.uuid4().hex
        self.output = folder.parent / f"{self.mark}.txt"
        folder.parent.mkdir(exist_ok=True)
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", MARK: self.mark} | variables
        environment.pop("OMP_NUM_THREADS", None)
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                argv, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def said(self) -> str:
        return self.output.read_text()

    def wait_for_step(self, step: int) -> None:
        """Until the run's log has come that far."""
        until(lambda: lines(self.folder) >= step or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()

    def workers(self) -> dict[int, int]:
        """The processes that train, by rank."""
        found = {}
        for process in marked(self.mark):
            told = environ(process)
            if "RANK" in told and b"jepakit.worker" in read(process, "cmdline"):
                found[int(told["RANK"])] = process
        return found

    def end(self, number: int = 0, process: int | None = None) -> int:
        """Send a signal (0: none), by default to the process itself; its exit code, and nobody left behind."""
        os.kill(process or self.process.pid, number)
        code = self.process.wait(PATIENCE)
        until(lambda: not marked(self.mark))
        return code


def until(true) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def lines(folder: Path) -> int:
    """How many lines the log of a run has."""
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def read(process: int, what: str) -> bytes:
    try:
        return Path("/proc", str(process), what).read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def environ(process: int) -> dict[str, str]:
    words = read(process, "environ").decode(errors="replace").split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def marked(mark: str) -> list[int]:
    """All processes that bear a mark and have not ended."""
    found = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]
    return [process for process in found if environ(process).get(MARK) == mark]


def kill_marked(mark: str) -> None:
    """Leave nothing behind a test that failed."""
    for process in marked(mark):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
