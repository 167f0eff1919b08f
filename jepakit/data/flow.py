"""Motion between two frames, as data sets tell it, and the files that it comes in.

    .flo    Middlebury: a tag, width, height, then pairs of floats row by row; a flow above 1e9 is unknown
    .png    KITTI: 16 bits, the flow in 64ths of a pixel from -512 on, and whether it is known in the third channel
    .pfm    FlyingThings: floats with a header of text, from the last row to the first; the third channel says nothing

In all of them numbers that are not finite, or huge, are unknown. None has room for occlusion: data sets keep that in
files of their own (layouts.py). What a file's header promises is compared with the file's length, and with
``max_pixels``, before anything is allocated.
"""

import os
import re
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jepakit.data import BadSample
from jepakit.errors import DataError, nearest

UNKNOWN = 1e10
"""What is written where the flow is not known (.flo, .pfm)."""
HUGE = 1e9
"""Flow from here on is unknown: Middlebury's convention."""
TAG = np.float32(202021.25).tobytes()
"""How a .flo file begins: ``PIEH``."""
STEPS, ZERO = 64, 1 << 15
"""KITTI's flow: steps of a pixel, and the number that stands for no motion."""
PNG = re.compile(rb"\x89PNG\r\n\x1a\n\0\0\0\rIHDR(?P<width>....)(?P<height>....)(?P<kind>.....)", re.DOTALL)
PFM = re.compile(
    rb"PF\s+(?P<width>\d{1,9})\s+(?P<height>\d{1,9})\s+(?P<scale>-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s"
)
DEFLATE = 1032
"""At most so many times its length does a compressed PNG unpack to (zlib's documentation)."""
HEADER = 1 << 16
"""Bytes that are allowed for what is not pixels."""
MAX_PIXELS = 64_000_000


class Truth(NamedTuple):
    """How far each pixel of a first frame goes until the second: pixels to the right, and pixels down.

    ``flow`` is 0 where it is not ``known``. ``occluded`` is what is seen in the first frame and not in the second,
    because something covers it or it has left the picture; None where nobody says.
    """

    flow: Float[Tensor, "2 H W"]
    known: Bool[Tensor, "H W"]
    occluded: Bool[Tensor, "H W"] | None = None


