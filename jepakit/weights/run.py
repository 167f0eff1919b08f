"""A run folder as something with weights: its newest valid checkpoint, read without running anything that it holds."""

import json
import pickle
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from jepakit.checkpoint import FOLDER, METADATA, STATE, Damaged, check
from jepakit.errors import CheckpointError, first_line
from jepakit.protocols import Content
from jepakit.runs import open_run

ALLOWED = {
    "torch.distributed.checkpoint.metadata": (
        *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata"),
        *("ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING"),
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo", "_StoragePrefix"),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))),
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "collections": ("OrderedDict",),
}
"""What the list of a checkpoint's tensors, a pickle, is made of. Another name in it could run code."""


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
        # Of everything but tensors, settings of the optimiser say, the reader would load pickles: it is not asked to.
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # that there is no process group
                dcp.load(state, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
        except (Exception, CheckpointException) as error:  # what a reader raises depends on where the damage is
            cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
            if not isinstance(cause, Exception):
                raise cause from None  # Ctrl-C
            raise Damaged(f"{folder}: {first_line(cause)}") from error
    return state


def _listed(file: Path) -> Iterator[tuple[str, TensorStorageMetadata]]:
    """Names of the tensors of a checkpoint, and what is known of each."""
    try:
        with file.open("rb") as stream:
            found = _Careful(stream).load().state_dict_metadata
    except Exception as error:  # a pickle that is cut off can raise anything
        raise Damaged(f"{file.parent}: its {file.name} cannot be read ({first_line(error)})") from error
    return ((name, entry) for name, entry in found.items() if isinstance(entry, TensorStorageMetadata))


class _Careful(pickle.Unpickler):
    """Reads the list of a checkpoint's tensors, and refuses any name that has no place in it."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it holds a {module}.{name}, which could run code")
        return super().find_class(module, name)


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
