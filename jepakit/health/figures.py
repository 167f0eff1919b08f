"""What of a step's features is worth a line of the log: a loss that falls says nothing. ``verdict.py`` judges them.

All figures are tensors without dimensions, so that nothing waits for the device until they are logged.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jepakit.health.baselines import Measure, baselines
from jepakit.health.spectra import decay, effective_rank, has_decay, octaves, spectrum
from jepakit.types import Features, Grid, Mask

MOST_TOKENS = 1024
"""Tokens of which the effective rank is computed, at most: they are taken at a fixed stride."""


SOMETIMES = ("known", "copy_known", "pixel_alike")
"""Figures that a step has none of where no two of its samples can be compared: they are then left out of its line."""


def says(name: str, value: float) -> bool:
    """Whether a figure is worth writing down: what is not a number is, where that is a fault and no lack."""
    return math.isfinite(value) or name.rpartition("/")[2] not in SOMETIMES


@torch.no_grad()
def figures(
    trace: Sequence[tuple[Features, Features, Features]],
    asked: Sequence[Mask] = (),
    grid: Grid | None = None,
    measure: Measure | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """A step's health, the mean over its masks.

    Args:
        trace: ``(seen, guess, truth)`` of every mask, as in ``jepakit.types.Losses``; of a pyramid the last level.
        asked: those masks; without them there are no baselines.
        grid: that the masks choose tokens of.
        measure: the run's own distance.

    ``std``, ``std_raw``, ``rank``, ``sample_cosine``, ``alpha`` and ``spectrum/<index>`` are those of ``seen``, those
    that begin with ``target_`` of ``truth``; ``cosine`` is that of guess and truth, ``cosine_mean`` what the mean of
    the step's target tokens would reach: a predictor that does not beat it has learned nothing about where or what.
    ``target_grad`` is 1 where the gradient reaches the answers, else 0. Those of ``baselines`` follow where they mean
    something for every mask.
    """
    contexts = {id(seen): seen for seen, _, _ in trace}  # masks may share one
    known = {number: _of_seen(_last(seen).detach().float()) for number, seen in contexts.items()}
    each = [known[id(seen)] | _of_answers(_last(guess), _last(truth)) for seen, guess, truth in trace]
    for figure, (seen, guess, truth), mask in zip(each, trace, asked, strict=False):
        plain = [_last(x).detach().float() for x in (seen, guess, truth)]
        figure |= baselines(*plain, mask, grid, None if isinstance(truth, tuple) else measure)
    names = [name for name in each[0] if all(name in figure for figure in each)] if each else []
    device = _last(trace[0][0]).device if trace else None
    return {name: torch.stack([figure[name].to(device) for figure in each]).mean() for name in names}


def _of_seen(seen: Tensor) -> dict[str, Tensor]:
    shares = spectrum(tokens(seen))
    return {
        "std": spread(seen),
        "std_raw": per_sample(seen).std(0, correction=0).mean(),
        "rank": effective_rank(tokens(seen)),
        "sample_cosine": sample_cosine(seen),
        **({"alpha": decay(shares)} if has_decay(shares) else {}),
        **octaves(shares),
    }


def _of_answers(guess: Tensor, truth: Tensor) -> dict[str, Tensor]:
    learns, guess, truth = truth.requires_grad, guess.detach().float(), truth.detach().float()
    return {
        "target_std": spread(truth),
        "target_std_raw": per_sample(truth).std(0, correction=0).mean(),
        "target_rank": effective_rank(tokens(truth)),
        "target_sample_cosine": sample_cosine(truth),
        "target_grad": torch.full((), float(learns), device=truth.device),
        "cosine": F.cosine_similarity(guess, truth, dim=-1).mean(),
        "cosine_mean": F.cosine_similarity(truth.flatten(0, -2).mean(0, keepdim=True), truth.flatten(0, -2)).mean(),
    }


def spread(x: Float[Tensor, "B *rest D"]) -> Float[Tensor, ""]:
    """Standard deviation over samples of their l2-normalised mean token, mean over dimensions, times ``sqrt(D)``.

    Near 1 where samples point everywhere, 0 where all point the same way, whatever the features' scale.
    """
    return F.normalize(per_sample(x), dim=-1).std(0, correction=0).mean() * math.sqrt(x.shape[-1])


def sample_cosine(x: Float[Tensor, "B *rest D"]) -> Float[Tensor, ""]:
    """Mean cosine between two samples' mean tokens: 1 where all point the same way, 0 where they are unrelated."""
    unit = F.normalize(per_sample(x), dim=-1)
    pairs = max(len(unit) * (len(unit) - 1), 1)
    return (unit.sum(0).square().sum() - unit.square().sum()) / pairs


def per_sample(x: Float[Tensor, "B *rest D"]) -> Float[Tensor, "n D"]:
    """Each sample's mean token; of a batch of one its tokens, since one sample has no spread."""
    return x.flatten(1, -2).mean(1) if len(x) > 1 else x.flatten(0, -2)


def tokens(x: Float[Tensor, "*rest D"]) -> Float[Tensor, "n D"]:
    """At most ``MOST_TOKENS`` tokens at a fixed stride."""
    flat = x.flatten(0, -2)
    return flat[:: math.ceil(len(flat) / MOST_TOKENS)]


def _last(x: Features) -> Tensor:
    return x[-1] if isinstance(x, tuple) else x
