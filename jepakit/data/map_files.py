"""Maps as files: a number for every pixel of a picture, the class of what it shows, or how far that is.

    classes    PNG of numbers, as greys or with a palette (PASCAL VOC, ADE20K, Cityscapes' labelIds); .npy of integers
    depth      PNG of 16 bits (NYU: millimetres, KITTI: 256ths of a metre), where 0 is unknown; .npy and .pfm of floats,
               where what is not above 0 or not finite is unknown

What a file's header promises is compared with ``max_pixels`` before anything is allocated.
"""

import os
import re

import numpy as np
from PIL import Image

from jepakit.data import BadSample
from jepakit.data.decode import Pillow, orientation, turn

CLASSES, DEPTHS = (".png", ".npy"), (".png", ".npy", ".pfm")
"""Suffixes of maps of classes, and of maps of depth."""
WORDS = ("I", "I;16", "I;16B", "I;16L")
"""Pillow's modes of greys of 16 bits."""
PFM = re.compile(rb"Pf\s+(?P<width>\d{1,9})\s+(?P<height>\d{1,9})\s+(?P<scale>-?[\d.]+(?:[eE][-+]?\d+)?)\s")
SWAPPED = 5
"""EXIF orientations from here on turn a picture by a quarter, and mirror it perhaps."""


def read_classes(path: str, max_pixels: int) -> np.ndarray:
    """Numbers of classes, int64 ``H W``. Raises BadSample, whatever is wrong with the file."""
    if path.lower().endswith(".npy"):
        return _npy(path, max_pixels, "iu").astype(np.int64)
    with Pillow(max_pixels).opened(path) as image:
        if image.mode not in ("P", "L", "1", *WORDS):
            raise ValueError(f"a map of classes is a PNG of numbers, grey or with a palette, not of mode {image.mode}")
        return np.asarray(image).astype(np.int64)


def read_depth(path: str, max_pixels: int, scale: float) -> np.ndarray:
    """Depth, float32 ``H W``, nan where it is unknown; ``scale`` is what stands for 1 in a PNG. Raises BadSample."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".png":
        with Pillow(max_pixels).opened(path) as image:
            if image.mode not in WORDS:
                raise ValueError(f"a PNG with depth has one channel of 16 bits, not mode {image.mode}")
            values = np.asarray(image).astype(np.float32) / np.float32(scale)
    else:
        values = _npy(path, max_pixels, "f") if suffix == ".npy" else _pfm(path, max_pixels)
    values = values.astype(np.float32)
    return np.where(np.isfinite(values) & (values > 0), values, np.float32(np.nan))


def fit_picture(values: np.ndarray, path: str, picture: str, max_pixels: int) -> np.ndarray:
    """The map, turned as the picture's EXIF orientation turns the picture, where it has not been yet.

    Raises BadSample for a map of another size than its picture, and where its size does not tell whether it is turned.
    """
    with Pillow(max_pixels).opened(picture) as image:
        stored, how = image.size[::-1], orientation(image)
    shown = stored[::-1] if how >= SWAPPED else stored
    if values.shape not in (stored, shown):
        size, wanted = (f"{width} x {height}" for height, width in (values.shape, shown))
        raise BadSample(path, f"{size} pixels, and its picture has {wanted}")
    if how == 1:
        return values
    if stored == shown:
        raise BadSample(path, "its picture is turned by an EXIF tag, and nothing tells whether the map is turned too")
    if values.shape == shown:
        return values
    kind = np.int32 if values.dtype == np.int64 else np.float32  # Pillow's modes I and F
    return np.asarray(turn(Image.fromarray(values.astype(kind)), how)).astype(values.dtype)


def _npy(path: str, max_pixels: int, kinds: str) -> np.ndarray:
    """The array in a file, of one of numpy's kinds. Raises BadSample."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in kinds:
            raise ValueError(f"an array of two axes is needed, of {'floats' if kinds == 'f' else 'whole numbers'}")
        _refuse_size(values.shape, max_pixels)
        return np.array(values)
    except (OSError, ValueError, EOFError) as error:
        raise BadSample(path, _reason(error)) from error


def _pfm(path: str, max_pixels: int) -> np.ndarray:
    """The floats of a file of one channel, which holds the last row first. Raises BadSample."""
    try:
        if os.path.getsize(path) > 4 * max_pixels + (1 << 10):
            raise ValueError(f"{os.path.getsize(path)} bytes, more than max_pixels={max_pixels} take")
        with open(path, "rb") as file:
            data = file.read()
        if not (found := PFM.match(data)):
            raise ValueError(
                f"not a .pfm file of one channel: it begins with {data[:12]!r}, not with Pf, width, height"
            )
        shape = int(found["height"]), int(found["width"])
        _refuse_size(shape, max_pixels)
        if len(data) != (wanted := found.end() + 4 * shape[0] * shape[1]):
            raise ValueError(f"{len(data)} bytes, where {shape[1]} x {shape[0]} pixels take {wanted}")
        return np.frombuffer(data, "<f4" if float(found["scale"]) < 0 else ">f4", offset=found.end()).reshape(shape)[
            ::-1
        ]
    except (OSError, ValueError) as error:
        raise BadSample(path, _reason(error)) from error


def _refuse_size(shape: tuple[int, ...], max_pixels: int) -> None:
    if not 0 < shape[0] * shape[1] <= max_pixels:
        raise ValueError(f"{shape[1]} x {shape[0]} pixels, of max_pixels={max_pixels}")


def _reason(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())
