"""Checkpoints that are written while training goes on: one at a time."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from torch import distributed
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from jepakit.distributed import place, together

Put = Callable[[Mapping[str, Any], Any], None]
"""Write a state; what processes have to say to one another meanwhile goes through a group of their own."""


class Background:
    """A thread that writes copies of the state.

    Raises, at the next call or where it is waited for, what the writing raised.
    """

    def __init__(self) -> None:
        self.group = distributed.new_group(backend="gloo") if place().world > 1 else None
        self.thread: threading.Thread | None = None
        self.failure: BaseException | None = None

    def __call__(self, put: Put, state: Mapping[str, Any]) -> None:
        """Wait for the last one, copy the state, and begin to write it."""
        self.wait()
        copy = BlockingAsyncStager().stage(dict(state))
        self.thread = threading.Thread(target=self.run, args=(put, copy), name="checkpoint", daemon=True)
        self.thread.start()

    def run(self, put: Put, state: Mapping[str, Any]) -> None:
        """In the thread."""
        try:
            put(state, self.group)
        except BaseException as error:  # whatever it is, it is raised where it is waited for
            self.failure = error

    def wait(self) -> None:
        """Until what was begun is on disk."""
        if self.thread is not None:
            self.thread.join()
            self.thread, failure, self.failure = None, self.failure, None
            together(lambda: _raise(failure))


def _raise(failure: BaseException | None) -> None:
    if failure is not None:
        raise failure
