"""Pictures as files: bytes to pixels, with one defined answer for every odd kind of file.

What is inside decides the format, never the suffix. Pixels come out as 8-bit RGB:

* grey, bilevel and palette pictures are given their three channels;
* transparent ones are laid over white: what lies under a transparent pixel is not part of the picture;
* CMYK and YCbCr are converted by Pillow's formulas, without colour profiles;
* of 16 bits the high byte is kept, so that 65535 becomes 255; 32-bit integers and floats have no defined scale and
  are refused;
* the EXIF orientation is applied: a picture is as its photographer held it. (torchvision's ImageFolder does not.)

Of an animation the first frame is taken. A file that ends too early is refused, never filled up with grey. Bit rot
that still is valid JPEG cannot be told from a picture, by anyone.

All of this is Pillow's answer. The pixels of plain JPEGs come by a quicker way (jpeg.py), and are the same.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from jepakit.data import BadSample, jpeg

Shrink = Callable[[int, int], int]
"""``(height, width) of the upright picture -> part of its sides`` that is enough: 1, or one of ``jpeg.SCALES``."""
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2",),
    "AVIF": (".avif",),
}
"""Formats that are tried, by Pillow's names, and their suffixes. Formats that run other programs are left out."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # their height is stored as their width
_ORIENTATION = 0x0112

Image.init()


class Pillow:
    """Decodes still pictures.

    Args:
        max_pixels: a picture of more pixels is refused after its header, before anything is decoded.
    """

    suffixes: tuple[str, ...] = tuple(suffix for several in FORMATS.values() for suffix in several)
    """File names that are worth a look."""
    channels: int = 3
    scales: bool = True
    """It takes a ``Shrink``."""

    def __init__(self, max_pixels: int = 64_000_000):
        self.max_pixels = max_pixels

    def __call__(self, path: str, shrink: Shrink | None = None) -> UInt8[Tensor, "3 1 H W"]:
        """The picture at ``path``, of a JPEG what ``shrink`` says. Raises BadSample, whatever is wrong with it."""
        if shrink is None and (read := jpeg.read(path, self.max_pixels)) is not None:
            return read.unsqueeze(1)
        with self.opened(path) as image:
            found = quick(image, shrink) if jpeg.plain(image) else None
            if found is None:
                image.load()
                upright = turn(to_rgb(image), orientation(image))
                found = torch.from_numpy(np.array(upright)).permute(2, 0, 1)
            return found.unsqueeze(1)

    def format(self, path: str) -> str:
        """The format that the file is really in, read from its header. Raises BadSample."""
        with self.opened(path) as image:
            return str(image.format)

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[Image.Image]:
        """The file, opened and checked but not decoded; every error on the way becomes a BadSample."""
        try:
            with _strict(), open(path, "rb") as file:
                if not file.peek(1):
                    raise ValueError("empty file")
                image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
                width, height = image.size
                if width * height > self.max_pixels:
                    raise ValueError(f"{width} x {height} pixels, more than max_pixels={self.max_pixels}")
                yield image
        except MemoryError:
            raise
        except Exception as error:  # Pillow's readers raise anything when the bytes are wrong
            raise BadSample(path, _reason(error)) from error


def quick(image: Image.Image, shrink: Shrink | None) -> UInt8[Tensor, "3 H W"] | None:
    """The pixels of a plain JPEG; None where it has to be turned, or Pillow has to decide.

    Where ``shrink`` allows it, Pillow is told to decode less of it.
    """
    way = orientation(image)
    height, width = image.size if way in _SIDEWAYS else image.size[::-1]
    scale = 1 if shrink is None else shrink(height, width)
    if scale > 1:
        jpeg.draft(image, scale)
        return None
    return None if way in _UPRIGHT else jpeg.opened(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB, by the rules at the top. Raises ValueError for modes without a defined scale."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}) have no defined scale")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none. A broken EXIF block does not spoil the picture."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as above; the pixels are decoded already, and sound
        return 1


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as it was meant to be seen."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """Pillow's process-wide switches as they are needed here, whatever others have set."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata; what matters is raised
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before


def _reason(error: Exception) -> str:
    """One line that says what is wrong, without the path."""
    if isinstance(error, UnidentifiedImageError):
        return f"not a picture that can be read (tried {', '.join(FORMATS)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
