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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from jepakit.errors import CheckpointError, first_line, nearest

FOLDER, MANIFEST, STATE, METADATA = "checkpoints", "manifest.json", "state.json", ".metadata"
ROOM = 1.2
"""Free space that a checkpoint asks for, in multiples of its size."""


class Damaged(CheckpointError):
    """A checkpoint that its manifest does not vouch for."""


def save(
    run: Path,
    model: nn.Module,
    optimizer: Optimizer,
    step: int,
    keep: int,
    note: Mapping[str, Any] | None = None,
    guarded: Sequence[str] = (),
) -> Path:
    """Write the state after ``step`` optimiser steps, then keep it and the ``keep - 1`` before it.

    ``note`` is added to what the checkpoint says of itself (see ``state``); the newest one whose ``health`` is among
    ``guarded`` is kept as well.

    Raises CheckpointError where it cannot be written (no room, say); what was saved before stays.
    """
    root = Path(run) / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    target, part = root / f"step-{step:08d}", root / f"step-{step:08d}.tmp-{os.getpid()}"
    state = {"model": model.state_dict(), "optimizer": _optimizer(model, optimizer)}
    if step == 0:
        optimizer.state.clear()  # asking for it has made one, as if a step had been taken
    _room(root, state)
    try:
        with _quiet():
            dcp.save(state, storage_writer=dcp.FileSystemWriter(part, sync_files=True), no_dist=True)
        _write(part / STATE, {"step": step, "torch": torch.__version__, **(note or {})})
        files = {file.name: {"size": file.stat().st_size, "sha256": _digest(file)} for file in sorted(part.iterdir())}
        _write(part / MANIFEST, files)
        _sync(part)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
        _sync(root)
    except (OSError, CheckpointException) as error:
        shutil.rmtree(part, ignore_errors=True)
        cause = _cause(error)
        if not isinstance(cause, Exception):
            raise cause from None  # Ctrl-C
        raise CheckpointError(f"step {step} could not be saved in {root}: {first_line(cause)}") from error
    # Newer ones are damaged, or this one would have gone on from them: they are no reason to remove a good one.
    known = sorted(each for each in _all(root) if each <= target)
    well = [each for each in known if _health(each) in (None, *guarded)]
    for old in known[: -max(1, keep)]:
        if not guarded or [old] != well[-1:]:
            shutil.rmtree(old, ignore_errors=True)
    return target


