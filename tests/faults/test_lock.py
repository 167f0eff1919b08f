"""Two jobs in one run folder: the second is told who holds it. A job that is gone is in nobody's way."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jepakit import lock
from jepakit.errors import ConfigError

HOLDER = Path(__file__).with_name("holder.py")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen, str]]]:
    """Another process that tries to hold the folder, and what it says."""
    started: list[subprocess.Popen] = []

    def begin(*how: str, **environment: str) -> tuple[subprocess.Popen, str]:
        pipe = subprocess.PIPE
        command = [sys.executable, str(HOLDER), str(tmp_path), *how]
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | environment)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield begin
    for process in started:
        process.communicate()


def test_the_second_is_refused_by_name(start, tmp_path):
    process, said = start()
    assert said.startswith("held")
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught, lock.held(tmp_path):
        pass
    assert time.monotonic() - began < 60  # at once, and not when the other ends
    who = lock.Holder(**json.loads((tmp_path / lock.NAME).read_text()))
    assert (who.pid, who.host) == (process.pid, socket.gethostname())
    where = f"run={tmp_path}: process {process.pid} on {who.host} (since {who.since}) trains there"
    assert str(caught.value) == f"{where}; wait until it ends, or name another folder"
    assert start()[1] == str(caught.value)
    process.communicate()
    with lock.held(tmp_path):
        assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_within_a_process_it_is_held_once(start, tmp_path):
    with lock.held(tmp_path):
        with lock.held(tmp_path / "." / "."):
            pass
        assert "trains there" in start(JEPAKIT_LOCK="")[1]
    assert start()[1].startswith("held") and lock.TOKEN not in os.environ


def test_a_job_that_was_killed_and_its_worker_that_was_not(start, tmp_path, capsys):
    """The worker was forked off while the folder was held, and lives on."""
    process, said = start("fork")
    worker = int(said.split()[1])
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    os.kill(worker, 0)
    with lock.held(tmp_path):
        pass
    os.kill(worker, signal.SIGKILL)
    assert capsys.readouterr().err == ""


def test_what_a_holder_starts_shares_it(start, tmp_path):
    """And holds it on where the one that started it is killed."""
    process, said = start("worker")
    assert said == "shared"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(ConfigError, match=f"process {process.pid} on .* trains there"), lock.held(tmp_path):
        pass


def test_what_another_start_of_the_machine_left_behind(tmp_path, capsys):
    """Even where its number is that of a process that lives."""
    left = lock.Holder.me()._replace(boot="another", pid=os.getpid())
    (tmp_path / lock.NAME).write_text(json.dumps(left._asdict()))
    with lock.held(tmp_path):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', "\0" * 5000])
def test_a_file_that_says_nothing(content, tmp_path):
    (tmp_path / lock.NAME).write_text(content)
    with lock.held(tmp_path):
        pass


def test_another_machine_that_was_killed_is_told_of(tmp_path, capsys):
    """Its locks may not have come through."""
    left = lock.Holder("node7", 12, "2026-01-02 03:04:05", "other")
    (tmp_path / lock.NAME).write_text(json.dumps(left._asdict()))
    with lock.held(tmp_path):
        pass
    line = (
        f"jepakit: warning: run={tmp_path}: process 12 on node7 (since 2026-01-02 03:04:05) trained there and did not"
    )
    assert capsys.readouterr().err.startswith(line)


def test_clocks_have_no_say(start, tmp_path, monkeypatch):
    """A holder of the year 2040 or of 1970 holds as well as any."""
    assert start()[1].startswith("held")
    for seconds in (2209000000, 1):
        os.utime(tmp_path / lock.NAME, (seconds, seconds))
        monkeypatch.setattr(time, "time", lambda now=seconds: now)
        with pytest.raises(ConfigError, match="trains there"), lock.held(tmp_path):
            pass


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """Processes of the same machine are known by their numbers."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    parent = lock.Holder.me()._replace(pid=os.getppid())
    (tmp_path / lock.NAME).write_text(json.dumps(parent._asdict()))
    with pytest.raises(ConfigError, match=f"process {os.getppid()} on .*, or remove {tmp_path}/lock$"):
        with lock.held(tmp_path):
            pass
    (tmp_path / lock.NAME).write_text(json.dumps(parent._replace(pid=4194305)._asdict()))  # no such process
    with lock.held(tmp_path):
        pass


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / lock.NAME).symlink_to("precious")
    with pytest.raises(ConfigError, match="its file lock cannot be opened"), lock.held(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_many_at_once_are_one(tmp_path):
    """Whatever moment they come at, no two hold it together: each looks for the others' marks."""
    code = (
        "import sys, pathlib, os\nfrom jepakit.errors import ConfigError\nfrom jepakit.lock import held\n"
        "mark, done = pathlib.Path(sys.argv[1], 'mark'), 0\n"
        "while done < 40:\n"
        "    try:\n"
        "        with held(sys.argv[1]):\n"
        "            mark.touch(exist_ok=False)\n"
        "            mark.unlink()\n"
        "            done += 1\n"
        "    except ConfigError: pass\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    assert not list(tmp_path.iterdir())
