"""Where a run's numbers go: the console, log.txt, log.jsonl, TensorBoard and, if asked, Weights & Biases.

A line belongs to a step. When a run is resumed, the lines past the step it resumes from are dropped, so that none is
lost or doubled.
"""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from jepakit.errors import ConfigError, DataError, TrainingError
from jepakit.health.course import ATTEMPT, FROM
from jepakit.pace import Pace

JSONL, TEXT = "log.jsonl", "log.txt"
SHOWN = {"loss": "{:.4f}", "lr": "{:.2e}", "std": "{:.3f}", "rank": "{:.1f}", "cosine": "{:.3f}", "knn": "{:.3f}"}
"""What of a step's numbers stands on its line, and how."""


class Log:
    """The numbers of one run.

    Args:
        folder: the run's.
        steps: optimiser steps of the whole run.
        start: the step that the run goes on from.
        unit: what is counted: ``img``, ``clip``, ``sample``.
        tensorboard, wandb: see ``jepakit.options.LoggerOptions``.
        attempt: how often the run was rolled back so far, see ``jepakit.health.rollback``.
        pace: how fast the run goes.
        silent: one of several processes, which leaves speaking and writing to the first.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        start: int,
        tensorboard: bool = True,
        wandb: str | None = None,
        unit: str = "img",
        attempt: int = 0,
        pace: Pace | None = None,
        silent: bool = False,
    ):
        self.attempt, self.silent = attempt, silent
        self.folder, self.steps, self.start, self.unit = Path(folder), steps, start, unit
        self.pace, self._known = pace or Pace(), {}
        spoken = not silent
        self._wandb = _wandb(wandb, self.folder) if wandb and spoken else None  # it may refuse: first
        if spoken:
            keep_until(self.folder / JSONL, start or -1, attempt)  # a run that starts over writes step 0 again
        self._jsonl: TextIO = (self.folder / JSONL if spoken else Path(os.devnull)).open("a")
        self._text: TextIO = (self.folder / TEXT if spoken else Path(os.devnull)).open("a")
        self._writer = _tensorboard(self.folder, start) if tensorboard and spoken else None
        self.console = Console(quiet=silent)
        self._progress = self._bar = None
        if self.console.is_terminal and spoken:
            self._progress = Progress(BarColumn(20), TextColumn("{task.description}"), console=self.console)
            self._bar = self._progress.add_task("", total=steps, completed=start)
            self._progress.start()

    def say(self, text: str) -> None:
        """A line of words."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)
        self._append(self._text, text)

    def write(self, step: int, values: Mapping[str, float], show: bool = True) -> None:
        """A line of numbers after ``step`` steps. Numbers that are not finite are kept as null in log.jsonl."""
        line = {"step": step, **({ATTEMPT: self.attempt} if self.attempt else {}), **values}
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        self._append(self._jsonl, json.dumps(clean))
        for name, value in values.items():
            if self._writer is not None:
                self._writer.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)
        self._known |= values
        if show:
            self._show(step)

    def rewind(self, line: Mapping[str, Any]) -> None:
        """Go on from an earlier step: ``line`` is that of the rollback, and is on disk when this returns."""
        self._append(self._jsonl, json.dumps(line))
        os.fsync(self._jsonl.fileno())
        self.start, self.attempt = line["step"], line[ATTEMPT]
        if self._writer is not None:
            self._writer.close()
            self._writer = _tensorboard(self.folder, self.start)

    def _show(self, step: int) -> None:
        speed, left = self._known.get("images_per_second", 0.0), self.pace.left(self.steps - step)
        known = [f"{name} {form.format(self._known[name])}" for name, form in SHOWN.items() if name in self._known]
        text = "  ".join(
            [
                f"step {step}/{self.steps}",
                f"{speed:.{0 if speed >= 10 else 1}f} {self.unit}/s",
                f"left {clock(left)}",
                *known,
            ]
        )
        self._append(self._text, text)
        if self._progress is not None:
            self._progress.update(self._bar, completed=step, description=text)
        elif not self.silent:
            print(text, flush=True)

    def close(self) -> None:
        """Write what is left, give the terminal back. All of it is closed, whatever one of them raises."""
        with contextlib.ExitStack() as stack:
            stack.callback(_closed, self._text)
            stack.callback(_closed, self._jsonl)
            if self._wandb is not None:
                stack.callback(self._wandb.finish)
            if self._writer is not None:
                stack.callback(self._writer.close)
            if self._progress is not None:
                stack.callback(self._progress.stop)

    def _append(self, file: TextIO, text: str) -> None:
        try:
            print(text, file=file, flush=True)
        except OSError as error:
            on = f"jepakit train run={self.folder}"
            raise TrainingError(f"{file.name} cannot be written ({error.strerror}); go on later with: {on}") from error


def _closed(file: TextIO) -> None:
    """Close a file; what it could not take was told when it was written."""
    with contextlib.suppress(OSError):
        file.close()


def read(log: Path) -> list[dict[str, Any]]:
    """The lines of a log. A last line that was cut off is passed over; any other bad line is a DataError."""
    if not log.is_file():
        raise DataError(f"{log}: there is no such log")
    lines: list[dict[str, Any]] = []
    texts = log.read_text("utf-8").splitlines()
    for number, text in enumerate(texts, 1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            if number < len(texts):
                raise DataError(f"{log}, line {number}: not JSON") from None
    return lines


def keep_until(path: Path, step: int, attempt: int = 0) -> None:
    """Drop the lines of a log past ``step``, and one that was cut off when its run was killed. Of a run that was rolled
    back, those of earlier attempts stay, and so do those that say that it was."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines() if _stays(line, step, attempt)]
    part = path.with_suffix(".tmp")
    part.write_text("".join(line + "\n" for line in kept))
    os.replace(part, path)


def _stays(text: str, step: int, attempt: int) -> bool:
    try:
        line = json.loads(text)
        return line["step"] <= step or FROM in line or line.get(ATTEMPT, 0) < attempt
    except (ValueError, KeyError, TypeError):
        return False


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = int(max(seconds, 0))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _tensorboard(folder: Path, start: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)


def _wandb(project: str, folder: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("logger.wandb needs the extra: pip install 'jepakit[wandb]'") from error
    name = "-".join(folder.resolve().parts[-2:])  # the jobs of every sweep have the same names: 0, 1, ...
    return wandb.init(project=project, dir=str(folder), name=folder.name, id=name, resume="allow")
