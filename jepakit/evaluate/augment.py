"""What fine-tuning does to pictures: crops, RandAugment, mixtures of two. Each draw has a key, whoever makes it."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, v2

from jepakit.data.colour import How
from jepakit.data.views import crop, draw_box, resize


class AugmentedView(NamedTuple):
    """A random resized crop, half of them mirrored if ``flip``, then RandAugment (arXiv 1909.13719) at the view's size.

    ``operations`` of strength ``magnitude`` (torchvision's scale, below 31) follow one another; all frames of a clip
    are changed alike. All of it happens in the worker.
    """

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: bool
    operations: int
    magnitude: int

    def take(self, picture: UInt8[Tensor, "C T H W"], rng: torch.Generator) -> tuple[UInt8[Tensor, "C T S S"], How]:
        height, width = picture.shape[-2:]
        box = draw_box(height, width, self.scale, self.ratio, rng)
        mirrored = self.flip and torch.rand(1, generator=rng).item() < 0.5
        piece = resize(crop(picture, box), [self.size, self.size])
        if self.operations:
            change = v2.RandAugment(self.operations, self.magnitude, interpolation=InterpolationMode.BILINEAR)
            with drawing(rng):
                piece = change(piece.transpose(0, 1)).transpose(0, 1)  # frames of C H W, as torchvision has them
        return piece, How(*box.shares(height, width), float(mirrored))

    def fit(self, piece: UInt8[Tensor, "C T S S"]) -> UInt8[Tensor, "C T S S"]:
        return piece


class Pixel(NamedTuple):
    """One pixel, for those who want to know no more than a sample's labels."""

    size: int = 1

    def take(self, picture: UInt8[Tensor, "C T H W"], rng: torch.Generator) -> tuple[UInt8[Tensor, "C 1 1 1"], How]:
        return picture[:, :1, :1, :1], How()

    def fit(self, piece: UInt8[Tensor, "C 1 1 1"]) -> UInt8[Tensor, "C 1 1 1"]:
        return piece


def mix(
    pixels: Float[Tensor, "B C T H W"],
    y: Int[Tensor, "B"],
    classes: int,
    mixup: float,
    cutmix: float,
    rng: torch.Generator,
) -> tuple[Float[Tensor, "B C T H W"], Float[Tensor, "B classes"]]:
    """Mix every sample with another of the batch, and what is to be answered; where both are above 0, one of them.

    Args:
        mixup: alpha of MixUp's Beta distribution (arXiv 1710.09412); 0: none.
        cutmix: the same of CutMix (arXiv 1905.04899).
    """
    target = F.one_hot(y, classes).float()
    kinds = [kind(alpha=alpha) for kind, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if alpha]
    if not kinds:
        return pixels, target
    chosen = kinds[int(torch.randint(len(kinds), (1,), generator=rng))]
    with drawing(rng):
        images, target = chosen(pixels.flatten(1, 2), target)  # the frames of a clip as channels: one box for all
    return images.unflatten(1, pixels.shape[1:3]), target


@contextlib.contextmanager
def drawing(rng: torch.Generator) -> Iterator[None]:
    """What torchvision draws from the global state of the CPU depends on ``rng``; the state is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (1,), generator=rng)))
        yield
