"""The loop on one page."""

import contextlib
import json
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepakit import checkpoint, health, seeds
from jepakit.build import build, parameters
from jepakit.data import open_source
from jepakit.data.loader import Loader
from jepakit.data.quarantine import Quarantine
from jepakit.device import autocast, pick_device
from jepakit.errors import TrainingError
from jepakit.log import Log
from jepakit.optim import adamw, set_schedules
from jepakit.types import Batch, Losses

INTERRUPTED = 130
"""Exit code of a run that was told to stop, and saved."""


def run(config: Mapping[str, Any], folder: Path) -> int:
    """Train what ``config`` describes in the run's folder, from its newest checkpoint on. Returns the exit code.

    Raises:
        UserError: what the user can put right: configuration, data, checkpoints, losses that are not finite.
    """
    trainer = Trainer(config, Path(folder))
    try:
        with stop_at_signals() as asked:
            finished = trainer.fit(asked)
    finally:
        trainer.log.close()
    return 0 if finished else INTERRUPTED


class Trainer:
    """A run: everything that a step needs, made once."""

    def __init__(self, config: Mapping[str, Any], folder: Path):
        self.config, self.folder, self.options = config, folder, config["trainer"]
        self.device = pick_device(self.options["device"], self.options["threads"])
        source = open_source(config["data"])
        self.loader = Loader(source, config["data"], config["seed"], self.device)
        self.epoch_steps = len(self.loader) / self.options["accumulate"]
        self.steps = self.options["steps"] or max(1, int(self.options["epochs"] * self.epoch_steps))
        self.quarantine = Quarantine(folder, config["data"]["max_bad"], len(source))
        built = build(config, self.steps)
        self.jepa, self.masker, self.grid = built.jepa.to(self.device).train(), built.masker, built.grid
        self.optimizer = adamw(self.jepa, config["optim"])
        notes: list[str] = []
        self.step = checkpoint.restore(folder, self.jepa, self.optimizer, self.options["verify"], notes.append)
        self.saved, self.skipped = self.step, 0
        self.log = Log(folder, self.steps, self.step, **config["logger"])
        for note in notes:
            self.log.say(note)
        if self.options["compile"]:
            compile_blocks(self.jepa)
        self.monitor = monitor(config, source, self.device, self.steps)

    def fit(self, asked: list[int]) -> bool:
        """Train to the last step, or until ``asked`` holds a signal. Returns whether the run is finished."""
        self.announce()
        every = self.options["checkpoint_every"] or max(1, min(self.steps // 20, int(self.epoch_steps)))
        micro = self.options["accumulate"]
        with contextlib.closing(self.loader.batches(self.step * micro, self.steps * micro)) as batches:
            while self.step < self.steps and not asked:
                values = self.train_step([next(batches) for _ in range(micro)])
                self.step += 1
                last = self.step == self.steps
                if values is not None and (self.step % self.options["log_every"] == 0 or last):
                    self.write(values)
                if self.monitor and (self.step % self.monitor.every == 0 or last):
                    self.score()
                if self.step % every == 0 or last:
                    self.save()
        if self.saved != self.step:
            self.save()
        self.farewell()
        return self.step == self.steps

    def train_step(self, batches: list[Batch]) -> dict[str, Tensor | float] | None:
        """One optimiser step over its micro-batches. Returns what is worth a line, None where the step was skipped.

        Loss and gradient are looked at before anything moves: neither optimiser nor teacher sees what is not finite.
        """
        rates = set_schedules(self.optimizer, self.config["optim"], self.step, self.steps, self.epoch_steps)
        for number, batch in enumerate(batches):
            self.quarantine.add(batch.replaced)
            losses = self.losses(batch, number)
            (losses.total / len(batches)).backward()
        norm = self.gradient_norm()
        finite = bool(torch.isfinite(losses.total.detach()) & torch.isfinite(norm))
        if finite:
            self.optimizer.step()
            self.jepa.anti_collapse.after_step(self.jepa.backbone, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.log.count(sum(len(batch.index) for batch in batches))
        if not finite:
            return self.skip(batches, losses, norm)
        self.skipped = 0
        self.trace = losses.trace
        parts = {name: part.detach() for name, part in losses.parts.items()} if len(losses.parts) > 1 else {}
        return {"loss": losses.total.detach(), **parts, "grad_norm": norm, **rates}

    def losses(self, batch: Batch, number: int) -> Losses:
        """The figure, for one micro-batch: its masks and its noise depend on seed and step alone."""
        key = (self.config["seed"], self.step, number)
        masks = self.masker(self.grid, len(batch.index), seeds.generator("masks", *key))
        masks = [m._replace(**{k: v.to(self.device) for k, v in m._asdict().items() if isinstance(v, Tensor)}) for m in masks]
        torch.manual_seed(seeds.key("noise", *key))
        with autocast(self.device, self.options["precision"]):
            return self.jepa(batch.views, masks, batch.condition)

    def gradient_norm(self) -> Tensor:
        """Of all trained parameters together, before it is clipped."""
        trained = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in trained])
        if self.config["optim"]["clip"] is not None:
            torch.nn.utils.clip_grads_with_norm_(trained, self.config["optim"]["clip"], norm)
        return norm

    def skip(self, batches: list[Batch], losses: Losses, norm: Tensor) -> None:
        """Leave a step out; after too many in a row, stop with what is needed to look at it again."""
        self.skipped += 1
        index = [i for batch in batches for i in batch.index.tolist()]
        found = {
            "step": self.step,
            "seed": self.config["seed"],
            "grad_norm": str(norm.item()),
            "losses": {name: str(part.item()) for name, part in losses.parts.items()},
            "index": index,
            "samples": [self.loader.source.describe(i) for i in index],
        }
        path = self.folder / f"nonfinite-step-{self.step:08d}.json"
        path.write_text(json.dumps(found, indent=1))
        self.log.say(f"step {self.step}: loss or gradient is not finite, step skipped; its samples are in {path}")
        if self.skipped > self.options["max_skips"]:
            raise TrainingError(
                f"{self.skipped} steps in a row had a loss or gradient that is not finite; the samples of the last one "
                f"are in {path}; try a lower optim.lr, optim.clip, or trainer.precision=fp32"
            )

    def write(self, values: Mapping[str, Tensor | float]) -> None:
        """A line of the log: the step's numbers, its health, the pace."""
        line = {**values, **health.figures(self.trace)}
        numbers = {name: float(value) for name, value in line.items()}
        speed = self.log.pace(self.step)[0]
        self.log.write(self.step, {"epoch": self.step / self.epoch_steps, **numbers, "images_per_second": speed})

    def score(self) -> None:
        """k-NN score and effective rank of the target encoder, as it is."""
        since = self.log.pause()
        self.log.write(self.step, self.monitor(self.jepa.target_backbone), show=False)
        self.log.resume(since)

    def save(self) -> None:
        since = self.log.pause()
        checkpoint.save(self.folder, self.jepa, self.optimizer, self.step, self.options["keep"])
        self.saved = self.step
        self.log.resume(since)

    def announce(self) -> None:
        """What is trained, on what, and for how long; the scores that there are to beat."""
        c, j = self.config, self.jepa
        sizes = {"encoder": j.backbone, "predictor": j.predictor, "trained in all": j}
        self.log.say(f"run {self.folder}  recipe {c['recipe'] or '-'}  device {self.device}")
        self.log.say("parameters: " + ", ".join(f"{name} {parameters(part):,}" for name, part in sizes.items()))
        self.log.say(
            f"data: {getattr(self.loader.source, 'describe_all', lambda: f'{len(self.loader.source):,} samples')()}; "
            f"{c['data']['batch_size'] * self.options['accumulate']} a step, {self.steps:,} steps "
            f"({self.steps / self.epoch_steps:.3g} epochs), tokens {self.grid.t} x {self.grid.h} x {self.grid.w}"
        )
        if self.step:
            self.log.say(f"resumed at step {self.step:,}")
        elif self.monitor and (controls := self.monitor.controls(j.target_backbone)):
            since = self.log.pause()
            self.log.write(0, controls | self.monitor(j.target_backbone), show=False)
            self.log.say("to beat: " + ", ".join(f"{name} {value:.3f}" for name, value in controls.items()))
            self.log.resume(since)

    def farewell(self) -> None:
        """How far it came, how to go on, and what it took."""
        if self.step < self.steps:
            self.log.say(f"stopped and saved at step {self.step:,}; go on with: jepakit train run={self.folder}")
        else:
            self.log.say(f"finished {self.steps:,} steps; next: jepakit eval run={self.folder} protocol=all")
        self.log.say(memory(self.device))


def monitor(config: Mapping[str, Any], source: Any, device: torch.device, steps: int) -> Any:
    """The score while training, or None where it is switched off. Its ``every`` is in steps."""
    from jepakit.evaluate.features import Reading
    from jepakit.evaluate.monitor import Monitor
    from jepakit.evaluate.protocols import Vote

    options = config["evaluate"]
    if options["every"] == 0:
        return None
    reading = Reading(config["data"], device, config["trainer"]["precision"])
    held_out = source.held_out_source() if hasattr(source, "held_out_source") else None
    found = Monitor(source, held_out, reading, options["samples"], Vote(options["k"], options["temperature"]))
    found.every = options["every"] or max(1, steps // 10)
    return found


def compile_blocks(model: torch.nn.Module) -> None:
    """Compile every block of every stack, for any number of tokens."""
    for module in model.modules():
        for block in getattr(module, "blocks", ()):
            block.compile(dynamic=True)


def memory(device: torch.device) -> str:
    """The most memory that the process has held."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
    text = f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB"
    if device.type == "cuda":
        text += f", on the GPU {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
    return text


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
