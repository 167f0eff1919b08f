"""A run's instruments: how fast it goes, what it waits for, how much of the device it uses, what it holds in memory.

Nothing here waits for a device: a step that looks at its loss has waited by itself. What is no training (scores,
checkpoints) is left out of all of it.
"""

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from jepakit.peaks import peak


class Counts(NamedTuple):
    """What a stretch of training came to: ``seconds`` of it, and those of them spent ``waiting`` for data, optimiser
    ``steps``, and ``samples`` of this process."""

    seconds: float = 0.0
    waiting: float = 0.0
    steps: int = 0
    samples: int = 0

    def since(self, other: "Counts") -> "Counts":
        """What came after ``other``."""
        return Counts(*(mine - before for mine, before in zip(self, other, strict=True)))


class Pace:
    """The figures of one process; a line of the log has those since the line before it.

    Args:
        world: processes that share a step; they go at the same pace.
        flops: floating-point operations of a sample in training, forward and backward; None: not known.
        peak: FLOP/s that the device of a process could do; None: not known.
        device: whose memory is looked at.
        clock: seconds, from anywhere.
    """

    def __init__(
        self,
        world: int = 1,
        flops: float | None = None,
        peak: float | None = None,
        device: torch.device | str = "cpu",
        clock: Callable[[], float] = time.monotonic,
    ):
        self.world, self.flops, self.peak, self.device, self._clock = world, flops, peak, torch.device(device), clock
        self._begun, self._waited, self._steps, self._samples = clock(), 0.0, 0, 0
        self._line = Counts()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what asks the loader for a step's batches."""
        begun = self._clock()
        try:
            yield
        finally:
            self._waited += self._clock() - begun

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is no training: it never happened."""
        begun = self._clock()
        try:
            yield
        finally:
            self._begun += self._clock() - begun

    def count(self, samples: int) -> None:
        """A step has ended that took so many ``samples`` of this process."""
        self._steps += 1
        self._samples += samples

    @property
    def counts(self) -> Counts:
        """All since the run began, or went on."""
        return Counts(self._clock() - self._begun, self._waited, self._steps, self._samples)

    def line(self) -> dict[str, float]:
        """The figures since the last call, which is what a line of the log holds.

        ``images_per_second`` (or clips, samples) of all processes, ``images_per_second_rank`` of this one,
        ``data_wait``, the share of time spent waiting for data, ``mfu``, model FLOPs utilisation (Chowdhery et al.,
        arXiv 2204.02311, section 4.1: what is computed again does not count), and memory, see ``memory``.
        """
        now = self.counts
        done, self._line = now.since(self._line), now
        seconds = max(done.seconds, 1e-9)
        speed = done.samples / seconds
        found = {"images_per_second": speed * self.world, "images_per_second_rank": speed}
        found |= {"data_wait": done.waiting / seconds}
        if self.flops is not None and self.peak is not None:
            found["mfu"] = speed * self.flops / self.peak
        return found | memory(self.device)

    def left(self, steps: int) -> float:
        """Seconds that ``steps`` more will take, at the pace since the run began or went on."""
        return self.counts.seconds / max(self._steps, 1) * steps


def memory(device: torch.device) -> dict[str, float]:
    """Peaks so far, in GiB: ``memory_gib`` that the process held, ``gpu_memory_gib`` of tensors and
    ``gpu_reserved_gib`` that the allocator took for them."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
    found = {"memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}
    if device.type == "cuda":
        found["gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        found["gpu_reserved_gib"] = torch.cuda.max_memory_reserved(device) / 2**30
    return found


def instruments(config: Mapping[str, Any], device: torch.device, world: int = 1) -> Pace:
    """Those of a run. Operations are counted where the device's peak is known: on GPUs of ``jepakit.peaks``."""
    known = peak(device, config["trainer"]["precision"])
    return Pace(world, None if known is None else sample_flops(config), known, device)


def sample_flops(config: Mapping[str, Any]) -> float | None:
    """Floating-point operations of a sample in training, on average over those of a step; None: nobody counts them."""
    try:
        from jepakit.plan.count import step
    except ModuleNotFoundError:
        return None
    counts = step(config)
    return counts.flops / counts.samples
