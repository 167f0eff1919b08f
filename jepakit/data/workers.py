"""Worker processes: how many, what their errors and their deaths become, and who ends them."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from jepakit.data.desks import Desks
from jepakit.distributed import place
from jepakit.errors import DataError

MAX_WORKERS = 8
"""Worker processes that are started where their number is left open."""
REMOTE = "in DataLoader worker process"
"""What torch writes into an error that it carries over from a worker."""


def workers(wanted: int | None) -> int:
    """The number of worker processes: as wanted, or one fewer than the cores that are this process's share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // place().near - 1, 1), MAX_WORKERS) if wanted is None else wanted


def items(loader: DataLoader) -> Iterator[Any]:
    """What a DataLoader yields; what its workers die of or report becomes a DataError of one line."""
    with _interrupts_held_back():
        iterator = iter(loader)
    with _in_use(iterator):
        while True:
            try:
                item = _next(iterator)
            except StopIteration:
                return
            except DataError as error:  # with the worker's traceback in its text
                raise DataError(str(error).strip().splitlines()[-1].split("DataError: ")[-1]) from None
            except RuntimeError as error:
                if not str(error).startswith("DataLoader"):
                    raise
                _look(iterator, loader, error)
                continue
            yield item


def _next(iterator: Iterator[Any]) -> Any:
    try:
        return next(iterator)
    except (EOFError, OSError) as error:
        if REMOTE in str(error) or getattr(iterator, "_num_workers", 0) == 0:
            raise  # the source's own
        raise RuntimeError(f"DataLoader worker is gone ({type(error).__name__})") from error


def _look(iterator: Any, loader: DataLoader, error: RuntimeError) -> None:
    """Why the next batch lets one wait. Raises DataError where a worker is dead, or at one sample for too long."""
    desks: Desks = getattr(loader.dataset, "desks", Desks(0))
    if str(error).startswith("DataLoader timed out"):
        desks.refuse_stuck()
        return
    dead = [number for number, worker in enumerate(iterator._workers) if not worker.is_alive()]
    names = " and ".join(filter(None, map(desks.of, dead)))
    died = str(error).rstrip(". ") + f", reading {names}" * bool(names)
    raise DataError(f"{died}; if memory ran out, try fewer data.workers") from error


@contextlib.contextmanager
def _in_use(iterator: Iterator[Any]) -> Iterator[None]:
    """Left to the garbage collector, which an error's traceback holds off, the workers would outlive their use."""
    with DEATHS:
        try:
            yield
        finally:
            getattr(iterator, "_shutdown_workers", lambda: None)()


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes that are started meanwhile never see Ctrl-C: the main process does, and ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Deaths:
    """The death of a worker is noticed where the next batch is waited for, and nowhere else.

    torch also tells of it from a signal handler, wherever the main thread is: a step or a checkpoint would be left half
    done. The first loader sets that handler up, once and for all; it is taken back for as long as any batches are read.
    """

    readers: int = 0
    handler: Any = None

    def __enter__(self) -> None:
        self.readers += 1
        if self.readers == 1 and threading.current_thread() is threading.main_thread():
            signal_handling._set_SIGCHLD_handler()
            self.handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def __exit__(self, *_: object) -> None:
        self.readers -= 1
        if self.readers == 0 and self.handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, self.handler)
            self.handler = None


DEATHS = _Deaths()