def folders(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(_all(Path(run) / FOLDER))


def state(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: its ``step``, and what was noted. Raises Damaged."""
    step = _step(folder)
    return {**json.loads((folder / STATE).read_text()), "step": step}


def _health(folder: Path) -> str | None:
    """What a checkpoint says of the run's health; None where it does not."""
    try:
        return state(folder).get("health")
    except Damaged:
        return ""


def restore(run: Path, model: nn.Module, optimizer: Optimizer | None, verify: str = "full", say: Any = print) -> int:
    """Load the newest valid checkpoint of a run and return its step; 0 where the run has none yet.

    A damaged checkpoint is named through ``say`` and the one before it is taken. Raises CheckpointError where there
    are checkpoints and none is valid: training never starts over in silence.
    """
    root, damage = Path(run) / FOLDER, []
    for folder in sorted(_all(root), reverse=True):
        try:
            check(folder, verify)
            return load(folder, model, optimizer)
        except Damaged as error:
            say(f"passed over a damaged checkpoint: {error}")
            damage.append(str(error).removeprefix(f"{root}/"))
    if damage:
        listed = "; ".join(damage)
        raise CheckpointError(f"no checkpoint in {root} is valid: {listed}; to start over, remove them")
    return 0


def load(folder: Path, model: nn.Module, optimizer: Optimizer | None = None) -> int:
    """Load one checkpoint and return its step. Raises CheckpointError that names what does not match the model.

    Where it raises Damaged, the model may hold some of the tensors.
    """
    step = _step(folder)
    saved = _compare(folder, model)
    state: dict[str, Any] = {"model": model.state_dict()}
    idle: dict[str, dict[str, Any]] = {}
    if optimizer is not None:
        state["optimizer"] = _optimizer(model, optimizer)
        idle = _idle(state["optimizer"], saved)
    try:
        with _quiet():
            dcp.load(state, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
    except (Exception, CheckpointException) as error:  # what a reader raises depends on where the damage is
        cause = _cause(error)
        if not isinstance(cause, Exception):
            raise cause from None  # Ctrl-C
        raise Damaged(f"{folder}: {first_line(cause)}") from error
    model.load_state_dict(state["model"])
    if optimizer is not None:
        options = StateDictOptions(flatten_optimizer_state_dict=True)
        for values in idle.values():
            state["optimizer"] |= values
        set_optimizer_state_dict(model, optimizer, state["optimizer"], options=options)
        for name in idle:
            optimizer.state.pop(model.get_parameter(name), None)
        if step == 0:
            optimizer.state.clear()
    return step


def _idle(optimizer: dict[str, Any], saved: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Parameters that had not been stepped yet, of branches that had not joined: by name their state, of which nothing
    was ``saved``, and which is taken out of ``optimizer``."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in optimizer.items():
        kind, _, rest = key.partition(".")
        if kind == "state":
            found.setdefault(rest.rpartition(".")[0], {})[key] = value
    idle = {name: state for name, state in found.items() if not any(f"optimizer.{key}" in saved for key in state)}
    for key in (key for state in idle.values() for key in state):
        del optimizer[key]
    return idle


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
    for name, (size, digest) in _manifest(folder).items():
        file = folder / name
        if not file.is_file():
            raise Damaged(f"{folder}: {name} is missing")
        if file.stat().st_size != size:
            raise Damaged(f"{folder}: {name} has {file.stat().st_size:,} bytes, not {size:,}")
        if verify == "full" and _digest(file) != digest:
            raise Damaged(f"{folder}: the bytes of {name} have changed since it was written")


def _manifest(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and hash of each file. Raises Damaged for one that leaves out a file that is read."""
    try:
        listed = json.loads((folder / MANIFEST).read_text())
        manifest = {name: (int(entry["size"]), str(entry["sha256"])) for name, entry in listed.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise Damaged(f"{folder}: its {MANIFEST} cannot be read ({first_line(error)})") from error
    read = {STATE, METADATA, *(file.name for file in folder.glob("*.distcp"))}
    if left_out := sorted(read - manifest.keys()):
        raise Damaged(f"{folder}: its {MANIFEST} does not list {left_out[0]}")
    return manifest


def _step(folder: Path) -> int:
    try:
        return int(json.loads((folder / STATE).read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder}: its {STATE} cannot be read ({first_line(error)})") from error


def _optimizer(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    return get_optimizer_state_dict(model, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True))


def _compare(folder: Path, model: nn.Module) -> Mapping[str, Any]:
    """Names and shapes of a checkpoint's model against the one that is to hold it; returns what there is in it."""
    try:
        metadata = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    except Exception as error:  # a pickle that is cut off can raise anything
        raise Damaged(f"{folder}: its {METADATA} cannot be read ({first_line(error)})") from error
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
    return metadata


def _all(root: Path) -> Iterator[Path]:
    return (folder for folder in root.glob("step-*") if folder.name.removeprefix("step-").isdigit())


def _sweep(root: Path) -> None:
    """Remove what processes that are gone left half written."""
    for part in root.glob("step-*.tmp-*"):
        owner = part.name.rsplit("-", 1)[1]
        if owner == str(os.getpid()) or not Path("/proc", owner).exists():
            shutil.rmtree(part, ignore_errors=True)


def _room(root: Path, state: Mapping[str, Any]) -> None:
    tensors = [v for part in state.values() for v in part.values() if isinstance(v, torch.Tensor)]
    needed = int(ROOM * sum(tensor.numel() * tensor.itemsize for tensor in tensors))
    free = shutil.disk_usage(root).free
    if free < needed:
        raise CheckpointError(f"no room in {root}: a checkpoint asks for {needed:,} bytes, {free:,} are free")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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


def _cause(error: BaseException) -> BaseException:
    """What made DCP fail: it wraps even Ctrl-C into an exception of its own, and torch hides a full disk in another."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    within: BaseException | None = error if isinstance(error, Exception) else None
    while within is not None and not isinstance(within, OSError):
        within = within.__cause__ or within.__context__
    return within or error
