"""What vouches for a checkpoint: the size and SHA-256 of every file, written last.

Of several processes each looks at its share of the files, and all come to the same verdict.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepakit.distributed import gather, place, together
from jepakit.errors import CheckpointError, first_line

MANIFEST, STATE, METADATA = "manifest.json", "state.json", ".metadata"


class Damaged(CheckpointError):
    """A checkpoint that its manifest does not vouch for."""


def described(folder: Path, group: Any = None) -> dict[str, dict[str, Any]]:
    """Size and hash of every file of a folder."""
    own = sorted(folder.iterdir())[place().rank :: place().world]
    found = together(lambda: {f.name: {"size": f.stat().st_size, "sha256": digest(f)} for f in own}, group)
    return {name: each for some in gather(found, group) for name, each in sorted(some.items())}


def check(folder: Path, verify: str = "full") -> None:
    """Hold a checkpoint against its manifest: ``full`` (hashes), ``size``, or ``off``. Raises Damaged."""
    if verify != "off":
        together(lambda: _check(folder, verify))


def _check(folder: Path, verify: str) -> None:
    for name, (size, known) in list(_manifest(folder).items())[place().rank :: place().world]:
        file = folder / name
        if not file.is_file():
            raise Damaged(f"{folder}: {name} is missing")
        if file.stat().st_size != size:
            raise Damaged(f"{folder}: {name} has {file.stat().st_size:,} bytes, not {size:,}")
        if verify == "full" and digest(file) != known:
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


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write(path: Path, content: Mapping[str, Any]) -> None:
    """JSON, on disk when this returns."""
    with path.open("w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """What a folder lists is on disk when this returns."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
