"""Where a launcher and the processes that it has started leave word for one another. Nothing here imports torch, so
that a process that has nothing left to do knows it at once."""

import contextlib
import dataclasses
import json
import os
import signal
import time
from pathlib import Path

from jepakit.errors import UserError

ROOM = "JEPAKIT_ROOM"
"""Variable that tells workers where they leave word of themselves."""
LAUNCHER = "JEPAKIT_LAUNCHER"
"""Variable that tells workers whose end is theirs."""
INTERRUPTED = 130
"""Exit code of a run that was told to stop, and saved."""


def failure(message: str, exit_code: int, kind: type[UserError] = UserError) -> UserError:
    """An error with an exit code of its own, which pickle can carry to another process."""
    error = kind(message)
    error.exit_code = exit_code
    return error


@dataclasses.dataclass
class Report:
    """How a worker's training ended: with an exit code of its own, or for a reason that its user or author can mend."""

    code: int
    error: str = ""
    trace: str = ""
    """Of what is a mistake of the program's; empty where ``error`` says all there is to say."""
    elsewhere: bool = False
    """Whether another process failed, and says why."""
    rank: int = 0
    time: float = dataclasses.field(default_factory=time.time)

    @property
    def good(self) -> bool:
        return not (self.error or self.trace or self.elsewhere)


class Room:
    """A folder in which launcher and workers leave word for one another.

    Workers write who they are (``rank.pid``) and how they ended (``rank.json``), the launcher that all shall end
    (``asked``): who starts later than that ends at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.killed: set[int] = set()
        """Ranks that were in the way of the end."""

    def enter(self, rank: int) -> bool:
        """Say who works here. Returns whether there is anything left to do: all may have been asked to end."""
        self._write(f"{rank}.pid", str(os.getpid()))
        return not (self.folder / "asked").exists()

    def leave(self, report: Report) -> None:
        """Say how it ended."""
        self._write(f"{report.rank}.json", json.dumps(dataclasses.asdict(report)))

    def _write(self, name: str, text: str) -> None:
        beside = self.folder / f".{name}"
        beside.write_text(text, "utf-8")
        beside.replace(self.folder / name)

    def reports(self) -> list[Report]:
        """What workers have said, oldest first."""
        found = [Report(**json.loads(file.read_text("utf-8"))) for file in self.folder.glob("[0-9]*.json")]
        return sorted(found, key=lambda report: report.time)

    def processes(self) -> dict[int, int]:
        """The process of each rank that has begun to work."""
        return {int(file.stem): int(file.read_text()) for file in self.folder.glob("[0-9]*.pid")}

    def failed(self) -> bool:
        """Whether a process has died, or has reported anything but a good end."""
        good = {report.rank: report.good for report in self.reports()}
        lost = (rank not in good and not _alive(process) for rank, process in self.processes().items())
        return not all(good.values()) or any(lost)

    def ask(self) -> None:
        """Pass on that all shall save and end: to one process, since they agree, and to those that come later."""
        (self.folder / "asked").touch()
        for process in filter(_alive, self.processes().values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
                return

    def kill(self) -> None:
        """End all processes, and what they have started, at once."""
        for rank, process in self.processes().items():
            self.killed |= {rank} if _alive(process) else set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
