"""What each worker process is reading, and for how long: a sample that hangs or kills is known by its name.

In the worker an alarm ends what takes too long, and the sample is replaced as if it could not be read. Code that no
alarm interrupts (a call into C that never comes back) is seen from the process that waits, which gives up.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import get_worker_info

from jepakit.errors import DataError

LOOK = 5.0
"""Seconds between two looks at workers that let one wait."""
PATIENCE = 2.0
"""Multiples of the time that a sample may take after which its worker is given up."""


class TooLong(BaseException):
    """A sample takes longer than it may. No source takes this for a mistake in its file: it is no Exception."""


class Desks:
    """One for each worker, in memory that they share with the process which waits for them. Spawn-safe.

    Args:
        count: of worker processes; with none, samples are read here, and may take as long as they do.
        seconds: that a sample may take; None: as long as it does.
        name: of a sample, for people.
    """

    def __init__(self, count: int, seconds: float | None = None, name: Callable[[int], str] = str):
        self.seconds, self.name = seconds, name
        self._table = torch.zeros(count, 2, dtype=torch.float64)  # each one's sample, and since when; 0: none
        if count:
            self._table.share_memory_()

    @property
    def look(self) -> float:
        """Seconds between two looks, as a DataLoader's ``timeout``; 0: no look is taken."""
        return float(min(LOOK, self.seconds)) if self.seconds and len(self._table) else 0.0

    @contextlib.contextmanager
    def reading(self, index: int) -> Iterator[None]:
        """While a sample is read. Raises TooLong in a worker, from within, after that time."""
        info = get_worker_info()
        if info is None or info.id >= len(self._table):
            yield
            return
        desk = self._table[info.id]
        desk[0], desk[1] = index, time.monotonic()
        try:
            with _alarm(self.seconds):
                yield
        finally:
            desk[1] = 0

    def refuse_stuck(self) -> None:
        """Raise DataError that names what workers have been reading for much longer than they may."""
        limit = PATIENCE * self.seconds if self.seconds else float("inf")
        names = [self.name(int(index)) for index, since in self._table.tolist() if 0 < since < time.monotonic() - limit]
        if names:
            raise DataError(f"no end of reading {' and '.join(names)} after {limit:g} seconds (twice data.timeout)")

    def of(self, worker: int) -> str:
        """What a worker is reading, or was when it died; empty for nothing."""
        index, since = self._table[worker].tolist() if worker < len(self._table) else (0, 0)
        return self.name(int(index)) if since else ""


@contextlib.contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raises TooLong from wherever the program is then."""
    if not seconds:
        yield
        return

    def ring(*_: Any) -> None:
        raise TooLong(f"not read within {seconds:g} seconds (data.timeout)")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
