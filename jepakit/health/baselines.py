"""What a guess has to beat, where that means something: copies of the nearest context, the mean, what it would say of
any other sample.

A predictor knows from the start where it is asked, and learns soon what is true of that place in the mean. Only what it
knows of the very sample needs the context.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from jepakit.types import Features, Grid, Mask, take

MOST = 8192
"""Target tokens that are looked at, at most: of whole samples, the first of a step."""

Measure = Callable[[Features, Features, Tensor | None], dict[str, Float[Tensor, ""]]]
"""The run's own distance, see ``jepakit.distance``."""


def baselines(
    seen: Float[Tensor, "B K D"],
    guess: Float[Tensor, "B M Q d"],
    truth: Float[Tensor, "B m q e"],
    mask: Mask,
    grid: Grid | None = None,
    measure: Measure | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Figures of one question, those that mean something for it.

    ``known``: see ``known``. ``copy_nearest`` is the cosine of the truth with the context token nearest to it in the
    grid, ``copy_known`` what such a copy knows of the sample, ``copy_steps`` how many tokens lie between;
    ``distance_copy`` and ``distance_mean`` are those of such copies, and of the mean, in the run's own measure.
    ``context_tokens`` and ``target_tokens`` are how many there are, ``context_share`` what the first are of the grid.
    """
    chosen, where = mask.context, mask.imagined
    found = _lengths(mask, grid)
    if guess.shape != truth.shape or (where is not None and grid is None):
        return found
    most = max(2, MOST // truth[0, ..., 0].numel())
    seen, guess, truth = seen[:most], guess[:most], truth[:most]
    there = _places(truth, where)[:most]
    size = truth[0, ..., 0].numel() if where is None or grid is None else grid.size
    if len(truth) > 1:
        found |= {"known": known(guess, truth, there, size)}
    if measure is not None:
        found |= {"distance_mean": _total(measure, truth.flatten(0, -2).mean(0).expand_as(truth), truth)}
    if grid is None or chosen is None or where is None or mask.context_view != mask.target_view:
        return found
    nearest, steps = closest(chosen[:most], there, grid)
    found |= {"copy_steps": steps}
    if seen.shape[-1] != truth.shape[-1] or seen.shape[1] != chosen.shape[1]:
        return found
    copy = take(seen, nearest).view_as(truth)
    found |= {"copy_nearest": F.cosine_similarity(copy, truth, dim=-1).mean()}
    if len(truth) > 1:
        found |= {"copy_known": known(copy, truth, there, size)}
    return found | ({"distance_copy": _total(measure, copy, truth)} if measure is not None else {})


def known(
    guess: Float[Tensor, "B M Q D"], truth: Float[Tensor, "B M Q D"], place: Int[Tensor, "B n"], size: int
) -> Float[Tensor, ""]:
    """How much of what sets a sample's answers apart from those of other samples at the same place the guess knows.

    The mean cosine of a guess with its own truth, less that with the truths of other samples at the same ``place``,
    over what a perfect guess would reach: 0 for a guess that says the same whatever it is shown, 1 for a perfect one.
    Not a number where no two samples are asked for one place.
    """
    guess, truth = (F.normalize(x.flatten(1, 2), dim=-1) for x in (guess, truth))  # B n D
    at = torch.arange(len(place), device=place.device).unsqueeze(1), place
    own = truth.new_zeros(len(truth), size, truth.shape[-1]).index_put(at, truth, accumulate=True)  # B P D
    times = own.new_zeros(own.shape[:2]).index_put(at, truth.new_ones(place.shape), accumulate=True)
    others, many = (own.sum(0) - own)[at], (times.sum(0) - times)[at]
    there, others = (many > 0).to(truth.dtype), others / many.clamp_min(1).unsqueeze(-1)
    told = ((guess * (truth - others)).sum(-1) * there).sum()
    whole = ((1 - (truth * others).sum(-1)) * there).sum()
    return torch.where(whole > 1e-6 * there.sum(), told / whole.clamp_min(1e-12), torch.nan)


def closest(
    context: Int[Tensor, "B K"], target: Int[Tensor, "B n"], grid: Grid
) -> tuple[Int[Tensor, "B n"], Float[Tensor, ""]]:
    """Which of a sample's context tokens lies nearest to each target token, and how far that is in the mean."""
    apart = torch.cdist(_coordinates(target, grid), _coordinates(context, grid)).min(-1)
    return apart.indices, apart.values.mean()


def _coordinates(index: Int[Tensor, "B n"], grid: Grid) -> Float[Tensor, "B n 3"]:
    return torch.stack([index // (grid.h * grid.w), index // grid.w % grid.h, index % grid.w], -1).float()


def _places(truth: Tensor, where: Tensor | None) -> Int[Tensor, "B n"]:
    """The token that each answer is of; of a whole view its number."""
    if where is not None:
        return where.flatten(1)
    return torch.arange(truth[0, ..., 0].numel(), device=truth.device).expand(len(truth), -1)


def _lengths(mask: Mask, grid: Grid | None) -> dict[str, Float[Tensor, ""]]:
    """How many tokens are shown and asked for; nothing of whole views."""
    found = {}
    if mask.context is not None:
        found = {"context_tokens": torch.tensor(float(mask.context.shape[1]))}
        found |= {"context_share": found["context_tokens"] / grid.size} if grid else {}
    if mask.imagined is not None:
        found |= {"target_tokens": torch.tensor(float(mask.imagined[0].numel()))}
    return found


def _total(measure: Measure, guess: Tensor, truth: Tensor) -> Float[Tensor, ""]:
    return torch.stack(list(measure(guess, truth, None).values())).sum()
