"""Command lines of their own processes, and the command line in this one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import cli, trained  # noqa: F401
from tests.launch.commands import JEPAKIT, Command, kill_marked


@pytest.fixture
def begin() -> Iterator[Callable[..., Command]]:
    """``begin(folder, "trainer.steps=3", ...)`` trains in a process of its own; what is left of it is ended."""
    started: list[Command] = []

    def start(folder: Path, *settings: str, before: tuple[str, ...] = (), **variables: str) -> Command:
        argv = [*before, *JEPAKIT, "train", f"run={folder}", *settings]
        started.append(Command(folder, argv, **variables))
        return started[-1]

    yield start
    for each in started:
        kill_marked(each.mark)
        each.process.wait()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, dict]]:
    """What would have been started in several processes, which is not: the folder and the trainer's settings."""
    from jepakit import processes

    calls: list[tuple[Path, dict]] = []

    def run(folder, trainer, files=()):
        calls.append((folder, dict(trainer)))
        return 130

    monkeypatch.setattr(processes, "run", run)
    return calls
