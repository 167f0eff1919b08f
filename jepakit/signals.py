"""Signals while training: who asks the run to stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def stop_at_signals() -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and SIGUSR1 (a cluster's notice) ask the loop to save and end; a second one ends it at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # whoever runs this in a thread hears them
        yield asked
        return

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in STOP}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