def read_flow(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Truth:
    """The flow in a file, its format chosen by the suffix. Raises BadSample, whatever is wrong with the file."""
    path = os.fspath(path)
    try:
        read = FORMATS[_suffix(path)][0]
        flow, known = read(_bytes(path, max_pixels), max_pixels)
    except (ValueError, OSError) as error:
        raise BadSample(path, getattr(error, "strerror", None) or str(error)) from error
    known = known & (np.abs(np.nan_to_num(flow, nan=np.inf)) < HUGE).all(-1)
    flow = np.where(known[..., None], flow, 0).astype(np.float32)
    return Truth(torch.from_numpy(flow.transpose(2, 0, 1).copy()), torch.from_numpy(known))


def write_flow(path: str | os.PathLike[str], truth: Truth) -> None:
    """Write flow and what is known of it, in the format of the suffix. Where nothing is known, that is written.

    Raises DataError for another suffix, and for .png where the flow is beyond what KITTI's numbers reach.
    """
    flow, known = truth.flow.permute(1, 2, 0).numpy().astype(np.float32), truth.known.numpy()
    try:
        Path(path).write_bytes(FORMATS[_suffix(os.fspath(path))][1](flow, known))
    except ValueError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from error


def read_flo(data: bytes, max_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Flow ``H W 2`` and what is known of it. Raises ValueError, as the other readers do."""
    if data[:4] != TAG:
        raise ValueError(f"not a .flo file: it begins with {data[:4]!r}, not with {TAG!r}")
    width, height = np.frombuffer(data[4:12].ljust(8, b"\0"), "<i4").tolist()
    values = _values(data, 12, (height, width, 2), "<f4", max_pixels)
    return values, np.ones((height, width), bool)


def write_flo(flow: np.ndarray, known: np.ndarray) -> bytes:
    """The bytes of a .flo file."""
    height, width = known.shape
    return TAG + np.array([width, height], "<i4").tobytes() + _marked(flow, known).tobytes()


def read_pfm(data: bytes, max_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """As ``read_flo``."""
    found = PFM.match(data)
    if not found:
        raise ValueError(f"not a .pfm file of three channels: it begins with {data[:12]!r}, not with PF, width, height")
    width, height, little = int(found["width"]), int(found["height"]), float(found["scale"]) < 0
    values = _values(data, found.end(), (height, width, 3), "<f4" if little else ">f4", max_pixels)
    return values[::-1, :, :2], np.ones((height, width), bool)


def write_pfm(flow: np.ndarray, known: np.ndarray) -> bytes:
    """The bytes of a .pfm file."""
    height, width = known.shape
    rows = np.concatenate([_marked(flow, known), np.zeros((height, width, 1), "<f4")], -1)[::-1]
    return f"PF\n{width} {height}\n-1.0\n".encode() + rows.tobytes()


def read_png(data: bytes, max_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """As ``read_flo``."""
    import av  # torchvision's reader ends the process at a damaged file
    from av.error import FFmpegError

    found = PNG.match(data)
    if not found:
        raise ValueError(f"not a PNG file: it begins with {data[:8]!r}")
    width, height = (int.from_bytes(found[side], "big") for side in ("width", "height"))
    if found["kind"] != b"\x10\x02\0\0\0":
        raise ValueError("a PNG with flow has three channels of 16 bits, not interlaced; this one has not")
    _refuse_size(width, height, max_pixels)
    if width * height * 6 > DEFLATE * len(data):
        raise ValueError(f"{len(data)} bytes are too few for {width} x {height} pixels")
    if not _is_whole(data, height * (1 + 6 * width)):
        raise ValueError("a damaged PNG file")
    try:
        decoder = av.CodecContext.create("png", "r")
        decoder.thread_count, decoder.options = 1, {"err_detect": "crccheck+explode"}
        (frame,) = decoder.decode(av.Packet(data))  # type: ignore[attr-defined]
        values = frame.to_ndarray(format="rgb48le")
    except (FFmpegError, ValueError) as error:
        raise ValueError("a damaged PNG file") from error
    return (values[..., :2].astype(np.float32) - ZERO) / STEPS, values[..., 2] > 0


def write_png(flow: np.ndarray, known: np.ndarray) -> bytes:
    """The bytes of KITTI's PNG; flow is rounded to its steps. Raises ValueError for flow that is out of its range."""
    import av

    values = np.where(known[..., None], np.rint(flow * STEPS), 0)
    if values.size and (values.min() < -ZERO or values.max() >= ZERO):
        raise ValueError(f"a flow of {np.abs(values).max() / STEPS:g} pixels; a PNG reaches from -512 to below 512")
    three = np.concatenate([values + ZERO, np.ones_like(values[..., :1])], -1) * known[..., None]
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = known.shape
    encoder.pix_fmt, encoder.time_base = "rgb48be", Fraction(1)
    frame = av.VideoFrame.from_ndarray(three.astype(np.uint16), "rgb48le").reformat(format="rgb48be")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


Reader = Callable[[bytes, int], tuple[np.ndarray, np.ndarray]]
Writer = Callable[[np.ndarray, np.ndarray], bytes]
FORMATS: dict[str, tuple[Reader, Writer]] = {
    ".flo": (read_flo, write_flo),
    ".png": (read_png, write_png),
    ".pfm": (read_pfm, write_pfm),
}
"""Reader and writer of each suffix."""


def _suffix(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in FORMATS:
        raise ValueError(f"flow is kept in files {', '.join(FORMATS)}, not {suffix!r}{nearest(suffix, FORMATS)}")
    return suffix


def _is_whole(data: bytes, wanted: int) -> bool:
    """Whether a PNG's chunks unpack to so many bytes, no fewer and no more; the decoder fills up what is missing."""
    place, unpack, length = 8, zlib.decompressobj(), 0
    while place + 12 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if kind == b"IDAT":
            try:
                length += len(unpack.decompress(data[place + 8 : place + 8 + size], wanted + 1 - length))
            except zlib.error:
                return False
        if length > wanted:
            return False
        place += 12 + size
    return length == wanted and unpack.eof


def _bytes(path: str, max_pixels: int) -> bytes:
    """What is in a file. Raises ValueError for one that is empty, or longer than any with so many pixels."""
    size, most = os.path.getsize(path), 12 * max_pixels + HEADER
    if size > most:
        raise ValueError(f"{size} bytes, more than {most}, the most that max_pixels={max_pixels} take")
    if not size:
        raise ValueError("empty file")
    return Path(path).read_bytes()


def _values(data: bytes, start: int, shape: tuple[int, int, int], kind: str, max_pixels: int) -> np.ndarray:
    """What comes after a header. Raises ValueError unless there is as much of it as the header promises."""
    height, width, channels = shape
    _refuse_size(width, height, max_pixels)
    wanted = start + 4 * height * width * channels
    if len(data) != wanted:
        raise ValueError(f"{len(data)} bytes, where {width} x {height} pixels take {wanted}")
    return np.frombuffer(data, kind, offset=start).reshape(shape)


def _refuse_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"{width} x {height} pixels")
    if width * height > max_pixels:
        raise ValueError(f"{width} x {height} pixels, more than max_pixels={max_pixels}")


def _marked(flow: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.where(known[..., None], flow, UNKNOWN).astype("<f4")
