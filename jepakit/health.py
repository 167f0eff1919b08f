"""Is it learning, is it collapsing? A loss that falls says nothing: these figures do.

All figures are tensors without dimensions, so that nothing waits for the device until they are logged.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jepakit.types import Features

MOST_TOKENS = 1024
"""Tokens of which the effective rank is computed, at most: they are taken at a fixed stride."""

STD_FLOOR = 0.01
"""Features of which every sample points the same way have a standard deviation below this."""

RANK_WATCH, RANK_COLLAPSING = 0.6, 0.33
"""Shares of its first value below which the effective rank is worth watching, or is lost."""

SETTLED = 10
"""Lines of the log after which a predictor should beat the mean token."""


@torch.no_grad()
def figures(trace: Sequence[tuple[Features, Features, Features]]) -> dict[str, Float[Tensor, ""]]:
    """A step's health, the mean over its masks.

    Args:
        trace: ``(seen, guess, truth)`` of every mask, as in ``jepakit.types.Losses``; of a pyramid the last level.

    ``std``, ``std_raw`` and ``rank`` are those of ``seen``; ``target_std`` and ``target_rank`` those of ``truth``;
    ``cosine`` is that of guess and truth, ``cosine_mean`` what the mean of the step's target tokens would reach: a
    predictor that does not beat it has learned nothing about where or what.
    """
    each = [_figures(*(_last(x).detach().float() for x in mask)) for mask in trace]
    return {name: torch.stack([figure[name] for figure in each]).mean() for name in each[0]} if each else {}


def _figures(seen: Tensor, guess: Tensor, truth: Tensor) -> dict[str, Tensor]:
    return {
        "std": spread(seen),
        "std_raw": per_sample(seen).std(0, correction=0).mean(),
        "rank": effective_rank(tokens(seen)),
        "target_std": spread(truth),
        "target_rank": effective_rank(tokens(truth)),
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


def per_sample(x: Float[Tensor, "B *rest D"]) -> Float[Tensor, "n D"]:
    """Each sample's mean token; of a batch of one its tokens, since one sample has no spread."""
    return x.flatten(1, -2).mean(1) if len(x) > 1 else x.flatten(0, -2)


def tokens(x: Float[Tensor, "*rest D"]) -> Float[Tensor, "n D"]:
    """At most ``MOST_TOKENS`` tokens at a fixed stride."""
    flat = x.flatten(0, -2)
    return flat[:: math.ceil(len(flat) / MOST_TOKENS)]


def verdict(history: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """``healthy``, ``watch`` or ``collapsing``, and the evidence.

    Args:
        history: the lines of a run's log, oldest first; lines without health figures are passed over.
    """
    broken = [line for line in history if not all(_finite(line.get(k, 0.0)) for k in ("loss", "std", "rank"))]
    lines = [line for line in history if "rank" in line and "std" in line]
    if broken and broken[-1] is history[-1]:
        return "collapsing", f"loss or features are not finite at step {broken[-1].get('step', '?')}"
    if not lines:
        return "watch", "no health figures in the log yet"
    return _judge([line for line in lines if line not in broken], len(broken))


def _judge(lines: Sequence[Mapping[str, Any]], broken: int) -> tuple[str, str]:
    """The rules, worst first."""
    std, last = _recent(lines, "std"), lines[-1]
    first, rank = _median([line["rank"] for line in lines[:3]]), _recent(lines, "rank")
    course = f"effective rank {rank:.1f}, {rank / first:.0%} of its first {first:.1f}; std {std:.3f}"
    if std < STD_FLOOR:
        return "collapsing", f"all samples have nearly the same features: std {std:.4f}, below {STD_FLOOR}"
    if rank < RANK_COLLAPSING * first:
        return "collapsing", course
    if broken:
        return "watch", f"{broken} lines with values that are not finite; {course}"
    if rank < RANK_WATCH * first:
        return "watch", course
    if len(lines) >= SETTLED and last.get("cosine", 1.0) <= last.get("cosine_mean", -1.0):
        return "watch", f"the guess (cosine {last['cosine']:.3f}) is no closer than the mean token would be"
    return "healthy", course


def _recent(lines: Sequence[Mapping[str, Any]], name: str) -> float:
    return _median([line[name] for line in lines[-3:]])


def _finite(value: float | None) -> bool:
    """Whether a number of the log is one: log.jsonl keeps what is not as null."""
    return value is not None and math.isfinite(value)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _last(x: Features) -> Tensor:
    return x[-1] if isinstance(x, tuple) else x
