"""A run folder as something with weights: its newest valid checkpoint, read without running anything that it holds."""

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from jepakit import trust
from jepakit.checkpoint import FOLDER, METADATA, STATE, Damaged, check
from jepakit.errors import CheckpointError, first_line
from jepakit.protocols import Content
from jepakit.runs import open_run


def is_run(path: Path) -> bool:
    """Whether a folder is a run's."""
    return (path / "config.yaml").is_file() and any((path / name).exists() for name in (FOLDER, "command.txt"))


def content(path: Path, shapes_only: bool = False) -> Content:
    """The tensors of a run's newest valid checkpoint, as named in it; ``config`` is the run's, ``values`` its state.

    A damaged checkpoint is named on stderr and the one before it is taken. Raises CheckpointError where none is valid.
    """
    run, damage = open_run(path), []
    for folder in checkpoints(path):
        try:
            check(folder, "size" if shapes_only else run.config["trainer"]["verify"])
            return Content(path, _tensors(folder, shapes_only), _state(path, folder), run.config)
        except Damaged as error:
            print(f"passed over a damaged checkpoint: {error}", file=sys.stderr)
            damage.append(str(error))
    raise CheckpointError(f"no checkpoint of {path} is valid" if damage else f"{path} has no checkpoint yet")


def checkpoints(run: Path) -> list[Path]:
    """A run's checkpoints, newest first."""
    found = (folder for folder in (run / FOLDER).glob("step-*") if folder.name.removeprefix("step-").isdigit())
    return sorted(found, reverse=True)


def _tensors(folder: Path, shapes_only: bool) -> dict[str, Tensor]:
    listed = _listed(folder / METADATA)
    device = "meta" if shapes_only else "cpu"
    state = {name: torch.empty(entry.size, dtype=entry.properties.dtype, device=device) for name, entry in listed}
    if not shapes_only:
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # that there is no process group
                trust.load(state, folder, no_dist=True)
        except (Exception, CheckpointException) as error:  # what a reader raises depends on where the damage is
            cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
            if not isinstance(cause, Exception):
                raise cause from None  # Ctrl-C
            raise Damaged(f"{folder}: {first_line(cause)}") from error
    return state


def _listed(file: Path) -> Iterator[tuple[str, TensorStorageMetadata]]:
    """Names of the tensors of a checkpoint, and what is known of each."""
    try:
        found = trust.listed(file).state_dict_metadata
    except Exception as error:  # a pickle that is cut off can raise anything
        raise Damaged(f"{file.parent}: its {file.name} cannot be read ({first_line(error)})") from error
    return ((name, entry) for name, entry in found.items() if isinstance(entry, TensorStorageMetadata))


def _state(path: Path, folder: Path) -> dict[str, Any]:
    """Step and epoch of a checkpoint; the epoch stands in the run's log."""
    try:
        step = int(json.loads((folder / STATE).read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder}: its {STATE} cannot be read ({first_line(error)})") from error
    log = path / "log.jsonl"
    lines = log.read_text("utf-8").splitlines() if log.is_file() else []
    epochs = [each["epoch"] for each in map(_line, lines) if each.get("step", step + 1) <= step and "epoch" in each]
    return {"step": step, **({"epoch": epochs[-1]} if epochs else {})}


def _line(text: str) -> dict[str, Any]:
    """A line of the log; the last one of a run that was killed may be cut off."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
