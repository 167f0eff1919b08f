"""What a video file is by its bytes, and whether all of it is there. Nothing is decoded.

Decoders read what there is of a file that was cut off, and call it a shorter video; a picture that ends too early is
refused, and so is a video. The containers here state their length; of others the decoders have the last word.
"""

import os
import re
from typing import BinaryIO, NamedTuple

MATROSKA, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
CONTENT = (b"moov", b"moof", b"mdat")
"""Boxes of MP4 that a video cannot do without."""
BOXES = (b"ftyp", b"free", b"skip", b"wide", b"styp", b"sidx", b"uuid", b"pnot", *CONTENT)
"""Boxes at the top of MP4 and QuickTime files; what follows another one is not looked at."""
RIFF_OPEN = (0, 0xFFFFFFFF)
"""Lengths that the writer of an AVI file left open."""
ENOUGH = 1 << 24
"""Bytes in which the name of the codec is looked for."""
CODECS = {
    "H.264": (b"avc1", b"avc3", b"V_MPEG4/ISO/AVC"),
    "HEVC": (b"hvc1", b"hev1", b"V_MPEGH/ISO/HEVC"),
    "VP8": (b"vp08", b"V_VP8"),
    "VP9": (b"vp09", b"V_VP9"),
    "AV1": (b"av01", b"V_AV1"),
    "MPEG-4": (b"mp4v", b"V_MPEG4/ISO/ASP"),
}
"""Names of codecs, as MP4 and as Matroska write them."""


class Container(NamedTuple):
    """``kind`` is MP4, Matroska (WebM too), AVI, MPEG-TS or empty; ``codec`` is a key of ``CODECS`` or empty."""

    kind: str
    codec: str = ""


def inspect(path: str) -> Container:
    """What the file is. Raises ValueError where it is empty or ends before its own stated end, OSError."""
    with open(path, "rb") as file:
        there = os.fstat(file.fileno()).st_size
        if there == 0:
            raise ValueError("empty file")
        head = file.read(12)
        if head[:4] == MATROSKA:
            found, end = _matroska(file)
        elif head[4:8] in BOXES:
            found, end = _boxes(file, there)
        elif head[:4] == b"RIFF" and head[8:] == b"AVI ":
            size = int.from_bytes(head[4:8], "little")
            found, end = Container("AVI"), 0 if size in RIFF_OPEN else 8 + size
        else:
            return Container("")
    if end > there:
        raise ValueError(f"it ends too early: {there:,} of {end:,} bytes")
    return found


def _boxes(file: BinaryIO, there: int) -> tuple[Container, int]:
    """The codec of an MP4 or QuickTime file, and where it says that its content ends."""
    at, end, codec = 0, 0, ""
    while at + 8 <= there:
        file.seek(at)
        size, name = int.from_bytes(file.read(4), "big"), file.read(4)
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if name not in BOXES or size < 8:
            break  # padding, or a last box that reaches to the end of the file
        if name == b"moov":  # a table of samples names its codec behind version, count and size
            tables = re.findall(rb"stsd.{12}(.{4})", file.read(min(size, ENOUGH)), re.DOTALL)
            codec = next(filter(None, map(_codec, tables)), "")
        at += size
        end = at if name in CONTENT else end
    return Container("MP4", codec), end


def _matroska(file: BinaryIO) -> tuple[Container, int]:
    """The codec, and where the segment says that it ends: 0 where that was left open, as live streams leave it."""
    file.seek(4)
    file.seek(_length(file) or 0, os.SEEK_CUR)
    if file.read(4) != SEGMENT:
        return Container("Matroska"), 0
    size = _length(file)
    end = 0 if size is None else file.tell() + size
    names = re.findall(rb"V_[A-Z0-9/]+", file.read(ENOUGH >> 8))
    return Container("Matroska", next(filter(None, map(_codec, names)), "")), end


def _codec(written: bytes) -> str:
    return next((name for name, ways in CODECS.items() if written in ways), "")


def _length(file: BinaryIO) -> int | None:
    """An EBML length: the leading zeros of its first byte are the bytes that follow. None: all ones, unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    bits = 7 * (more + 1)
    value = int.from_bytes(first + file.read(more), "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value
