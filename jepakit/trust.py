"""Checkpoints of strangers. torch.distributed.checkpoint keeps a list of its tensors as a pickle, and loads what is no
tensor by another one: either can run code.

So there are two lines of defence. A run folder is gone on with only where it is the user's own, or of one of the user's
groups (``refuse_strangers``). And whosever it is, it is read by ``load``, which lets
a pickle name nothing but what such a list is made of, and of what is no tensor takes only what is plain.
"""

import io
import os
import pickle
import pwd
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata, StorageMeta
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem

from jepakit.errors import CheckpointError

VARIABLE = "JEPAKIT_TRUST"
"""Set to 1, by ``--trust`` as well, it says that run folders of others may be gone on with."""
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


def trusted() -> bool:
    """Whether the user has said that folders of others may be gone on with."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def refuse_strangers(run: Path) -> None:
    """Raise CheckpointError where a run folder, or anything that a checkpoint in it is read from, is a stranger's.

    Trusted are files of the user's own, of root and of the user's groups.
    """
    if trusted():
        return
    root, checkpoints = Path(run), Path(run) / "checkpoints"
    for path in (root, checkpoints, *sorted(checkpoints.glob("step-*")), *sorted(checkpoints.glob("step-*/*"))):
        if path.exists() and (why := _strange(path.stat())):
            raise CheckpointError(f"{path} {why}: give --trust if you trust whoever wrote it (chown it if it is yours)")


def _strange(found: os.stat_result) -> str:
    """Why a file is not trusted; empty where it is."""
    mine = found.st_uid in (0, os.geteuid()) or found.st_gid in (os.getegid(), *os.getgroups())
    return "" if mine else f"belongs to {_name(found.st_uid)}, who is neither you nor of your groups"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def load(state: dict[str, Any], folder: Path, no_dist: bool = False) -> None:
    """``torch.distributed.checkpoint.load`` that runs nothing: fill ``state`` from a checkpoint, whoever wrote it.

    Raises what that raises, and UnpicklingError where something in the checkpoint is neither tensor nor plain.
    """
    reader = Reader(folder)
    try:
        dcp.load(state, storage_reader=reader, planner=Planner(), no_dist=no_dist)
    except CheckpointException as error:
        if reader.trouble is None:
            raise
        raise reader.trouble from error  # torch 2.11 says no more than that there is no list


class Reader(FileSystemReader):
    """Reads a checkpoint in a folder: its list by ``Careful``, its tensors from files of the folder alone.

    ``trouble`` is why the list could not be read.
    """

    trouble: Exception | None = None

    def read_metadata(self) -> Metadata:
        """The list of what there is; one for each rank, which torch falls back on, is not written here."""
        try:
            metadata = listed(Path(self.path) / ".metadata")
        except Exception as error:
            self.trouble = error
            raise
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Any:
        """Tensors and bytes of a plan, handed to the planner."""
        for item in plan.items:
            place = self.storage_data[item.storage_index]
            if place.relative_path != os.path.basename(place.relative_path):
                raise pickle.UnpicklingError(
                    f"{item.storage_index.fqn} lies in {place.relative_path!r}, somewhere else"
                )
            if place.transform_descriptors:
                raise pickle.UnpicklingError(f"{item.storage_index.fqn} is compressed")
        return super().read_data(plan, planner)


class Planner(dcp.DefaultLoadPlanner):
    """Takes what is no tensor (an optimiser's settings) only where it is plain; torch's own would run it."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Put a value where it belongs."""
        plain = io.BytesIO()
        torch.save(torch.load(value, weights_only=True), plain)  # what is read now is what was found to be plain
        plain.seek(0)
        super().load_bytes(read_item, plain)


class Careful(pickle.Unpickler):
    """Reads the list of a checkpoint's tensors, and refuses any name that has no place in it."""

    def find_class(self, module: str, name: str) -> Any:
        """Raises UnpicklingError for a name that is not in ALLOWED."""
        if (module, name) == ("builtins", "getattr"):
            return _layout
        if name not in ALLOWED.get(module, ()):
            raise _code(f"{module}.{name}")
        return super().find_class(module, name)


def _layout(of: Any, name: str) -> _MEM_FORMAT_ENCODING:
    """How a tensor lies in memory, which Python 3.11.0 to 3.11.3 pickle as ``getattr`` of an enumeration and a name."""
    if of is not _MEM_FORMAT_ENCODING or name not in of.__members__:
        raise _code("builtins.getattr")
    return of[name]


def _code(name: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"it holds a {name}, which could run code")


def listed(file: Path) -> Metadata:
    """What a ``.metadata`` lists. Raises UnpicklingError for anything else, and whatever a damaged pickle raises."""
    with file.open("rb") as stream:
        found = Careful(stream).load()
    if not isinstance(found, Metadata):
        raise pickle.UnpicklingError(f"it holds a {type(found).__name__}, not a list of tensors")
    return found
