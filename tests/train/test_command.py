"""The command line's own process, ended from outside: what it says, how it ends, and that it leaves nothing running."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.train import tiny

HERE = Path(__file__).parent
SETTINGS = [
    f"recipe={HERE / 'tiny.yaml'} data=world data.length=40 data.side=16",
    "tokenizer=patch tokenizer.patch=4 masker=multiblock masker.min_keep=0",
    "encoder=vit encoder.width=32 encoder.depth=1 encoder.heads=2 encoder.drop_path=0.1",
    "predictor=vit_predictor predictor.width=16 predictor.depth=1 predictor.heads=2",
]
"""``tiny.BASE`` as a person would write it."""
FOREVER = 100_000
"""Steps that nobody waits for."""


class Command:
    """``jepakit train`` in a process group of its own."""

    def __init__(self, folder: Path, *settings: str):
        self.folder, self.output = folder, folder.parent / "output"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with self.output.open("ab") as output:
            command = [sys.executable, "-m", "jepakit.cli", "train", f"run={folder}", *settings]
            self.process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait_for_step(self, step: int) -> None:
        """Until the log has come that far."""
        log = self.folder / "log.jsonl"
        while not log.exists() or log.read_bytes().count(b"\n") < step:
            assert self.process.poll() is None, self.said()
            time.sleep(0.01)

    def end(self, number: int, group: bool = False) -> int:
        """Send a signal to the process, or to all of its group, and wait. Returns the exit code."""
        (os.killpg if group else os.kill)(self.process.pid, number)
        return self.process.wait()

    def said(self) -> str:
        return self.output.read_text()

    def alone(self) -> bool:
        """Whether the whole group has gone; workers that lost their parent notice it after some seconds."""
        for _ in range(3000):
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.01)
        return False


@pytest.fixture
def command(tmp_path: Path) -> Iterator[list[Command]]:
    """A list of the commands that a test starts; what is left of them is ended."""
    started: list[Command] = []
    yield started
    for each in started:
        try:
            os.killpg(each.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        each.process.wait()


def begin(started: list[Command], folder: Path, *settings: str) -> Command:
    everything = " ".join(SETTINGS).split() + list(settings)
    started.append(Command(folder, *everything))
    return started[-1]


WAYS = {
    "Ctrl-C, which the whole group gets": (signal.SIGINT, True),
    "SIGTERM to the whole group, workers too": (signal.SIGTERM, True),
}


@pytest.mark.parametrize("way", WAYS)
def test_told_to_stop(way, tmp_path, command):
    number, group = WAYS[way]
    folder = tmp_path / "run"
    running = begin(command, folder, "data.workers=2", f"trainer.steps={FOREVER}", "trainer.checkpoint_every=50000")
    running.wait_for_step(3)
    assert running.end(number, group) == 130, running.said()
    last = len(tiny.lines(folder))
    assert f"stopped and saved at step {last:,}; go on with: jepakit train run={folder}" in running.said()
    assert "Traceback" not in running.said() and "Error" not in running.said() and "error" not in running.said()
    assert running.alone() and [path.name for path in tiny.checkpoints(folder)] == [f"step-{last:08d}"]
    assert not (folder / "finished").exists()


def test_killed_with_workers_and_continued_by_the_line_it_began_with(tmp_path, command, undisturbed):
    folder, settings = tmp_path / "run", ["data.workers=1", f"trainer.steps={tiny.STEPS}", "trainer.checkpoint_every=2"]
    running = begin(command, folder, *settings)
    running.wait_for_step(random.Random(0).randrange(3, 8))
    assert running.end(signal.SIGKILL) == -signal.SIGKILL and running.alone()
    again = begin(command, folder, *settings)
    assert again.process.wait() == 0, again.said()
    log, state = undisturbed()
    assert "resumed at step" in again.said() and tiny.lines(folder) == log
    assert tiny.same(tiny.saved(tiny.config(), folder)[1], state) and (folder / "finished").exists()
