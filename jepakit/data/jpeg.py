"""The pixels of plain JPEGs by libjpeg-turbo (kornia-rs): those that Pillow's own gives, bit for bit, and sooner.

Pillow has the last word: what is not as plain as can be, or in any way damaged, is asked of Pillow, which may say why.
Headers that hold nothing but tables and sizes are read here, because opening a file costs Pillow a good part of what
decoding a small picture does.
"""

import struct

import torch
from jaxtyping import UInt8
from kornia_rs.io import decode_image_jpegturbo
from PIL import Image
from torch import Tensor

START, END = b"\xff\xd8\xff", b"\xff\xd9"
"""What a JPEG begins and ends with."""
TABLES = frozenset({0xFFE0, 0xFFDB, 0xFFC4, 0xFFDD, 0xFFFE})
"""Markers of JFIF, tables, restarts and comments: of nothing that could change how a picture is to be shown."""
SIZES, SCAN = frozenset({0xFFC0, 0xFFC2}), 0xFFDA
"""Markers of a frame, sequential or progressive, and of its first scan."""
SCALES = (8, 4, 2)
"""Parts of its sides, greatest first, that a JPEG can be decoded at beside all of them: of each 8 x 8 block of the
cosine transform only the lowest frequencies are taken."""


def read(path: str, max_pixels: int) -> UInt8[Tensor, "3 H W"] | None:
    """The picture at ``path``, lying in memory as ``H W 3``; None where Pillow has to look at it."""
    try:
        with open(path, "rb", buffering=0) as file:
            start = file.read(len(START))
            if start != START:
                return None
            data = start + file.readall()
    except OSError:
        return None
    found = shape(data)
    return None if found is None or found[0] * found[1] > max_pixels else pixels(data, found)


def shape(data: bytes) -> tuple[int, int] | None:
    """Height and width of a picture of three channels of 8 bits, whose header holds nothing but ``TABLES``."""
    at, found = 2, None
    try:
        while (marker := struct.unpack_from(">H", data, at)[0]) != SCAN:
            length = struct.unpack_from(">H", data, at + 2)[0]
            if marker in SIZES and found is None and length == 17:
                bits, *found, channels = struct.unpack_from(">BHHB", data, at + 4)
                if (bits, channels) != (8, 3):
                    return None
            elif marker not in TABLES or length < 2:
                return None
            at += 2 + length
    except struct.error:
        return None
    return None if found is None else (found[0], found[1])


def pixels(data: bytes, shape: tuple[int, int]) -> UInt8[Tensor, "3 H W"] | None:
    """The pixels of a whole file that promises this height and width; None where Pillow has to decide."""
    if not data.endswith(END):
        return None
    try:
        found = torch.from_numpy(decode_image_jpegturbo(data, "rgb")).permute(2, 0, 1)
    except Exception:  # libjpeg's remarks are errors here; Pillow passes over some, and finds its own words for others
        return None
    return found if found.shape == (3, *shape) else None


def plain(image: Image.Image) -> bool:
    """Whether what Pillow has opened is one JPEG of three channels."""
    return image.format == "JPEG" and image.mode == "RGB"


def opened(image: Image.Image) -> UInt8[Tensor, "3 H W"] | None:
    """The pixels of a plain picture that Pillow has opened, and can still load; None where it has to."""
    image.fp.seek(0)
    return pixels(image.fp.read(), (image.height, image.width))


def draft(image: Image.Image, scale: int) -> None:
    """Have Pillow decode an opened JPEG at a part of its sides: one of ``SCALES``."""
    image.draft(image.mode, (image.width // scale, image.height // scale))
