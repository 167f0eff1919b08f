"""Features that were extracted once are used again: files in the run's ``evaluate/features``.

A file's name is a hash of all that its features depend on: the weights, every sample with its file's size and time, how
samples were looked at, and the versions that computed them. What is damaged is computed anew.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

import jepakit
from jepakit.evaluate.data import Part
from jepakit.evaluate.features import Extracted, Reading

FORMAT = 1
"""Of the files; another one is another key."""


class Cache(NamedTuple):
    """A folder for features, and the GiB that it may hold; the files that were used longest ago go first."""

    folder: Path
    limit: float

    def __call__(self, about: Mapping[str, Any], compute: Callable[[], Extracted]) -> Extracted:
        """What is kept under ``about``, else what ``compute`` gives, kept where there is room."""
        if self.limit <= 0:
            return compute()
        path = self.folder / f"{digest(about)}.safetensors"
        if (found := _read(path)) is None:
            self._keep(path, found := compute())
        return found

    def _keep(self, path: Path, found: Extracted) -> None:
        """A cache that cannot be written is no reason to lose a score, but it is said."""
        size = found.x.numel() * found.x.element_size()
        if size > self.limit * 2**30:
            return
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(size)
            tensors = {"x": found.x.contiguous(), "y": found.y, "index": found.index}
            said = json.dumps({"skipped": found.skipped, "widths": found.widths})
            save_file(tensors, partial, {"about": said})
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            print(f"features are not kept: {error}", file=sys.stderr)
            with contextlib.suppress(OSError):  # there may be no folder to clear up
                partial.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        files = sorted(self.folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        held = sum(file.stat().st_size for file in files)
        while files and held + size > self.limit * 2**30:
            held -= files[0].stat().st_size
            files.pop(0).unlink()


def _read(path: Path) -> Extracted | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
            x, y, index = (file.get_tensor(name) for name in ("x", "y", "index"))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        print(f"{path} is damaged ({error}): features are extracted anew", file=sys.stderr)
        path.unlink(missing_ok=True)
        return None
    path.touch()
    return Extracted(x, y, index, tuple(about["skipped"]), tuple(about["widths"]))


def key(what: str, part: Part, reading: Reading, weights: str) -> dict[str, Any]:
    """All that features depend on: ``what`` is read (layers, tokens, pixels), of which samples, how, by which weights
    (a digest, empty where none are asked)."""
    how = reading._asdict() | {"device": torch.device(reading.device).type, "views": str(reading.views)}
    how |= {"data": {name: reading.data.get(name) for name in ("name", "size", "mean", "std", "frames", "step", "fps")}}
    how.pop("memory")
    versions = [FORMAT, jepakit.__version__, torch.__version__]
    return {"what": what, "weights": weights, "samples": _samples(part), "how": how, "versions": versions}


def weights(model: nn.Module) -> str:
    """A digest of everything that a model computes with, and of what it is made of."""
    found = hashlib.sha256(str(model).encode())
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def digest(about: Mapping[str, Any]) -> str:
    """Of plain data."""
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _samples(part: Part) -> str:
    """A digest of which samples they are; of files also of their sizes and times."""
    lines: Iterable[str] = (_sample(part.source.describe(index)) for index in part.rows.tolist())
    found = hashlib.sha256(_all(part).encode())
    for line in lines:
        found.update(line.encode() + b"\n")
    return found.hexdigest()


def _all(part: Part) -> str:
    about = getattr(part.source, "describe_all", None)
    own = {name: str(value) for name, value in vars(part.source).items() if isinstance(value, (int, float, str, tuple))}
    return json.dumps([type(part.source).__qualname__, about() if about else "", own, part.rows.tolist()], default=str)


def _sample(place: str) -> str:
    try:
        found = os.stat(place)
    except OSError:  # made, or within another file
        return place
    return f"{place} {found.st_size} {found.st_mtime_ns}"
