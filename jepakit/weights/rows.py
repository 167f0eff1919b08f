"""A safetensors file that is written row by row: memory holds a batch, whatever the size of the file.

Such a file is the length of its header (8 bytes), the header (JSON), and the tensors one after the other. Rows are
written behind a place that is kept free; what is known only at the end, the header and the small tensors, is then laid
into it, flush with the rows: a header may end in blanks.
"""

import contextlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from jepakit.errors import DataError, first_line

KINDS = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}
LONGEST = 100_000_000
"""Bytes of a header that readers of safetensors take."""
FRAME = 4096
"""Room for what a header says of the tensors themselves."""


class Rows:
    """Rows of one float32 tensor, ``name``, and small tensors beside it.

    Args:
        room: bytes that are kept free; see ``room``.
    """

    def __init__(self, file: BinaryIO, name: str, room: int):
        self.file, self.name, self.room = file, name, room
        self.count, self.shape = 0, torch.Size()
        file.seek(room)

    def add(self, rows: Tensor) -> None:
        """Write some rows."""
        self.file.write(rows.contiguous().numpy().data)
        self.count, self.shape = self.count + len(rows), rows.shape[1:]

    def finish(self, beside: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Lay the header and the small tensors in front of the rows. Raises DataError where they find no room."""
        size = 4 * self.count * self.shape.numel()
        entries, at = {}, 0
        for name, tensor in beside.items():
            entries[name] = _entry(tensor.dtype, tensor.shape, at, at := at + tensor.nbytes)
        entries[self.name] = _entry(torch.float32, (self.count, *self.shape), at, at + size)
        header = json.dumps({"__metadata__": dict(metadata), **entries}).encode()
        length = self.room - 8 - at
        if len(header) > length:
            raise DataError("too many samples cannot be read: jepakit data check lists them")
        self.file.seek(0)
        self.file.write(struct.pack("<Q", length) + header.ljust(length))
        for tensor in beside.values():
            self.file.write(tensor.contiguous().numpy().data)


def room(beside: int, metadata: Mapping[str, str], spare: int = 0) -> int:
    """Bytes for ``beside`` bytes of small tensors and a header with these metadata, and some to spare.

    Raises DataError where no reader would take the header.
    """
    header = len(json.dumps(dict(metadata))) + FRAME + spare
    if header > LONGEST:
        raise DataError(
            f"the list of samples takes {header:,} bytes, safetensors has room for {LONGEST:,}: set limit=N"
        )
    return -(-(8 + header + beside) // 8) * 8


@contextlib.contextmanager
def beside(out: Path) -> Iterator[BinaryIO]:
    """A file that takes the name ``out`` once it is whole; one that does not become so is removed.

    Raises DataError where it cannot be written.
    """
    part = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or first_line(error)}") from error
    finally:
        part.unlink(missing_ok=True)


def _entry(kind: torch.dtype, shape: tuple[int, ...], start: int, stop: int) -> dict:
    return {"dtype": KINDS[kind], "shape": list(shape), "data_offsets": [start, stop]}
