"""A disk that is full: the run ends with a reason, and goes on from its newest checkpoint once there is room."""

import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jepakit import checkpoint, train
from jepakit.errors import CheckpointError
from tests.train import tiny
from tests.train.conftest import at, bare, undisturbed  # noqa: F401

SIZE = "4m"
"""Of the disk. A checkpoint of the tiny run is a twentieth of it."""


class Disk:
    """One that can be filled: a small file system in memory, or, where none may be mounted, a limit on files."""

    def __init__(self, folder: Path):
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
        self.mounted = bool(shutil.which("mount")) and not subprocess.run(mount, stderr=subprocess.DEVNULL).returncode
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        """Leave room for a line of the log and not for a checkpoint."""
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, self.before[1]))
            return
        free = shutil.disk_usage(self.folder).free
        (self.folder / "filler").write_bytes(bytes(max(0, free - 65536)))

    def empty(self) -> None:
        """Make room again."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Take it away."""
        self.empty()
        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """An empty one."""
    (tmp_path / "disk").mkdir()
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_disk_that_fills_up(foreseen, disk, at, undisturbed, monkeypatch):  # noqa: F811
    """Whether it is seen before a checkpoint is written, or in the middle of it, as others write on the same disk."""
    if not foreseen:
        monkeypatch.setattr(checkpoint, "ROOM", 0.0)
    log, state = undisturbed()
    made, folder = tiny.config(trainer__checkpoint_every=3), disk.folder / "run"
    folder.mkdir()
    at(5, disk.fill)
    with pytest.raises(CheckpointError) as caught:
        train.run(made, folder)
    line = str(caught.value)
    why = "no room in" if foreseen and disk.mounted else "[Errno 28]" if disk.mounted else "[Errno 27]"
    assert why in line and "\n" not in line
    assert [path.name for path in tiny.checkpoints(folder)] == ["step-00000003"]
    disk.empty()
    assert train.run(made, folder) == 0
    assert tiny.lines(folder) == log and tiny.same(tiny.saved(made, folder)[1], state)
