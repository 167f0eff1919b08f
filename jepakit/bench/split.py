"""A step's time, cut into named parts that add up to all of it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch

from jepakit.errors import ConfigError

PARTS = ("data", "masks", "target", "context", "predictor", "loss", "backward", "optimiser", "ema")
"""Waiting for batches; drawing masks; who answers; the encoder; the predictor; distance and what is forbidden; the
backward pass; the optimiser's step; what moves slowly. In this order they are printed."""
REST = "rest"
"""What belongs to no part: schedules, the norm of the gradient and its clipping, what lies between."""

Now = Callable[[], float]
Part = Callable[[str], contextlib.AbstractContextManager[None]]
"""``with part("backward"):`` the time in there is that part's."""


@runtime_checkable
class Clock(Protocol):
    """Moments, and how far they are apart."""

    def mark(self) -> Any:
        """Now; it need not be known yet when that is."""
        ...

    def settle(self) -> None:
        """Wait until all moments so far are known."""
        ...

    def between(self, one: Any, other: Any) -> float:
        """Seconds from one moment to a later one."""
        ...


class Host:
    """A clock of the process: for CPUs. ``now`` is that on the wall, or counts the time that its threads compute."""

    def __init__(self, now: Now = time.perf_counter):
        self.now = now

    def mark(self) -> float:
        return self.now()

    def settle(self) -> None:
        pass

    def between(self, one: float, other: float) -> float:
        return other - one


class Events:
    """The clock of a GPU's stream: what the host does while the GPU is busy costs nothing, and waiting does."""

    def __init__(self, device: torch.device):
        self.device = device

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def settle(self) -> None:
        torch.cuda.synchronize(self.device)

    def between(self, one: Any, other: Any) -> float:
        return one.elapsed_time(other) / 1e3


CLOCKS: dict[str, Now] = {"wall": time.perf_counter, "cpu": time.process_time}
"""What ``clock=`` can be. ``cpu`` does not see who else wants the machine, nor what workers and GPUs do."""


def clock(device: torch.device, now: Now = time.perf_counter) -> Clock:
    """The one that tells how long a device takes. Raises ConfigError where that cannot be told by CPU time."""
    if device.type != "cuda":
        return Host(now)
    if now is CLOCKS["cpu"]:
        raise ConfigError(f"clock=cpu tells nothing of {device}: leave it out")
    return Events(device)


class Split:
    """Moments of steps at which one part ends and the next begins.

    Parts within a part are that part's: a teacher's own encoder is ``target``, what is computed again in the backward
    pass is ``backward``. Outside of ``step`` nothing is noted. ``around`` is entered with each part's name as well.
    """

    def __init__(self, clock: Clock, around: Part = lambda part: contextlib.nullcontext()):
        self.clock, self.around = clock, around
        self._inside = True  # nothing has begun: all is passed over
        self._steps: list[list[tuple[str, Any]]] = []

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Around one step, of which everything counts."""
        self._steps.append([(REST, self.clock.mark())])
        self._inside = False
        try:
            yield
        finally:
            self._inside = True
            self._steps[-1].append(("", self.clock.mark()))

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Around what belongs to ``part``."""
        if self._inside:
            yield
            return
        self._inside = True
        self._steps[-1].append((part, self.clock.mark()))
        try:
            with self.around(part):
                yield
        finally:
            self._steps[-1].append((REST, self.clock.mark()))
            self._inside = False

    def taken(self) -> list[dict[str, float]]:
        """Seconds of each part of every step since the last call."""
        self.clock.settle()
        steps, self._steps = self._steps, []
        return [self._seconds(marks) for marks in steps]

    def _seconds(self, marks: list[tuple[str, Any]]) -> dict[str, float]:
        found: dict[str, float] = {}
        for (part, begun), (_, ended) in zip(marks, marks[1:], strict=False):
            found[part] = found.get(part, 0.0) + self.clock.between(begun, ended)
        return found
