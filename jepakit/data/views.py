"""What happens to a decoded picture before the model sees it.

A view works in two halves: ``take`` decides by chance and cuts, ``fit`` brings the piece to the view's size, as
torchvision's functions do. Both happen in the worker, so that what travels is of one size, and 8 bits a value. Flip,
colours (recolour.py) and normalisation are batched on the training device. All frames of a clip share a box.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from jepakit.data.colour import Colour, How
from jepakit.errors import ConfigError
from jepakit.options import DataOptions, ViewOptions

TRIES = 10
"""Boxes that are drawn before a picture is cut around its centre, as torchvision does."""
RESIZE_FOR = 256 / 224
"""Short side of the resized picture over the side of the view, in evaluation: torchvision's convention."""
SLIVER = 4
"""Long side over short side from which an evaluation view cuts before it resizes, to spare memory."""
CHUNK = 2**18
"""Values that are normalised at once on a CPU: as floats they stay in a core's cache from one operation to the next."""
NEAREST = InterpolationMode.NEAREST_EXACT.value
"""How a map is resized: numbers of classes have no mean, and no depth lies between two things."""


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    def shares(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in shares of the sides of a picture of ``height`` by ``width`` pixels."""
        right, bottom = self.left + self.width, self.top + self.height
        return self.left / width, self.top / height, right / width, bottom / height

    def within(self, scale: int, height: int, width: int) -> "Box":
        """Where the box lies when the picture was decoded at a part of its sides, ``height`` by ``width`` pixels."""
        top, left = min(round(self.top / scale), height - 1), min(round(self.left / scale), width - 1)
        bottom, right = round((self.top + self.height) / scale), round((self.left + self.width) / scale)
        return Box(top, left, max(min(bottom, height) - top, 1), max(min(right, width) - left, 1))


@runtime_checkable
class View(Protocol):
    """One way to look at a picture."""

    size: int

    def take(self, picture: UInt8[Tensor, "C T H W"], rng: torch.Generator) -> tuple[UInt8[Tensor, "C T h w"], How]:
        """The piece to look at, and all that is decided about it."""
        ...

    def fit(self, piece: UInt8[Tensor, "C T h w"]) -> UInt8[Tensor, "C T S S"]:
        """The piece at the view's size."""
        ...


class RandomView(NamedTuple):
    """A random resized crop, then half of them mirrored if ``flip``: torchvision's RandomResizedCrop, draw for draw.

    What happens to its colours is drawn last, so that its crops are the same with and without. ``clip`` numbers the one
    of a sample's clips that it looks at, ``frame`` the one frame of it.
    """

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: bool = False
    colour: Colour = Colour()
    interpolation: str = "bilinear"
    clip: int | None = None
    frame: int | None = None

    def take(
        self, picture: UInt8[Tensor, "C T H W"], rng: torch.Generator, full: tuple[int, int] | None = None
    ) -> tuple[UInt8[Tensor, "C t h w"], How]:
        """As all views do. ``full`` is the height and width of a picture that was decoded smaller (scaled.py)."""
        if self.frame is not None:
            if self.frame >= picture.shape[1]:
                raise ConfigError(f"views.*.frame={self.frame}: a sample has {picture.shape[1]} frames, the first is 0")
            picture = picture[:, self.frame : self.frame + 1]
        height, width = full or picture.shape[-2:]
        box = draw_box(height, width, self.scale, self.ratio, rng)
        mirrored = self.flip and torch.rand(1, generator=rng).item() < 0.5
        scale = round(height / picture.shape[-2])
        return crop(picture, box.within(scale, *picture.shape[-2:]) if scale > 1 else box), How(
            *box.shares(height, width), float(mirrored), **self.colour.draw(rng)
        )

    def fit(self, piece: UInt8[Tensor, "C T h w"]) -> UInt8[Tensor, "C T S S"]:
        return resize(piece, [self.size, self.size], self.interpolation)


class CentreView(NamedTuple):
    """The evaluation view: short side resized, centre cropped; a picture that has the size already is left alone."""

    size: int

    def take(self, picture: UInt8[Tensor, "C T H W"], rng: torch.Generator) -> tuple[UInt8[Tensor, "C T h w"], How]:
        return spared(picture), How()

    def fit(self, piece: UInt8[Tensor, "C T h w"]) -> UInt8[Tensor, "C T S S"]:
        return self._fitted(piece, "bilinear")

    def fit_map(self, whole: Shaped[Tensor, "H W"]) -> Shaped[Tensor, "S S"]:
        """A map of the whole picture, cut as the view cuts the picture."""
        return self._fitted(spared(whole[None, None]), NEAREST)[0, 0]

    def _fitted(self, piece: Tensor, interpolation: str) -> Tensor:
        if piece.shape[-2:] == (self.size, self.size):
            return piece
        return F.center_crop(resize(piece, [int(self.size * RESIZE_FOR)], interpolation), [self.size, self.size])


class SideView(NamedTuple):
    """The ``number``-th of ``of`` squares that are spread evenly over the longer side, short side resized to ``size``.

    The first and the last lie at the ends; of a square picture all are the whole of it. As in the released V-JEPA code
    (evals/video_classification_frozen/utils.py).
    """

    size: int
    number: int
    of: int

    def take(self, picture: UInt8[Tensor, "C T H W"], rng: torch.Generator) -> tuple[UInt8[Tensor, "C T h w"], How]:
        return spared(picture), How()

    def fit(self, piece: UInt8[Tensor, "C T h w"]) -> UInt8[Tensor, "C T S S"]:
        return self._fitted(piece, "bilinear")

    def fit_map(self, whole: Shaped[Tensor, "H W"]) -> Shaped[Tensor, "S S"]:
        """A map of the whole picture, cut as the view cuts the picture."""
        return self._fitted(spared(whole[None, None]), NEAREST)[0, 0]

    def _fitted(self, piece: Tensor, interpolation: str) -> Tensor:
        whole = resize(piece, [self.size], interpolation)
        top, left = (self.number * ((side - self.size) // (self.of - 1)) for side in whole.shape[-2:])
        return crop(whole, Box(top, left, self.size, self.size))


def drawn_views(data: DataOptions, views: Mapping[str, Mapping[str, Any]]) -> tuple[View, ...]:
    """The views of a sample that ``config["views"]`` asks for, in its order; of none the one that ``data`` describes.

    What an entry leaves open is what ``data`` says. Raises ConfigError for colours that take other channels.
    """
    found: list[View] = []
    for name, given in views.items() or [("", {})]:
        o, common = ViewOptions(**given), asdict(data)
        size, scale, ratio, flip = (
            common[key] if getattr(o, key) is None else getattr(o, key)
            for key in ("size", "crop_scale", "crop_ratio", "flip")
        )
        colour = Colour(tuple(o.jitter), o.jitter_p, o.grey, o.blur, tuple(o.blur_sigma), o.solarize)
        if (colour.jitters or colour.grey) and len(data.mean) != 3:
            raise ConfigError(f"views.{name}: jitter and grey take 3 channels, data.mean has {len(data.mean)}")
        found += [
            RandomView(size, tuple(scale), tuple(ratio), flip, colour, o.interpolation, o.clip, o.frame)
        ] * o.count
    return tuple(found)


def alone(config: Mapping[str, Any]) -> bool:
    """Whether all views of a run look at single frames."""
    frames = [view.get("frame") for view in (config.get("views") or {}).values()]
    return bool(frames) and None not in frames


def side_views(size: int, count: int) -> tuple[View, ...]:
    """The views that a picture is judged by: one from its centre, or ``count`` along its longer side."""
    return tuple(SideView(size, number, count) for number in range(count)) if count > 1 else (CentreView(size),)


def middle_view(size: int, count: int) -> View:
    """One view from the centre, at the scale of ``count`` along the longer side."""
    return SideView(size, 1, 3) if count > 1 else CentreView(size)


def spared(picture: Shaped[Tensor, "C T H W"]) -> Shaped[Tensor, "C T h w"]:
    """The picture, of a sliver its middle: see ``SLIVER``."""
    height, width = picture.shape[-2:]
    limit = SLIVER * min(height, width)
    return F.center_crop(picture, [min(height, limit), min(width, limit)])


def draw_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: torch.Generator
) -> Box:
    """The box of a random resized crop (Szegedy et al. 2015), with the draws of torchvision in their order.

    Area uniform in ``scale`` of the picture's, width over height log-uniform in ``ratio``, place uniform. Where no
    box fits, the largest one about the centre.
    """
    log_ratio = _logarithms(ratio)
    for _ in range(TRIES):
        area = height * width * torch.empty(1).uniform_(*scale, generator=rng).item()
        aspect = torch.exp(torch.empty(1).uniform_(*log_ratio, generator=rng)).item()
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = torch.randint(0, height - h + 1, (1,), generator=rng).item()
            left = torch.randint(0, width - w + 1, (1,), generator=rng).item()
            return Box(int(top), int(left), h, w)
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return Box((height - h) // 2, (width - w) // 2, h, w)


@functools.cache
def _logarithms(ratio: tuple[float, float]) -> list[float]:
    return torch.log(torch.tensor(ratio)).tolist()


def crop(picture: Shaped[Tensor, "C T H W"], box: Box) -> Shaped[Tensor, "C T h w"]:
    """The pixels in a box, not copied."""
    return picture[..., box.top : box.top + box.height, box.left : box.left + box.width]


def resize(
    piece: Shaped[Tensor, "C T h w"], size: list[int], interpolation: str = "bilinear"
) -> Shaped[Tensor, "C T H W"]:
    """With antialiasing, as torchvision does it; one number in ``size`` is the length of the short side."""
    frames = piece.transpose(0, 1)  # T C H W: the channels of a frame together, which is the fast path
    if _plain(piece, size) and interpolation in ("bilinear", "bicubic"):  # what torchvision calls, and copies then
        return interpolate(frames, size, mode=interpolation, antialias=True).transpose(0, 1)
    return F.resize(frames, size, InterpolationMode(interpolation), antialias=True).transpose(0, 1)


def _plain(piece: Tensor, size: list[int]) -> bool:
    """Whether torch resizes it in 8 bits on this processor, and there is anything to do."""
    able = piece.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return able and piece.dtype == torch.uint8 and len(size) == 2 and tuple(size) != piece.shape[-2:]


class Normalise:
    """Whole batches on the training device: mirror, scale to 0..1, subtract ``mean``, divide by ``std``.

    Between, ``change`` is done to values in 0..1, and may work in place.
    """

    def __init__(self, mean: list[float], std: list[float], device: torch.device):
        self._mean = torch.tensor(mean, device=device).view(-1, 1, 1, 1)
        self._std = torch.tensor(std, device=device).view(-1, 1, 1, 1)

    def __call__(
        self,
        pixels: UInt8[Tensor, "B C T H W"],
        mirrored: Bool[Tensor, "B"],
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "B C T H W"]:
        values = torch.empty(pixels.shape, device=pixels.device)
        few = max(1, CHUNK // pixels[0].numel()) if pixels.device.type == "cpu" and len(pixels) else len(pixels)
        for some, given, turned in zip(*(each.split(few) for each in (values, pixels, mirrored)), strict=True):
            some.copy_(_mirror(given, turned)).div_(255)
            if change is None:
                self._centre(some)
        return values if change is None else self._centre(change(values))

    def _centre(self, values: Tensor) -> Tensor:
        return values.sub_(self._mean).div_(self._std)


def _mirror(pixels: UInt8[Tensor, "B C T H W"], mirrored: Bool[Tensor, "B"]) -> UInt8[Tensor, "B C T H W"]:
    """Those of a batch that are to be."""
    count = int(mirrored.sum())  # known on the CPU: no synchronisation
    if count in (0, len(mirrored)):
        return pixels.flip(-1) if count else pixels
    chosen = mirrored.to(pixels.device, non_blocking=True).view(-1, 1, 1, 1, 1)
    return torch.where(chosen, pixels.flip(-1), pixels)
