"""How alike features are at places apart: near ones as PWC-Net has it, all of them as RAFT has it."""

import contextlib

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jepakit_flow.geometry import precise, sample

PIECE = 8
"""Places of a row whose products are taken at once: shorter ones waste less, longer ones are faster to multiply."""


def local(one: Float[Tensor, "B D H W"], other: Float[Tensor, "B D H W"], radius: int) -> Float[Tensor, "B K H W"]:
    """Mean product of the features of each place with those up to ``radius`` places away, row by row of these (PWC-Net,
    section 3); zero outside of the picture.

    For each row of displacements this is one matrix product for each piece of a row of the picture, of which a band is
    kept: more to compute than is asked for, and several times as fast as going through the displacements.
    """
    one, other = precise(one), precise(other)
    (_, width, h, w), side = one.shape, 2 * radius + 1
    piece = min(w, PIECE)
    rest = -w % piece
    places = F.pad(one, [0, rest]).unflatten(3, (-1, piece)).permute(0, 2, 3, 4, 1) / width  # B H pieces x D
    padded = F.pad(other, [radius, radius + rest, radius, radius])
    around = padded.unfold(3, piece + 2 * radius, piece).permute(0, 2, 3, 1, 4)  # B rows pieces D x + 2 radius
    with _exact(one):
        rows = [places @ around[:, down : down + h] for down in range(side)]
    volume = F.pad(torch.stack(rows, 1).flatten(-2), [0, piece])
    band = volume.unflatten(-1, (piece, -1))[..., :side]  # shifted by x: what lies around x begins at 0
    return band.flatten(3, 4)[..., :w, :].permute(0, 1, 4, 2, 3).flatten(1, 2)


def everywhere(one: Float[Tensor, "B D H W"], other: Float[Tensor, "B D H W"]) -> Float[Tensor, "N 1 H W"]:
    """Product of the features of each of the N = B H W places of ``one``, row by row, with all of the other's."""
    one, other = precise(one), precise(other)
    with _exact(one):
        products = one.flatten(2).transpose(1, 2) @ other.flatten(2) / one.shape[1] ** 0.5
    return products.reshape(-1, 1, *other.shape[2:])


def pyramid(volume: Float[Tensor, "N 1 H W"], levels: int) -> list[Float[Tensor, "N 1 _ _"]]:
    """The other's places pooled by two again and again, as long as there are two of them (RAFT, section 3.2)."""
    found = [volume]
    while len(found) < levels and min(found[-1].shape[2:]) > 1:
        found.append(F.avg_pool2d(found[-1], 2))
    return found


def look(
    volumes: list[Float[Tensor, "N 1 _ _"]], at: Float[Tensor, "B 2 H W"], radius: int
) -> Float[Tensor, "B K H W"]:
    """What each place finds around the place ``at`` (column, row) of the other, level by level; row by row of each."""
    batch, _, h, w = at.shape
    reach = torch.arange(-radius, radius + 1, dtype=at.dtype, device=at.device)
    around = torch.stack([reach.expand(len(reach), -1), reach[:, None].expand(-1, len(reach))])
    middles = at.movedim(1, -1).reshape(-1, 2, 1, 1)
    found = []
    for level, volume in enumerate(volumes):
        middle = (middles + 0.5) / 2**level - 0.5
        padded = F.pad(volume, [1] * 4)  # a border of zeros: what lies outside is like nothing
        found.append(sample(padded, middle + around + 1).flatten(1))
    return torch.cat(found, 1).view(batch, h, w, -1).movedim(-1, 1)


def _exact(x: Tensor) -> contextlib.AbstractContextManager:
    """Products in the precision of their factors; without content (``meta``) there is none."""
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
