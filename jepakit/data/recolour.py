"""The colours of whole batches, changed on the training device as ``colour.py`` decided for each sample.

Jitter, grey, blur, solarize: the operations of the released VICReg code (augmentations.py), in its order; a jitter's
four in an order of their own for each sample, as in torchvision's ColorJitter. Values stay floats from one to the next,
where the released pipeline rounds to 8 bits after each. All frames of a clip are changed alike.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from kornia.color import rgb_to_grayscale
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_saturation_with_gray_subtraction,
)
from kornia.filters import gaussian_blur2d
from torch import Tensor

from jepakit.data.colour import ORDERS, How

Change = Callable[[Tensor, Tensor], Tensor]
"""``(images [n C H W] in 0..1, the column's values [n]) -> images``."""


def recolour(pixels: Float[Tensor, "B C T H W"], how: Float[Tensor, "B P"], radius: int) -> Float[Tensor, "B C T H W"]:
    """Change a batch in 0..1 as its rows say, in place where it has one frame.

    ``how`` is on the CPU, so that nobody waits for the device. ``radius`` is that of a blur's kernel.
    """
    batch, _, length = pixels.shape[:3]
    frames = pixels.transpose(1, 2).flatten(0, 1)
    columns = dict(zip(How._fields, how.repeat_interleave(length, 0).unbind(1), strict=True))
    orders = [ORDERS[number] for number in columns["order"].int().tolist()]
    for place in range(len(JITTERS)):
        for name, change in JITTERS.items():
            _change(frames, columns, name, change, torch.tensor([order[place] == name for order in orders]))
    _change(frames, columns, "grey", lambda images, _: rgb_to_grayscale(images))
    _change(frames, columns, "blur", lambda images, sigma: blurred(images, sigma, radius))
    _change(frames, columns, "solarize", lambda images, _: torch.minimum(images, 1 - images))
    return frames.unflatten(0, (batch, length)).transpose(1, 2).contiguous()


def turned(images: Float[Tensor, "n 3 H W"], turns: Float[Tensor, "n"]) -> Float[Tensor, "n 3 H W"]:
    """Their hues moved by so much of a turn of the colour circle.

    Through HSV, each channel of the way back as one formula: kornia's ``adjust_hue`` gives the same and takes two to
    three times as long on a CPU, which is most of the time that a jitter takes.
    """
    red, green, blue = images.unbind(1)
    high = images.amax(1)
    span = high - images.amin(1)
    sixth = torch.where(high == green, blue - red + 2 * span, red - green + 4 * span)
    sixth = torch.where(high == red, green - blue, sixth) / torch.where(span == 0, 1, span)
    sixth += 6 * turns.view(-1, 1, 1)
    found = []
    for first in (5, 3, 1):  # red, green, blue: how far each is from where it is full
        away = sixth + first
        away -= 6 * torch.floor(away / 6)
        found.append(high - span * torch.minimum(away, 4 - away).clamp_(0, 1))
    return torch.stack(found, 1)


def blurred(images: Float[Tensor, "n C H W"], sigma: Float[Tensor, "n"], radius: int) -> Float[Tensor, "n C H W"]:
    """By a Gaussian each. Borders are mirrored, so that of a view smaller than ``radius`` the kernel is cut."""
    radius = min(radius, *(side - 1 for side in images.shape[-2:]))
    return gaussian_blur2d(images, 2 * radius + 1, sigma.unsqueeze(1).expand(-1, 2))


JITTERS: dict[str, Change] = {
    "brightness": adjust_brightness_accumulative,
    "contrast": adjust_contrast_with_mean_subtraction,
    "saturation": adjust_saturation_with_gray_subtraction,
    "hue": turned,
}


def _change(
    frames: Float[Tensor, "n C H W"], columns: dict[str, Tensor], name: str, change: Change, among: Tensor | None = None
) -> None:
    """Do it to the rows, ``among`` these, whose column is not its default."""
    meant = columns[name] != How._field_defaults[name]
    rows = (meant if among is None else meant & among).nonzero().squeeze(1)
    if len(rows):
        there = rows.to(frames.device, non_blocking=True)
        values = columns[name][rows].to(frames.device, non_blocking=True)
        frames[there] = change(frames[there], values).expand(-1, frames.shape[1], -1, -1)
