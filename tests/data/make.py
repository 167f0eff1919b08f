"""Pictures, folders and sources made for the tests."""

import os
import signal
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jepakit.data import BadSample


def pixels(height: int = 20, width: int = 24, seed: int = 0) -> np.ndarray:
    """Smooth random uint8 ``H W 3``: what survives a lossy format."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


def picture(path: Path, height: int = 20, width: int = 24, seed: int = 0, **options) -> Path:
    """A picture file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(height, width, seed)).save(path, **options)
    return path


def labelled(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 6) -> Path:
    """A folder of pictures of different sizes, one sub-folder for each class."""
    for c, name in enumerate(classes):
        for i in range(each):
            picture(root / name / f"{i}.png", 18 + i, 20 + c, seed=10 * c + i)
    return root


def bomb(path: Path, side: int = 60_000) -> Path:
    """A PNG whose header promises ``side`` squared pixels; its data would unpack to as many bits, all zero."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side // 8 + 2) * 100, 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


class Numbers:
    """A source of single-coloured pictures whose value is their index; some cannot be read."""

    classes: dict[str, tuple[str, ...]] = {}

    def __init__(self, length: int, bad: frozenset[int] = frozenset(), deadly: frozenset[int] = frozenset()):
        self.length, self.bad, self.deadly = length, bad, deadly

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | float]]:
        if index in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if index in self.bad:
            raise BadSample(self.describe(index), "bad on purpose")
        return torch.full((3, 1, 9, 11), index, dtype=torch.uint8), {"number": index, "half": index / 2}

    def describe(self, index: int) -> str:
        return f"number {index}"
