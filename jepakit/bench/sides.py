"""Those that are timed: a step that can be taken again and again, and the trainer's, of a configuration."""

import contextlib
import copy
import functools
import io
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from jepakit.bench import machine
from jepakit.bench.hooks import attached
from jepakit.bench.split import Now, Split, clock
from jepakit.branches import branches
from jepakit.build import seen_shape
from jepakit.data.workers import workers
from jepakit.distributed import joined
from jepakit.errors import ConfigError, TrainingError
from jepakit.parallel import SHARDS
from jepakit.train import Trainer

PREFETCH = 2
"""Batches that each worker process has ready: they say nothing of how fast more are made."""
FIXED = 2
"""Steps whose batches are kept, for each branch, where no others are read."""
NEVER = 10**9
"""Steps to the next line of the log, which is no part of a step."""


class Side:
    """A step that can be taken again and again, and what it took.

    Args:
        label: what it is, for people.
        step: takes one step within ``split.step()``, and gives the number of its samples.
        split: knows the parts.
        device: what it is computed on.
        config: of the run whose step it is, or beside which it is timed.
        settle: steps after a pause that are not counted.
        now: the clock that a CPU's peak is measured by.
    """

    def __init__(
        self,
        label: str,
        step: Callable[[], int],
        split: Split,
        device: torch.device,
        config: Mapping[str, Any],
        settle: int = 1,
        now: Now = time.perf_counter,
    ):
        self.label, self.split, self.device, self.config = label, split, device, config
        self.settle, self._step, self.threads = settle, step, torch.get_num_threads()
        self.samples, self.memory, self._now = 0, 0.0, now
        self.compiles = False
        self.stated = machine.stated(device, config["trainer"]["precision"])
        self.peak = self.stated or 0.0
        self.rounds: list[list[dict[str, float]]] = []

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """With as many threads as its configuration says: they are the process's, and others have others."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def turn(self, steps: int, settle: int = 0) -> None:
        """Take ``settle`` steps that are not counted, then ``steps`` that are: a round."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.rounds.append(self.take(settle + steps)[settle:])
        if self.device.type == "cuda":
            self.memory = max(self.memory, torch.cuda.max_memory_allocated(self.device) / 2**30)
        if not self.stated:  # each time anew: there may be a round in which nobody else wants the machine
            with self.own():
                measured = machine.measured(self.device, self.config["trainer"]["precision"], self._now)
            self.peak = max(self.peak, measured)

    def take(self, steps: int) -> list[dict[str, float]]:
        """Seconds of each part of ``steps`` steps, which are taken now."""
        with self.own():
            for _ in range(steps):
                self.samples = self._step()
            return self.split.taken()

    @property
    def unit(self) -> str:
        """Of samples: ``img``, ``clip``, or ``sample`` where there are both."""
        units = {"clip" if seen_shape(each)[1] > 1 else "img" for each in branches(self.config).values()}
        return units.pop() if len(units) == 1 else "sample"

    @property
    def steps(self) -> list[dict[str, float]]:
        """Seconds of each part of every step that counts."""
        return [step for each in self.rounds for step in each]


@contextlib.contextmanager
def of_config(
    label: str, config: Mapping[str, Any], now: Now = time.perf_counter, fixed: bool = False
) -> Iterator[Side]:
    """The trainer of a configuration, in a folder that is gone afterwards.

    ``now`` is the clock of a CPU; with ``fixed`` the first batches are taken again and again.

    Raises UserError as training would.
    """
    threads = torch.get_num_threads()
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        options = config["trainer"]
        if stack.enter_context(joined(options["device"], needed=options["strategy"] in SHARDS)).world > 1:
            raise ConfigError("bench times the step of one process: start it alone, not by torchrun or srun")
        folder = stack.enter_context(TemporaryDirectory(prefix="jepakit-bench-"))
        with contextlib.redirect_stdout(io.StringIO()):  # no terminal: it shows no bar of a run that is none
            trainer = Trainer(_quiet(config), Path(folder))
        stack.callback(trainer.log.close)
        trainer.steps = NEVER  # the last step of a run writes a line
        split = Split(clock(trainer.device, now))
        stack.enter_context(attached(trainer, split))
        trainer.step = max(branch.first for branch in trainer.branches)  # a step that all branches are part of
        stream = stack.enter_context(contextlib.closing(trainer.stream(trainer.step, NEVER)))
        batches = itertools.cycle(itertools.islice(stream, FIXED * len(trainer.branches))) if fixed else stream
        step = functools.partial(_step, trainer, batches, split)
        side = Side(label, step, split, trainer.device, config, 1 if fixed else 1 + _ready(trainer), now)
        side.compiles = trainer.compiles
        torch.set_num_threads(threads)
        yield side


def _ready(trainer: Trainer) -> int:
    """Steps whose batches workers have ready after a pause."""
    each = (PREFETCH * workers(branch.config["data"]["workers"]) / branch.accumulate for branch in trainer.branches)
    return math.ceil(max(each))


def _step(trainer: Trainer, stream: Iterator[Any], split: Split) -> int:
    """A step of a run, from asking for its batches to the teacher's move."""
    with split.step():
        with split("data"):
            taken = trainer.fetch(stream, [])
        done = trainer.train_step(taken)
    if done is None:
        raise TrainingError(f"step {trainer.step}: loss or gradient is not finite, so that no whole step was timed")
    trainer.step += 1
    return sum(len(batch.index) for each in taken for batch in each.batches)


def _quiet(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same run in one process, without what lies between its steps."""
    made = copy.deepcopy(dict(config))
    made["evaluate"] |= {"every": 0, "protocols": []}
    made["logger"] |= {"tensorboard": False, "wandb": None}
    made["trainer"] |= {"log_every": NEVER, "devices": None}
    made["start"] |= {"weights": None}
    return made
