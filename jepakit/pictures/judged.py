"""How much of what a predictor says is right, beside what needs no predictor."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from jepakit.pictures.asked import Answered, Asked
from jepakit.types import Grid

QUERIES = 2048
"""Tokens for which the true one is looked up among all, at most: they are taken at a fixed stride."""

AT_ONCE = 256
"""Of these are compared with all others at a time."""

FIRST = (1, 5)
"""Places in the order of likeness among which the true token is looked for."""


class Figures(NamedTuple):
    """What was measured on ``tokens`` target tokens of ``pictures`` pictures.

    ``cosine`` is that of the true token and of what each says of it: the prediction, the mean token of its place in
    the other pictures, the true token of the nearest place in the context (``copy``), the mean of all tokens. ``found``
    says for each how often the true token is the likest, or among the five likest, of ``among`` tokens.
    """

    pictures: int
    tokens: int
    among: int
    cosine: dict[str, float]
    found: dict[str, dict[str, float]]

    @property
    def chance(self) -> dict[str, float]:
        """How often it is found by who knows nothing."""
        return {f"top{k}": min(k / self.among, 1.0) for k in FIRST}


def figures(answered: Answered) -> Figures:
    """Of all that was asked."""
    says = [said(answered, each) for each in answered.asked]
    truth = torch.cat([each.truth.flatten(0, -2) for each in answered.asked])
    numbers = torch.cat([_numbers(each, answered.grid) for each in answered.asked])
    joined = {name: torch.cat([each[name].flatten(0, -2) for each in says]) for name in says[0]}
    stride = slice(None, None, -(-len(truth) // QUERIES))
    among = normalize(answered.bank.flatten(0, 1), dim=-1)
    found = {name: _found(joined[name][stride], numbers[stride], among) for name in ("prediction", "place")}
    cosines = {name: float(cosine_similarity(each, truth, dim=-1).mean()) for name, each in joined.items()}
    return Figures(len(answered.pictures), len(truth), len(among), cosines, found)


def said(answered: Answered, asked: Asked) -> Mapping[str, Float[Tensor, "B M Q D"]]:
    """What is said of the target tokens by the predictor, and by who needs none."""
    bank, place = answered.bank, asked.target
    own = bank[asked.start : asked.start + len(place)]
    return {
        "prediction": asked.guess,
        "place": _picked(_without_own(bank, own), place),
        "copy": _picked(own, _nearest(asked, answered.grid)),
        "mean": bank.mean((0, 1)).expand_as(asked.truth),
    }


def likest(
    said: Float[Tensor, "n D"], bank: Float[Tensor, "B N D"], own: Int[Tensor, "n"]
) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
    """Of each token the picture and the place whose true token is likest by cosine, its ``own`` picture left out."""
    among, found = normalize(bank.flatten(0, 1), dim=-1), []
    whose = torch.arange(len(bank)).repeat_interleave(bank.shape[1])
    for some, picture in zip(normalize(said, dim=-1).split(AT_ONCE), own.split(AT_ONCE), strict=True):
        like = some @ among.T
        found.append(like.masked_fill(whose[None] == picture[:, None], -2).argmax(1))
    number = torch.cat(found)
    return number // bank.shape[1], number % bank.shape[1]


def _found(said: Tensor, true: Tensor, among: Tensor) -> dict[str, float]:
    """How often the true token is among the likest."""
    better = []
    for some, number in zip(normalize(said, dim=-1).split(AT_ONCE), true.split(AT_ONCE), strict=True):
        like = some @ among.T
        better.append((like > like.gather(1, number[:, None])).sum(1))
    rank = torch.cat(better)
    return {f"top{k}": float((rank < k).float().mean()) for k in FIRST}


def _without_own(bank: Tensor, own: Tensor) -> Float[Tensor, "B N D"]:
    """The mean token of each place in all pictures but one's own."""
    return (bank.sum(0, keepdim=True) - own) / max(len(bank) - 1, 1)


def _nearest(asked: Asked, grid: Grid) -> Int[Tensor, "B M Q"]:
    """For each target token the token of the context that is nearest on the grid."""
    at = torch.stack(torch.unravel_index(torch.arange(grid.size), tuple(grid)), -1).float()
    context, target = at[asked.context], at[asked.target]  # B K 3, B M Q 3
    closest = torch.cdist(target.flatten(1, 2), context).argmin(-1)
    return asked.context.gather(1, closest).unflatten(1, asked.target.shape[1:])


def _picked(tokens: Tensor, place: Int[Tensor, "B M Q"]) -> Float[Tensor, "B M Q D"]:
    index = place.flatten(1)[..., None].expand(-1, -1, tokens.shape[-1])
    return tokens.gather(1, index).unflatten(1, place.shape[1:])


def _numbers(asked: Asked, grid: Grid) -> Int[Tensor, "n"]:
    """The target tokens' numbers among all tokens of all pictures."""
    picture = torch.arange(asked.start, asked.start + len(asked.target))
    return (picture.view(-1, 1, 1) * grid.size + asked.target).flatten()
