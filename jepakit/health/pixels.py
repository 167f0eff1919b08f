"""Whether the samples of a step are all the same picture."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from jepakit.data.colour import COLUMN

SIDE = 8
"""Points a side at which two pictures are compared."""
LEAST = 0.15
"""Share of the pictures' sides that two views must have in common."""
MOST = 64
"""Pairs that are compared, at most."""
HUE, FACTOR = 0.03, 0.25
"""How far apart two views' colours may have been changed: their hue in turns, all else as a difference of factors."""

COLOURS = ("brightness", "contrast", "saturation", "hue", "grey", "solarize")
NAMES = ("left", "top", "right", "bottom", "mirrored")


@torch.no_grad()
def alike(
    views: Sequence[Float[Tensor, "B C _ _ _"]], how: Sequence[Float[Tensor, "B P"]] | None, index: Int[Tensor, "B"]
) -> dict[str, Float[Tensor, ""]]:
    """``pixel_alike``: the correlation of each sample of a step with the next one, the median over pairs.

    Pictures are compared where both were cut, mirrored back, so that one that is cut twice is found to be the same.
    Pairs of one sample's clips, and views with too little in common or with other changes of colour, are left out.
    Empty where nobody says ``how`` the first view came about, and for one sample alone; not a number where no pair is
    left.
    """
    if not how or len(views[0]) < 2 or how[0].shape[1] < len(COLUMN):
        return {}
    pixels, boxes = views[0][: MOST + 1, :, 0].float(), how[0][: MOST + 1].to(views[0].device).float()
    left, top, right, bottom, mirrored = (boxes[:, COLUMN[name]] for name in NAMES)
    least = torch.stack([left, top], -1)
    most = torch.stack([right, bottom], -1)
    low, high = torch.maximum(least[:-1], least[1:]), torch.minimum(most[:-1], most[1:])
    points = shared(low, high)
    ends = []
    for part in (slice(None, -1), slice(1, None)):
        at = (points - least[part, None, None]) / (most - least)[part, None, None].clamp_min(1e-6) * 2 - 1
        at = torch.stack([torch.where(mirrored[part, None, None] > 0, -at[..., 0], at[..., 0]), at[..., 1]], -1)
        found = F.grid_sample(pixels[part], at, padding_mode="border", align_corners=False)
        ends.append((found - found.mean((2, 3), keepdim=True)).flatten(1))
    numbers = index[: MOST + 1].to(low.device)
    there = (high - low > LEAST).all(-1) & (numbers[:-1] != numbers[1:]) & tinted_alike(boxes)
    found = torch.where(there, F.cosine_similarity(*ends), torch.nan)
    return {"pixel_alike": found.nanmedian()}


def tinted_alike(how: Float[Tensor, "n P"]) -> Bool[Tensor, "m"]:
    """For each view and the next one, whether their colours were changed in much the same way."""
    apart = {name: how[:, COLUMN[name]].diff().abs() for name in COLOURS}
    plain = (how[:-1, COLUMN["solarize"]] == 0) & (apart["solarize"] == 0) & (apart["grey"] == 0)
    same = (apart["brightness"] < FACTOR) & (apart["contrast"] < FACTOR)
    coloured = (apart["hue"] < HUE) & (apart["saturation"] < FACTOR)
    return plain & same & (coloured | (how[1:, COLUMN["grey"]] > 0))


def shared(low: Float[Tensor, "n 2"], high: Float[Tensor, "n 2"]) -> Float[Tensor, "n S S 2"]:
    """The middles of ``SIDE`` by ``SIDE`` cells of each box, in the coordinates of its corners, across then down."""
    steps = (torch.arange(SIDE, device=low.device) + 0.5) / SIDE
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    return low[:, None, None] + grid * (high - low)[:, None, None]
