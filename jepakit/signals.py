"""Signals while training: who asks the run to stop, and who must not disturb it."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from torch.utils.data._utils import signal_handling


@contextlib.contextmanager
def stop_at_signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM ask the loop to save and end; a second one ends it at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deaths_held_back() -> Iterator[None]:
    """The death of a worker is noticed where the next batch is waited for, and nowhere else.

    torch also tells of it from a signal handler, wherever the main thread is: a step or a checkpoint would be left half
    done. The first loader sets that handler up, once and for all, so that is done here and taken back for a while.
    """
    signal_handling._set_SIGCHLD_handler()
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
