"""Whatever a decoder does to the process that it runs in, the one that trains goes on."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jepakit.data import BadSample
from jepakit.data.isolated import Isolated, spent
from jepakit.errors import DataError
from tests.data.make import video

PLUGIN = """
import ctypes, os, pathlib
from jepakit.hookspecs import hookimpl

class Odd:
    suffixes, channels = (".mp4",), 3

    def open(self, path):
        name = os.path.basename(path)
        if name == "hang":
            pathlib.Path(path + ".pid").write_text(str(os.getpid()))
            ctypes.PyDLL(None).sleep(1000)  # in C, and with the interpreter's lock
        if name == "crash":
            ctypes.string_at(0)
        if name == "exit":
            os._exit(7)
        raise RuntimeError("[11:36:22] /src/of/it.cc:83: no such\\nluck with " + path)

class Missing(Odd):
    def __init__(self):
        raise ImportError("lib is\\nmissing")

@hookimpl
def jepakit_register(registrar):
    registrar.decoder("odd", Odd)
    registrar.decoder("missing", Missing)
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A plugin with decoders that misbehave."""
    (tmp_path / "odd.py").write_text(PLUGIN)
    monkeypatch.setenv("JEPAKIT_PLUGIN_FILES", str(tmp_path / "odd.py"))


def first_two(facts) -> list[int]:
    return [0, 1]


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_many_files_leave_nothing_behind(tmp_path):
    paths = [str(video(tmp_path / name, 12)) for name in ("a.mp4", "b.mkv")]
    (tmp_path / "c.mp4").write_text("no")
    for name in ("decord", "pyav"):
        reader = Isolated([name], 60.0, 10**6)
        reader.clip(paths[0], first_two)
        process = reader._helper[0].pid
        before = handles(), len(os.listdir(f"/proc/{process}/fd"))
        for i in range(50):
            assert reader.clip(paths[i % 2], first_two).shape == (2, 64, 96, 3)
            with pytest.raises(BadSample):
                reader.clip(str(tmp_path / "c.mp4"), first_two)
        assert process == reader._helper[0].pid
        assert before == (handles(), len(os.listdir(f"/proc/{process}/fd")))
        used = spent()
        assert 0 < reader.spent() <= used
        reader.close()
        assert reader.spent() == 0 and spent() >= used - 0.02  # told in other ways, of which one counts in hundredths
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_decoder_that_hangs_or_crashes_costs_one_sample(tmp_path, odd):
    reader = Isolated(["odd"], 60.0, 10**6)
    for name, seconds, reason in (
        ("crash", 60.0, "the decoder crashed: SIGSEGV"),
        ("exit", 60.0, "the decoder crashed: exit code 7"),
        ("hang", 0.5, "not decoded within 0.5 seconds"),
    ):
        reader.seconds = seconds
        with pytest.raises(BadSample, match=reason):
            reader.clip(f"{tmp_path}/{name}", first_two)
    pid = int(Path(f"{tmp_path}/hang.pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    reader.close()
    reader = Isolated(["odd", "pyav"], 60.0, 10**6)
    for name in ("crash", "exit"):  # what one decoder dies of, the next may read
        path = video(tmp_path / "good.mp4", 5).rename(tmp_path / name)
        assert reader.clip(str(path), first_two).shape == (2, 64, 96, 3)
    with pytest.raises(BadSample, match=r"^/none: not .* \(odd: no such luck with the file; pyav: No such file"):
        reader.clip("/none", first_two)
    reader.close()


def test_a_decoder_that_dies_in_the_middle_of_an_answer_costs_one_sample(tmp_path, monkeypatch):
    def cut(seconds: float) -> None:
        raise OSError("got end of file during message")

    video(tmp_path / "a.mp4")
    decoding = Isolated(["pyav"], 30.0, 10**8)
    decoding.start()
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_answer", cut)
        with pytest.raises(BadSample, match="the decoder crashed"):
            decoding.clip(str(tmp_path / "a.mp4"), lambda facts: [0])
    assert len(decoding.clip(str(tmp_path / "a.mp4"), lambda facts: [0])) == 1
    decoding.close()


def test_a_decoder_that_cannot_be_used_is_the_data_sets_error(tmp_path, odd):
    reader = Isolated(["missing"], 60.0, 10**6)
    for _ in range(2):
        with pytest.raises(DataError, match="^no video can be decoded here; decoder missing: lib is missing$"):
            reader.clip("a", first_two)
    reader = Isolated(["missing", "pyav"], 60.0, 10**6)
    assert reader.clip(str(video(tmp_path / "a.avi", 5, "mjpeg")), first_two).shape == (2, 64, 96, 3)
    reader.close()


def test_another_process_gets_its_own(tmp_path):
    path = str(video(tmp_path / "a.mp4", 5))
    reader = Isolated(["pyav"], 60.0, 10**6)
    expected = reader.clip(path, first_two)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy._helper is None
    with pytest.raises(BadSample, match="chosen by nobody"):
        copy.clip(path, nobody)
    assert (copy.clip(path, first_two) == expected).all() and copy._helper[0].pid != reader._helper[0].pid
    copy.close()
    reader.close()


def nobody(facts) -> list[int]:
    raise ValueError("chosen by nobody")


ORPHAN = """
from jepakit.data.isolated import Isolated, spent
Isolated(["odd"], 1.0, 10**6).clip("{path}", lambda facts: [0])
"""


def test_one_that_hangs_ends_after_its_parent_is_killed(tmp_path, odd):
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN.format(path=tmp_path / "hang")], stderr=subprocess.DEVNULL)
    note, deadline = tmp_path / "hang.pid", time.monotonic() + 60
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.01)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    pid = int(note.read_text())
    while running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid: int) -> bool:
    """Whether a process is there, and not only waiting to be noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
