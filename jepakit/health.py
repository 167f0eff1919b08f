"""What of a step's features is worth a line of the log: a loss that falls says nothing. ``verdict.py`` judges them.

All figures are tensors without dimensions, so that nothing waits for the device until they are logged.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jepakit.types import Features

MOST_TOKENS = 1024
"""Tokens of which the effective rank is computed, at most: they are taken at a fixed stride."""


@torch.no_grad()
def figures(trace: Sequence[tuple[Features, Features, Features]]) -> dict[str, Float[Tensor, ""]]:
    """A step's health, the mean over its masks.

    Args:
        trace: ``(seen, guess, truth)`` of every mask, as in ``jepakit.types.Losses``; of a pyramid the last level.

    ``std``, ``std_raw``, ``rank``, ``sample_cosine`` and ``spectrum/<index>`` are those of ``seen``, those that begin
    with ``target_`` of ``truth``; ``cosine`` is that of guess and truth, ``cosine_mean`` what the mean of the step's
    target tokens would reach: a predictor that does not beat it has learned nothing about where or what.
    ``target_grad`` is 1 where the gradient reaches the answers, else 0.
    """
    contexts = {id(seen): seen for seen, _, _ in trace}  # masks may share one
    known = {number: _of_seen(_last(seen).detach().float()) for number, seen in contexts.items()}
    each = [known[id(seen)] | _of_answers(_last(guess), _last(truth)) for seen, guess, truth in trace]
    names = [name for name in each[0] if all(name in figure for figure in each)] if each else []
    return {name: torch.stack([figure[name] for figure in each]).mean() for name in names}


def _of_seen(seen: Tensor) -> dict[str, Tensor]:
    return {
        "std": spread(seen),
        "std_raw": per_sample(seen).std(0, correction=0).mean(),
        "rank": effective_rank(tokens(seen)),
        "sample_cosine": sample_cosine(seen),
        **octaves(spectrum(tokens(seen))),
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


def effective_rank(x: Float[Tensor, "n D"], eps: float = 1e-7) -> Float[Tensor, ""]:
    """RankMe (arXiv 2210.02885): the exponential of the entropy of the normalised singular values.

    Between 1 and ``min(n, D)``; not a number where ``x`` is not finite. Features are not centred, as in the paper.
    """
    finite = torch.isfinite(x).all()
    values = torch.linalg.svdvals(torch.where(finite, x, torch.ones_like(x)).float())
    shares = values / values.sum().clamp_min(eps) + eps
    return torch.where(finite, (-(shares * shares.log()).sum()).exp(), torch.nan)


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


def spectrum(x: Float[Tensor, "n D"]) -> Float[Tensor, "d"]:
    """Eigenvalues of the covariance, the greatest first, as shares of the features' mean square; ``d = min(n, D)``.

    What is left to one belongs to the mean, which says nothing: where features collapse completely the whole spectrum
    falls, where they collapse in dimension its end. Not a number where ``x`` is not finite.
    """
    finite = torch.isfinite(x).all()
    x = torch.where(finite, x, torch.zeros_like(x)).float()
    shares = torch.linalg.svdvals(x - x.mean(0)).square() / x.square().sum().clamp_min(torch.finfo(x.dtype).tiny)
    return torch.where(finite, shares, torch.nan)


def octaves(shares: Float[Tensor, "d"]) -> dict[str, Float[Tensor, ""]]:
    """A spectrum in a few numbers, as a log keeps it: ``spectrum/1``, ``spectrum/2``, ``spectrum/4``, ... by index."""
    return {f"spectrum/{2**i}": shares[2**i - 1] for i in range(len(shares).bit_length())}


def per_sample(x: Float[Tensor, "B *rest D"]) -> Float[Tensor, "n D"]:
    """Each sample's mean token; of a batch of one its tokens, since one sample has no spread."""
    return x.flatten(1, -2).mean(1) if len(x) > 1 else x.flatten(0, -2)


def tokens(x: Float[Tensor, "*rest D"]) -> Float[Tensor, "n D"]:
    """At most ``MOST_TOKENS`` tokens at a fixed stride."""
    flat = x.flatten(0, -2)
    return flat[:: math.ceil(len(flat) / MOST_TOKENS)]


def _last(x: Features) -> Tensor:
    return x[-1] if isinstance(x, tuple) else x
