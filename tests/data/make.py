"""Pictures, videos, folders and sources made for the tests."""

import itertools
import json
import os
import signal
import struct
import zlib
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
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


def numbered(i: int, height: int = 64, width: int = 96) -> np.ndarray:
    """A frame, uint8 ``H W 3``, whose two halves say its number in a way that survives lossy codecs."""
    frame = np.full((height, width, 3), 15 * (i % 16) + 8, np.uint8)
    frame[:, width // 2 :] = 15 * (i // 16) + 8
    return frame


def numbers(picture: Tensor | np.ndarray) -> list[int]:
    """The numbers of the frames of a clip, ``3 T H W``, read from its pixels."""
    values = torch.as_tensor(np.ascontiguousarray(picture)).float().mean((0, 2))  # T W
    half = values.shape[-1] // 2
    low, high = ((part.mean(-1) / 15).int() for part in (values[:, : half - 4], values[:, half + 4 :]))
    return (low + 16 * high).tolist()


def video(
    path: Path, count: int = 40, codec: str = "libx264", times: Iterable[int] | None = None, gop: int = 10, **options
) -> Path:
    """A video of numbered frames with B-frames; ``times`` are milliseconds, at 25 frames a second if not given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = options.pop("meta", {})
    with av.open(str(path), "w", options=options) as file:
        file.metadata.update(meta)
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = numbered(0).shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size, stream.bit_rate = gop, 2_000_000
        if codec in ("libx264", "mpeg4"):
            stream.codec_context.max_b_frames = 2
        stream.codec_context.time_base = Fraction(1, 25 if times is None else 1000)
        for i, time in zip(range(count), itertools.count() if times is None else times, strict=False):
            frame = av.VideoFrame.from_ndarray(numbered(i), "rgb24")
            frame.pts, frame.time_base = time, stream.codec_context.time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def audio(path: Path) -> Path:
    """A file of the kind that videos come in, with a second of silence and no picture."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def turned(path: Path) -> Path:
    """Write into an MP4 file that it is to be shown turned by a quarter."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # version 0: the matrix lies behind times, number, length, layer and volume
    assert struct.unpack(">9i", data[at : at + 36])[0] == 1 << 16
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def videos(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 3) -> Path:
    """A folder of videos of different lengths, one sub-folder for each class."""
    for c, name in enumerate(classes):
        for i in range(each):
            video(root / name / f"{i}.mp4", 30 + 10 * i + c)
    return root


def frames(root: Path, count: int = 12) -> Path:
    """A folder of numbered frames as pictures, without leading zeros in their names."""
    root.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(numbered(i)).save(root / f"frame{i}.png")
    return root


def mapped(root: Path, count: int = 4) -> Path:
    """Pictures, and the class of each of their pixels."""
    for i in range(count):
        picture(root / "images" / "train" / f"{i}.png", 12, 16, i)
        (root / "masks" / "train").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 16), i + 7, np.uint8)).save(root / "masks" / "train" / f"{i}.png")
    return root


def clevr_scene(number: int, split: str, distances: list[float]) -> dict:
    """A scene as CLEVR's are written down, as far as it matters."""
    objects = [
        {"shape": "cube", "pixel_coords": [100 + i, 60, far], "3d_coords": [0.1, 0.2, 0.3], "rotation": 1.0}
        for i, far in enumerate(distances)
    ]
    name = f"CLEVR_{split}_{number:06d}.png"
    relations = {"left": [[] for _ in objects]}
    return {
        "image_index": number,
        "objects": objects,
        "relationships": relations,
        "image_filename": name,
        "split": split,
    }


def clevr(root: Path, scenes: dict[str, list[list[float]]]) -> Path:
    """A folder as CLEVR v1.0 is: for each split, the distances of the objects of each picture."""
    for split, each in scenes.items():
        (root / "images" / split).mkdir(parents=True)
        (root / "scenes").mkdir(exist_ok=True)
        found = [clevr_scene(i, split, distances) for i, distances in enumerate(each)]
        (root / "scenes" / f"CLEVR_{split}_scenes.json").write_text(
            json.dumps({"info": {"split": split}, "scenes": found})
        )
        for given in found:
            pixels = np.full((32, 48, 4), (len(given["objects"]), 9, 9, 255), np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / given["image_filename"])
    return root


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
