"""Videos are decoded in a process of its own, which can be ended whatever it does.

A damaged file can keep a decoder busy for ever, or crash it, inside of C code that no signal and no thread interrupts.
So each process that reads samples has one helper, that decodes for it and imports no torch. A sample that takes too
long costs the helper its life and the sample its place (BadSample); the next sample gets a new helper. Frames come
through a socket, which costs a small part of what decoding them does.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jepakit.data import BadSample
from jepakit.data.decoders import Facts
from jepakit.errors import DataError

START = 300.0
"""Seconds that a helper may take to start: an import on a busy machine."""
BOOT = """
import json, sys
path, *rest = json.loads(sys.argv[1])
sys.path[:] = path
from jepakit.data.helper import serve
serve(*rest)
"""

MADE: weakref.WeakSet["Isolated"] = weakref.WeakSet()
"""All that there are in this process."""


class Isolated:
    """Reads clips by a helper process, which is started when it is first needed. Each forked process gets its own.

    Args:
        names: registered decoders; a file that the first cannot read, or dies of, is tried with the next.
        seconds: that one decoder may take for a clip.
        max_pixels: videos with frames of more pixels are refused.
    """

    def __init__(self, names: Sequence[str], seconds: float, max_pixels: int):
        self.names, self.seconds, self.max_pixels = list(names), seconds, max_pixels
        self._helper: tuple[subprocess.Popen, Connection] | None = None
        self._owner, self._end = 0, contextlib.nullcontext
        MADE.add(self)

    def clip(self, path: str, choose: Callable[[Facts], Sequence[int]]) -> UInt8[np.ndarray, "T H W 3"]:
        """The frames of a video that ``choose`` names, in its order. It may be asked again, and answers the same.

        Raises BadSample where the file cannot be read in time or ``choose`` raises ValueError, DataError where no
        decoder can be used.
        """
        reasons = []
        for first in range(len(self.names)):
            self._ensure()
            try:
                return self._clip(path, choose, first, time.monotonic() + self.seconds)
            except TimeoutError:
                self.close()
                reasons.append(f"not decoded within {self.seconds:g} seconds")
            except (EOFError, OSError):  # before an answer, or in the middle of one
                reasons.append(f"the decoder crashed: {self._died()}")
            except (BadSample, DataError):
                raise
            except BaseException:  # Ctrl-C: what the helper answers now would be taken for another answer
                self.close()
                raise
        raise BadSample(path, "; ".join(dict.fromkeys(reasons)))

    def start(self) -> None:
        """Start the helper. Raises DataError where no decoder can be used."""
        self._ensure()

    def spent(self) -> float:
        """CPU seconds that the helper has used so far; none where there is none."""
        if self._helper is None or self._owner != os.getpid():
            return 0.0
        return self._ask("", time.monotonic() + self.seconds, spent=True)

    def close(self) -> None:
        """End the helper, if there is one."""
        self._end()
        self._helper = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_helper": None, "_owner": 0, "_end": contextlib.nullcontext}

    def _clip(self, path: str, choose: Callable[[Facts], Sequence[int]], first: int, deadline: float) -> np.ndarray:
        facts = Facts(*self._ask(path, deadline, open=path, first=first))
        try:
            numbers, places = np.unique(choose(facts), return_inverse=True)
        except ValueError as error:
            raise BadSample(path, str(error)) from error
        frames = np.empty(self._ask(path, deadline, read=numbers.tolist()), np.uint8)
        self._connection.recv_bytes_into(memoryview(frames).cast("B"))
        return frames if np.array_equal(places, np.arange(len(frames))) else frames[places]

    def _ask(self, path: str, deadline: float, **request: Any) -> Any:
        self._connection.send_bytes(json.dumps(request).encode())
        answer = self._answer(deadline - time.monotonic())
        if "bad" in answer:
            raise BadSample(path, answer["bad"])
        return answer["good"]

    def _answer(self, seconds: float) -> dict[str, Any]:
        if not self._connection.poll(max(seconds, 0)):
            raise TimeoutError
        return json.loads(self._connection.recv_bytes())

    @property
    def _connection(self) -> Connection:
        assert self._helper is not None
        return self._helper[1]

    def _ensure(self) -> None:
        """There is a helper of this very process; one that was inherited by a fork is the parent's."""
        if self._helper is not None and self._owner == os.getpid():
            return
        mine, theirs = Pipe()
        request = json.dumps([sys.path, theirs.fileno(), self.names, self.max_pixels, self.seconds])
        command = [sys.executable, "-P", "-c", BOOT, request]
        with interrupts_blocked(), theirs:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self._helper, self._owner = (process, mine), os.getpid()
        self._end = weakref.finalize(self, end, process, mine, self._owner)
        try:
            answer = self._answer(START)
        except (EOFError, OSError) as error:
            raise DataError(f"the process that decodes videos does not start ({self._died()})") from error
        if "unusable" in answer:
            self.close()
            raise DataError(answer["unusable"])

    def _died(self) -> str:
        """What became of a helper that went away by itself."""
        assert self._helper is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._helper[0].wait(1)
        code = self._helper[0].returncode
        self.close()
        return signal.Signals(-code).name if code and code < 0 else f"exit code {code}"


def spent() -> float:
    """CPU seconds of all helpers of this process; those that have ended count among its other children."""
    ended = os.times()
    return ended.children_user + ended.children_system + sum(each.spent() for each in MADE)


def unusable(name: str) -> str:
    """Why a video decoder cannot be used on this machine; empty where it can."""
    helper = Isolated([name], START, 1)
    try:
        helper.start()
    except DataError as error:
        return str(error).split(f"decoder {name}: ")[-1]
    finally:
        helper.close()
    return ""


def end(process: subprocess.Popen, connection: Connection, owner: int) -> None:
    """End a helper, but not that of another process which this one was forked from."""
    connection.close()
    if os.getpid() == owner:
        process.kill()
        process.wait()
    else:
        process.returncode = 0  # not ours to wait for


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Processes that are started meanwhile never see Ctrl-C: it is the main process's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
