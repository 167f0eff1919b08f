"""Save, verify, resume. A checkpoint is whole or it is not there; a damaged one is named and passed over.

    run/checkpoints/step-00000100/   *.distcp .metadata   tensors, written by torch.distributed.checkpoint
                                     state.json           the step, and what the run was
                                     manifest.json        size and SHA-256 of every file, written last

Everything is written into ``step-...tmp-<process>``, synced to disk and renamed. Schedules, order, masks and noise are
functions of the step, so parameters, optimiser and step are all there is to keep.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from jepakit.errors import CheckpointError, nearest

FOLDER, MANIFEST, STATE = "checkpoints", "manifest.json", "state.json"
ROOM = 1.2
"""Free space that a checkpoint asks for, in multiples of its size."""


class Damaged(CheckpointError):
    """A checkpoint that its manifest does not vouch for."""


def save(run: Path, model: nn.Module, optimizer: Optimizer, step: int, keep: int) -> Path:
    """Write the state after ``step`` optimiser steps, then prune to the newest ``keep``.

    Raises CheckpointError where the disk has no room; what was saved before stays.
    """
    root = Path(run) / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    target, part = root / f"step-{step:08d}", root / f"step-{step:08d}.tmp-{os.getpid()}"
    state = {"model": model.state_dict(), "optimizer": _optimizer(model, optimizer)}
    _room(root, state)
    try:
        with _quiet():
            dcp.save(state, storage_writer=dcp.FileSystemWriter(part, sync_files=True), no_dist=True)
        _write(part / STATE, {"step": step, "torch": torch.__version__})
        _write(part / MANIFEST, {file.name: _fingerprint(file) for file in sorted(part.iterdir())})
        _sync(part)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
        _sync(root)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise CheckpointError(f"step {step} could not be saved in {root}: {error}") from error
    for old in sorted(_all(root))[: -max(1, keep)]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def restore(run: Path, model: nn.Module, optimizer: Optimizer | None, verify: str = "full", say: Any = print) -> int:
    """Load the newest valid checkpoint of a run and return its step; 0 where the run has none yet.

    A damaged checkpoint is named through ``say`` and the one before it is taken. Raises CheckpointError where there
    are checkpoints and none is valid: training never starts over in silence.
    """
    found = sorted(_all(Path(run) / FOLDER), reverse=True)
    for folder in found:
        try:
            check(folder, verify)
        except Damaged as error:
            say(f"passed over a damaged checkpoint: {error}")
            continue
        return load(folder, model, optimizer)
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {Path(run) / FOLDER} is valid; to start over, remove them"
        )
    return 0


def load(folder: Path, model: nn.Module, optimizer: Optimizer | None = None) -> int:
    """Load one checkpoint, every tensor of it or none. Raises CheckpointError that names what does not match."""
    _compare(folder, model)
    state: dict[str, Any] = {"model": model.state_dict()}
    if optimizer is not None:
        state["optimizer"] = _optimizer(model, optimizer)
    try:
        with _quiet():
            dcp.load(state, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
    except Exception as error:  # what a reader raises depends on where the damage is
        raise Damaged(f"{folder}: {_line(error)}") from error
    model.load_state_dict(state["model"])
    if optimizer is not None:
        options = StateDictOptions(flatten_optimizer_state_dict=True)
        set_optimizer_state_dict(model, optimizer, state["optimizer"], options=options)
    return json.loads((folder / STATE).read_text())["step"]


def load_newest_model(run: Path, config: Mapping[str, Any]) -> tuple[Any, int]:
    """The model of a run at its newest valid checkpoint, and the step of it.

    Raises CheckpointError where the run has no checkpoint.
    """
    from jepakit.build import build

    jepa = build(config).jepa
    if not list(_all(Path(run) / FOLDER)):
        raise CheckpointError(f"{run} has no checkpoint yet")
    return jepa, restore(run, jepa, None, config["trainer"]["verify"])


def check(folder: Path, verify: str = "full") -> None:
    """Hold a checkpoint against its manifest: ``full`` (hashes), ``size``, or ``off``. Raises Damaged."""
    if verify == "off":
        return
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise Damaged(f"{folder}: its {MANIFEST} cannot be read ({_line(error)})") from error
    for name, expected in manifest.items():
        file = folder / name
        if not file.exists():
            raise Damaged(f"{folder}: {name} is missing")
        if file.stat().st_size != expected["size"]:
            raise Damaged(f"{folder}: {name} has {file.stat().st_size:,} bytes, not {expected['size']:,}")
        if verify == "full" and _fingerprint(file) != expected:
            raise Damaged(f"{folder}: the bytes of {name} have changed since it was written")


def _optimizer(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    return get_optimizer_state_dict(
        model, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True)
    )


def _compare(folder: Path, model: nn.Module) -> None:
    """Names and shapes of a checkpoint's model against the one that is to hold it."""
    try:
        metadata = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    except Exception as error:  # a pickle that is cut off can raise anything
        raise Damaged(f"{folder}: its .metadata cannot be read ({_line(error)})") from error
    saved = {name.removeprefix("model."): entry for name, entry in metadata.items() if name.startswith("model.")}
    wanted = model.state_dict()
    if missing := sorted(wanted.keys() - saved.keys()):
        raise CheckpointError(f"{folder} has no {missing[0]}{nearest(missing[0], saved)} ({len(missing)} such keys)")
    if extra := sorted(saved.keys() - wanted.keys()):
        raise CheckpointError(f"{folder} holds {extra[0]}, which the model has not ({len(extra)} such keys)")
    for name, value in wanted.items():
        shape = tuple(saved[name].size)
        if shape != tuple(value.shape):
            raise CheckpointError(f"{folder}: {name} is {shape}, the model's is {tuple(value.shape)}")


def _all(root: Path) -> Iterator[Path]:
    return (folder for folder in root.glob("step-*") if folder.name.removeprefix("step-").isdigit())


def _sweep(root: Path) -> None:
    """Remove what processes that are gone left half written."""
    for part in root.glob("step-*.tmp-*"):
        owner = int(part.name.rsplit("-", 1)[1])
        if owner == os.getpid() or not Path(f"/proc/{owner}").exists():
            shutil.rmtree(part, ignore_errors=True)


def _room(root: Path, state: Mapping[str, Any]) -> None:
    tensors = [v for part in state.values() for v in part.values() if isinstance(v, torch.Tensor)]
    needed = int(ROOM * sum(tensor.numel() * tensor.itemsize for tensor in tensors))
    free = shutil.disk_usage(root).free
    if free < needed:
        raise CheckpointError(f"no room in {root}: a checkpoint asks for {needed:,} bytes, {free:,} are free")


def _fingerprint(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with path.open("w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _quiet() -> warnings.catch_warnings:
    """DCP warns that no process group is there, which is what ``no_dist`` says."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
