"""Save, verify, resume. A checkpoint is whole or it is not there; a damaged one is named and passed over.

    run/checkpoints/step-00000100/   *.distcp .metadata   tensors, written by torch.distributed.checkpoint
                                     state.json           the step, and what the run was
                                     manifest.json        size and SHA-256 of every file, written last

Everything is written into ``step-...tmp-<process>``, synced to disk and renamed. Schedules, order, masks and noise are
functions of the step, so parameters, optimiser and step are all there is to keep. Of several processes each writes what
it holds and reads what it needs: how many they are, and how the model is spread over them, may change in between.
"""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from jepakit import trust
from jepakit.background import Background
from jepakit.distributed import first, place, tell, together
from jepakit.errors import CheckpointError, UserError, first_line, nearest
from jepakit.manifest import MANIFEST, METADATA, STATE, Damaged, check, described, sync, write

FOLDER = "checkpoints"
ROOM = 1.2
"""Free space that a checkpoint asks for, in multiples of its size."""


def save(
    run: Path,
    model: nn.Module,
    optimizer: Optimizer,
    step: int,
    keep: int,
    note: Mapping[str, Any] | None = None,
    guarded: Sequence[str] = (),
    background: Background | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Write the state after ``step`` optimiser steps, then keep it and the ``keep - 1`` before it.

    ``note`` is added to what the checkpoint says of itself (see ``state``); the newest one whose ``health`` is among
    ``guarded`` is kept as well. With a ``background`` the state is copied, and is written while training goes on. An
    old checkpoint that cannot be removed is named through ``say``, and stays.

    Raises CheckpointError where it cannot be written (no room, say), with a ``background`` at the next call or when
    that is waited for; what was saved before stays.
    """
    root = Path(run) / FOLDER
    state = {"model": model.state_dict(), "optimizer": _optimizer(model, optimizer)}
    if step == 0:
        optimizer.state.clear()  # asking for it has made one, as if a step had been taken
    target, part = root / f"step-{step:08d}", root / f"step-{step:08d}.tmp-{tell(os.getpid())}"
    about = {"step": step, "torch": torch.__version__, "processes": place().world, **(note or {})}

    def put(state: Mapping[str, Any], group: Any = None) -> None:
        try:
            first(lambda: _prepare(part, state), group)
            _write(state, part, about, group)
            first(lambda: _finish(part, target, keep, guarded, say), group)
        except (OSError, CheckpointException, UserError) as error:
            first(lambda: shutil.rmtree(part, ignore_errors=True), group)
            if isinstance(error, CheckpointError):
                raise
            cause = error if isinstance(error, UserError) else _cause(error)
            if not isinstance(cause, Exception):
                raise cause from None  # Ctrl-C
            raise CheckpointError(f"step {step} could not be saved in {root}: {first_line(cause)}") from error

    if background is None:
        put(state)
    else:
        background(put, state)
    return target


def _prepare(part: Path, state: Mapping[str, Any]) -> None:
    """Make room: what was left half written goes, since the run is this one's alone."""
    part.parent.mkdir(parents=True, exist_ok=True)
    for old in part.parent.glob("step-*.tmp-*"):
        shutil.rmtree(old, ignore_errors=True)
    _room(part.parent, state)
    part.mkdir()


def _write(state: Mapping[str, Any], part: Path, about: Mapping[str, Any], group: Any) -> None:
    """All of a checkpoint, beside its place."""
    with _quiet():
        writer = dcp.FileSystemWriter(part, sync_files=True)
        dcp.save(dict(state), storage_writer=writer, process_group=group, no_dist=place().world == 1)
    first(lambda: write(part / STATE, about), group)
    files = described(part, group)
    first(lambda: write(part / MANIFEST, files), group)


def _finish(part: Path, target: Path, keep: int, guarded: Sequence[str], say: Callable[[str], None]) -> None:
    """Give a checkpoint its name, and remove those that are not kept: where one of them stays, this one is saved."""
    sync(part)
    if target.exists():
        remove(target)
    part.rename(target)
    sync(target.parent)
    # Newer ones are damaged, or this one would have gone on from them: they are no reason to remove a good one.
    known = sorted(each for each in _all(target.parent) if each <= target)
    well = [each for each in known if _health(each) in (None, *guarded)]
    stay = []
    for old in known[: -max(1, keep)]:
        if not guarded or [old] != well[-1:]:
            try:
                remove(old)
            except CheckpointError as error:
                stay.append(str(error))
    stay += [f"{left} could not be removed" for left in sorted(target.parent.glob("step-*.tmp-*"))]
    if stay:
        say(f"{stay[0]}" + f", nor could {len(stay) - 1} more" * (len(stay) > 1) + "; training goes on")


def remove(folder: Path) -> None:
    """Remove a checkpoint. Its name goes first: what is half removed is no checkpoint, and goes with the next save.

    Raises CheckpointError where it keeps its name.
    """
    gone = folder.with_name(f"{folder.name}.tmp-{os.getpid()}-gone")
    try:
        folder.rename(gone)
    except OSError as error:
        raise CheckpointError(f"{folder} could not be removed ({error.strerror})") from error
    shutil.rmtree(gone, ignore_errors=True)


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
    together(lambda: trust.refuse_strangers(run))
    for folder in first(lambda: sorted(_all(root), reverse=True)):
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
    step, saved = together(lambda: (_step(folder), _compare(folder, model)))
    state: dict[str, Any] = {"model": model.state_dict()}
    idle: dict[str, dict[str, Any]] = {}
    if optimizer is not None:
        state["optimizer"] = _optimizer(model, optimizer)
        idle = _idle(state["optimizer"], saved)
    try:
        with _quiet():
            trust.load(state, folder, no_dist=place().world == 1)
    except (Exception, CheckpointException) as error:  # what a reader raises depends on where the damage is
        cause = _cause(error)
        if not isinstance(cause, Exception):
            raise cause from None  # Ctrl-C
        raise Damaged(f"{folder}: {first_line(cause)}") from error
    set_model_state_dict(model, state["model"])
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
        metadata = trust.listed(folder / METADATA).state_dict_metadata
    except Exception as error:  # a pickle that is cut off can raise anything
        raise Damaged(f"{folder}: its {METADATA} cannot be read ({first_line(error)})") from error
    saved = {name.removeprefix("model."): entry for name, entry in metadata.items() if name.startswith("model.")}
    wanted = model.state_dict()
    if missing := sorted(wanted.keys() - saved.keys()):
        raise CheckpointError(f"{folder} has no {missing[0]}{nearest(missing[0], saved)} ({len(missing)} such keys)")
    if extra := sorted(saved.keys() - wanted.keys()):
        raise CheckpointError(f"{folder} holds {extra[0]}, which the model has not ({len(extra)} such keys)")
    for name, value in wanted.items():
        if not isinstance(saved[name], TensorStorageMetadata):
            raise Damaged(f"{folder}: {name} is no tensor")
        shape = tuple(saved[name].size)
        if shape != tuple(value.shape):
            raise CheckpointError(f"{folder}: {name} is {shape}, the model's is {tuple(value.shape)}")
    return metadata


def _all(root: Path) -> Iterator[Path]:
    return (folder for folder in root.glob("step-*") if folder.name.removeprefix("step-").isdigit())


def _room(root: Path, state: Mapping[str, Any]) -> None:
    tensors = [v for part in state.values() for v in part.values() if isinstance(v, torch.Tensor)]
    needed = int(ROOM * sum(tensor.numel() * tensor.itemsize for tensor in tensors))
    free = shutil.disk_usage(root).free
    if free < needed:
        raise CheckpointError(f"no room in {root}: a checkpoint asks for {needed:,} bytes, {free:,} are free")


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
