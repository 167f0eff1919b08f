"""What lies in a file or folder, read without running anything that it holds.

Pickles are read by torch's restricted reader or not at all; tensors are mapped from the file, not copied, where it
can be done, so that looking into ten gigabytes costs nothing. Everything that can be wrong with a file is one line.
"""

import json
import pickletools
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from jepakit.errors import CheckpointError, first_line, nearest
from jepakit.protocols import Content
from jepakit.weights import run

COMPANION = "jepakit.safetensors"
"""What lies beside a model in someone else's folder and holds the parts that their format has no place for."""
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
MODELS = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".pth.tar", ".pth", ".pt", ".bin", ".ckpt")
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
PLAIN = (str, int, float, bool, type(None))


def open_content(path: str | Path, given: Mapping[str, Any] | None = None, shapes_only: bool = False) -> Content:
    """Look into a file, a folder with a model, or a run folder.

    Args:
        given: see ``Content``.
        shapes_only: content of matrices and vectors is not wanted: they come as tensors of the device ``meta``.

    Raises:
        CheckpointError: no such file, or one that cannot be read, with the reason.
    """
    path = Path(path)
    try:
        found = run.content(path, shapes_only) if run.is_run(path) else _folder(path) if path.is_dir() else _file(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or first_line(error)}") from error
    if shapes_only:
        found = found._replace(tensors={k: v.to("meta") if v.ndim <= 2 else v for k, v in found.tensors.items()})
    return found._replace(given=dict(given or {}))


def top(content: Content) -> list[str]:
    """The first words of what it holds, in order: ``encoder``, ``opt``; of a bare state, of its names."""
    names = [*content.tensors, *content.values]
    return list(dict.fromkeys(re.split(r"[/.]", name)[0] for name in names))


def _folder(path: Path) -> Content:
    """A folder as Hugging Face or timm write it: one model, whole or in shards, and its ``config.json``."""
    index = next((path / name for name in INDICES if (path / name).is_file()), None)
    whole = next((path / name for name in MODELS if (path / name).is_file()), None)
    others = [each for each in sorted(path.iterdir()) if each.name.endswith(SUFFIXES) and each.name != COMPANION]
    if index is not None and whole is None:
        return _sharded(path, index)
    if whole is None and len(others) > 1:
        listed = ", ".join(each.name for each in others)
        raise CheckpointError(f"{path} holds several files with weights; name one of them: {listed}")
    file = whole or next(iter(others), None)
    if file is None:
        held = ", ".join(each.name for each in sorted(path.iterdir())[:4]) or "nothing"
        raise CheckpointError(f"{path} is neither a run nor a folder with weights; it holds: {held}")
    return _file(file)._replace(path=path, config=_json(path / "config.json"))


def _sharded(path: Path, index: Path) -> Content:
    """A model in several files, as its index lists them; each tensor has to be where the index says."""
    places = (_json(index) or {}).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index} lists no weights")
    if outside := [name for name in places.values() if Path(name).name != name]:
        raise CheckpointError(f"{index}: {outside[0]!r} is no file of this folder")
    shards = {name: _file(path / name).tensors for name in sorted(set(places.values()))}
    if absent := [key for key, name in places.items() if key not in shards[name]]:
        raise CheckpointError(f"{path / places[absent[0]]} has no {absent[0]}, which {index.name} says it has")
    tensors = {key: shards[name][key] for key, name in places.items()}
    return Content(path, tensors, {}, _json(path / "config.json"))


def _file(path: Path) -> Content:
    """One file; what it is, its bytes decide and not its name."""
    if not path.exists():
        near = nearest(path.name, (each.name for each in path.parent.iterdir())) if path.parent.is_dir() else ""
        raise CheckpointError(f"{path}: there is no such file{near}")
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise CheckpointError(f"{path}: empty file")
    config = _json(path.parent / "config.json") if path.name in MODELS else None
    if head[8:9] == b"{":
        return _safetensors(path)._replace(config=config)
    if head.startswith((ZIP, PICKLE)):
        return Content(path, *flatten(_pickle(path, head)), config)
    kind = (
        "a tar archive" if head[257:262] == b"ustar" else "text" if _is_text(head) else "of no kind that holds weights"
    )
    raise CheckpointError(f"{path}: this file is {kind}; .safetensors files and torch.save's are read")


def _safetensors(path: Path) -> Content:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return Content(path, tensors, dict(file.metadata() or {}))
    except (SafetensorError, RuntimeError) as error:
        reason = first_line(error).removeprefix("Error while deserializing header: ")
        raise CheckpointError(f"{path}: a damaged or truncated .safetensors file ({reason})") from error


def _pickle(path: Path, head: bytes) -> Any:
    """What torch.save wrote, mapped from the file where it is a zip archive; anything but plain data is refused."""
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # about pickles of other protocols
            return torch.load(path, map_location="cpu", weights_only=True, mmap=head.startswith(ZIP) or None)
    except Exception as error:  # what the reader raises depends on where the damage is
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if code := refused[1] if refused else _code(path, head):
            said = f"it holds {code}, which could run code; only tensors and plain data are read"
        else:
            kind = "a zip archive" if head.startswith(ZIP) else "a pickle"
            said = f"a truncated or damaged file, or {kind} that torch.save did not write"
        raise CheckpointError(f"{path}: {said}") from error


def _code(path: Path, head: bytes) -> str:
    """What a pickle that torch does not read at all would call first; it is looked for, and nothing is called."""
    words: list[str] = []
    if head.startswith(ZIP):
        return ""
    try:
        for operation, argument, _ in pickletools.genops(path.read_bytes()):
            if operation.name == "STACK_GLOBAL" and len(words) > 1:
                return ".".join(words[-2:])
            if operation.name == "GLOBAL":
                return str(argument).replace(" ", ".")
            words += [argument] if isinstance(argument, str) else []
    except Exception:  # it is cut off, or no pickle
        return ""
    return ""


def flatten(found: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain values of nested dictionaries and lists, by their path; a list of plain data is one value."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for name, each in _leaves(found, ""):
        if isinstance(each, Tensor):
            tensors[name] = each.detach()
        else:
            values[name] = each if _is_plain(each) else str(each)
    return tensors, values


def _leaves(found: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(found, Mapping):
        inner: Any = found.items()
    elif isinstance(found, (list, tuple)) and not _is_plain(found):
        inner = enumerate(found)
    else:
        yield path, found
        return
    for key, each in inner:
        yield from _leaves(each, f"{path}/{key}" if path else str(key))


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, PLAIN)


def _is_text(head: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON file with a dictionary; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: no JSON ({first_line(error)})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: no JSON dictionary")
    return found
