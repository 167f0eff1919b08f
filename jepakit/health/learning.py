"""Does a run learn what it is asked, and can it? Judged where features have not collapsed.

All that is asked here has its evidence in the log: what parameters did, what the guess knows, what it is shown.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jepakit.health.collapse import DECAYED, RANK_COLLAPSING, about, penalties
from jepakit.health.course import RECENT, Line, both, course, finite, kept, median, share, values_of

SETTLED = 10
"""Lines of the log after which a predictor should beat the mean token."""

SAME = 0.95
"""Correlation of pixels from which two samples are the same picture."""

STILL, NOWHERE = 0.02, 0.001
"""Length of the way that parameters have gone, over their norm, below which they have hardly moved, which is well where
the loss falls all the same; and below which nothing can have been learned, whatever the loss does."""

SHORT = 0.1
"""And below which they have not come far, where the guess is no better than the mean."""

LONG, WILD = 0.05, 0.1
"""Length of a single step, over the parameters' norm, from which it is too long where nothing else explains what is
wrong; and from which it is where nothing is."""

SURE = 3.0
"""Standard errors by which a loss has to fall."""

FEW_SAMPLES = 4
"""Samples a step below which its gradient, and every statistic over them, is noise."""

SHOWN, NEAR, OVERLAP = 0.75, 1.25, 0.75
"""Share of the tokens that are shown, and mean number of tokens from a target to the nearest of them, at which there is
nothing left to imagine; below the third most targets are shown themselves."""

FEW_SHOWN, FEW_SHARE = 4, 0.02
"""Context tokens, and their share of the grid, below which they do not tell one sample from another."""

UNKNOWN, KNOWN, SURELY_KNOWN = 0.01, 0.02, 0.1
"""A guess that knows less than this of its sample (see ``baselines.known``) says the same whatever it is shown; from
the second on it has begun to tell samples apart, and from the third it does."""

CLEARLY, ENOUGH = 0.15, 16
"""Share of what the mean leaves open by which a guess has to be farther off than that, of as many samples at least: the
mean of fewer is mostly the sample itself."""

BEHIND = 8.0
"""Steps of the backbone that a teacher is behind, below which it follows too quickly to be one."""

LATE = (30, 1000)
"""Lines and steps after which a guess should tell samples apart."""

RANK_WATCH, RANK_HOLDS = 0.6, 0.8
"""Share of its first value below which the effective rank is worth watching, unless that of the answers kept more than
the second, or the guess knows its sample: an encoder that looks at its context has fewer directions than a random one.
"""


class Doubt(NamedTuple):
    """What is to be said of a run whose features have not collapsed; ``kind``: its cause, see ``causes.KINDS``."""

    word: str
    reason: str
    kind: str = ""


def doubt(lines: Sequence[Line], config: Mapping[str, Any]) -> Doubt | None:
    """The gravest doubt there is about a run; None where there is none."""
    rules = (_same_data, _still, _blind, _wild, _few_samples, _shown, _decaying, _rank, _free, _mean, _late)
    return next((found for rule in rules if (found := rule(lines, config))), None)


def same_data(lines: Sequence[Line]) -> bool:
    """Whether the samples of a step are all the same picture."""
    found = values_of(lines, "pixel_alike")
    return len(found) >= 3 and median(found) > SAME


def few_samples(lines: Sequence[Line]) -> bool:
    """Whether a step has too few samples."""
    return 0 < course(lines, "samples")[1] < FEW_SAMPLES


def longest(lines: Sequence[Line]) -> float:
    """The longest step that the log knows of."""
    return max(values_of(lines, "step_length"), default=0.0)


def behind(lines: Sequence[Line]) -> float | None:
    """How many steps a teacher is behind what learns, in the median over the log; None where it does not say."""
    known = [(line.get("teacher_distance"), line.get("step_length")) for line in lines]
    found = [apart / length for apart, length in known if finite(apart) and finite(length) and length > 0]
    return median(found) if found else None


def way(lines: Sequence[Line]) -> float | None:
    """How far parameters have gone, as if every step were as long as those of the log; None where it does not say."""
    known = [(line["step"], line["step_length"]) for line in lines if finite(line.get("step_length"))]
    if len(known) < 2 or not all(isinstance(step, int) for step, _ in known):
        return None
    before = [known[0][0] - 1, *(step for step, _ in known[:-1])]
    return sum((step - old) * length for (step, length), old in zip(known, before, strict=True))


def fell(lines: Sequence[Line]) -> bool:
    """Whether the loss fell by more than it wavers."""
    found = values_of(lines, "loss")
    third = max(len(found) // 3, 1)
    before, after = found[: min(third, RECENT)], found[-third:]
    wavers = median([abs(b - a) for a, b in zip(found, found[1:], strict=False)] or [0.0])
    error = wavers * math.sqrt(1 / len(before) + 1 / len(after)) if found else 0.0
    return bool(found) and median(before) - median(after) > max(SURE * error, 0.01 * abs(median(before)))


def shown_too_little(lines: Sequence[Line]) -> bool:
    """Whether next to nothing is shown of a sample."""
    tokens, part = course(lines, "context_tokens")[1], course(lines, "context_share")[1]
    return 0 < tokens < FEW_SHOWN or 0 < part < FEW_SHARE


def shown_too_much(lines: Sequence[Line]) -> bool:
    """Whether next to all of a sample is shown, or what is asked for is."""
    steps, part = course(lines, "copy_steps")[1], course(lines, "context_share")[1]
    return bool(values_of(lines, "copy_steps")) and (steps < OVERLAP or (part > SHOWN and steps < NEAR))


def learned(lines: Sequence[Line]) -> float | None:
    """What the guess knows of its sample, at best, in the last third of the log; None where that was not logged."""
    found = values_of(lines, "known")
    return median(found[-max(len(found) // 3, 1) :]) if found else None


def _same_data(lines: Sequence[Line], config: Mapping[str, Any]) -> Doubt | None:
    if not same_data(lines):
        return None
    reason = f"the samples of a step are one picture: their pixels correlate by {course(lines, 'pixel_alike')[1]:.3f}"
    return Doubt("not learning", reason, "data all alike")


def _still(lines: Sequence[Line], config: Mapping[str, Any]) -> Doubt | None:
    """Parameters that stay where they are, and a loss that stays as well; not while the rate still rises, and not where
    the run began with what another had learned."""
    gone, rates = way(lines), values_of(lines, "lr")
    begun = (config.get("start") or {}).get("weights")
    if len(lines) < SETTLED or gone is None or gone > STILL or begun:
        return None
    if gone > NOWHERE and fell(lines):
        return None
    if len(rates) > 1 and rates[-1] > rates[-2]:
        return None
    flat = "the loss does not fall, and " * (not fell(lines))
    reason = f"{flat}after step {lines[-1].get('step')} parameters have gone {gone:.2g} of their norm"
    return Doubt(
        "not learning", f"{reason}, a step {median(values_of(lines, 'step_length')):.1g}", "learning rate too low"
    )


def _blind(lines: Sequence[Line], config: Mapping[str, Any]) -> Doubt | None:
    """Nothing is known of samples of which nothing is shown."""
    told = learned(lines)
    if len(lines) < SETTLED or not shown_too_little(lines) or told is None or told > KNOWN:
        return None
    tokens, part = course(lines, "context_tokens")[1], course(lines, "context_share")[1]
    reason = (
        f"the guess says the same whatever it is shown (known {told:.3f}), which is {tokens:.0f} tokens, {part:.1%}"
    )
    return Doubt("not learning", f"{reason} of the grid", "mask too hard")


def _wild(lines: Sequence[Line], config: Mapping[str, Any]) -> Doubt | None:
    """Steps that are too long, and do no good."""
    told, length = learned(lines), longest(lines)
    reason = f"steps of up to {length:.2g} of the parameters' norm"
    if len(lines) >= SETTLED and length > LONG and told is not None and told < KNOWN:
        reason += f", and the guess knows nothing of its sample (known {told:.3f})"
        return Doubt("not learning", reason, "learning rate too high")
    return Doubt("watch", f"{reason}; {about(lines)}", "learning rate too high") if length > WILD else None


def _few_samples(lines: Sequence[Line], config: Mapping[str, Any]) -> Doubt | None:
    if not few_samples(lines):
        return None
    reason = f"a step has {course(lines, 'samples')[1]:.0f} samples: its gradient is mostly noise"
    held = " and ".join(penalties(lines[-1]))
    more = f", and {held} a statistic over next to nothing" if held else ""
    return Doubt("watch", reason + more, "batch too small")


def _shown(lines: Sequence[Line], config: Mapping[str, Any]) -> Doubt | None:
    if not shown_too_much(lines):
        return None
    part, steps = course(lines, "context_share")[1], course(lines, "copy_steps")[1]
    reason = f"{part:.0%} of the tokens are shown, and a target lies {steps:.1f} tokens from the nearest of them"
    copies = course(lines, "copy_known")[1]
    return Doubt("watch", f"{reason}: a copy of that knows {copies:.0%} of the sample", "mask too easy")


def _decaying(lines: Sequence[Line], config: Mapping[str, Any]) -> Doubt | None:
    first, weight = course(lines, "weight")
    if not first or weight > DECAYED * first:
        return None
    reason = f"the weights are {weight / first:.0%} of what they were ({weight:.2g}); {about(lines)}"
    return Doubt("watch", reason, "weight decay too strong")


def _rank(lines: Sequence[Line], config: Mapping[str, Any]) -> Doubt | None:
    left, told = share(lines, "rank"), learned(lines) or 0.0
    held = (len(both(lines, "rank")) > 1 and kept(lines, "rank") > RANK_HOLDS) or told > SURELY_KNOWN
    if left >= RANK_WATCH or (held and left > RANK_COLLAPSING):
        return None
    return Doubt("watch", about(lines), _on_the_way(lines))


def _free(lines: Sequence[Line], config: Mapping[str, Any]) -> Doubt | None:
    return Doubt("watch", about(lines), "nothing keeps features apart") if free(lines[-1]) else None


def _mean(lines: Sequence[Line], config: Mapping[str, Any]) -> Doubt | None:
    last, told = lines[-1], learned(lines)
    if len(lines) < SETTLED or not finite(last.get("cosine")) or not finite(last.get("cosine_mean")):
        return None
    if 0 < course(lines, "samples")[1] < ENOUGH:
        return None
    cosine = course(lines, "cosine")[1]
    if (told is None and last["cosine"] <= last["cosine_mean"]) or (told is not None and _below(lines, told)):
        reason = f"the guess (cosine {cosine:.3f}) is no closer than the mean token would be"
        return Doubt("watch", reason, "learning rate too low" if (way(lines) or 1.0) < SHORT else _on_the_way(lines))
    return None


def _on_the_way(lines: Sequence[Line]) -> str:
    """What may become the cause of something worse; empty where nothing shows yet."""
    if longest(lines) > LONG:
        return "learning rate too high"
    return "EMA too fast" if len(lines) >= SETTLED and (behind(lines) or BEHIND) < BEHIND else ""


def _below(lines: Sequence[Line], told: float) -> bool:
    """Clearly, for a while, and not on the way there: what wavers about the mean is that mean, and who tells samples
    apart has learned."""
    known = [line for line in lines if finite(line.get("cosine_mean")) and finite(line.get("cosine"))]
    off = [(line["cosine_mean"] - line["cosine"]) / max(1 - line["cosine_mean"], 1e-6) for line in known]
    recent, nearer = off[-SETTLED // 2 :], off[-SETTLED // 2] - off[-1] > CLEARLY * off[-1]
    return told < KNOWN and min(recent) > CLEARLY and not nearer


def _late(lines: Sequence[Line], config: Mapping[str, Any]) -> Doubt | None:
    told, (most, steps) = learned(lines), LATE
    if told is None or told > UNKNOWN or len(lines) < most or (lines[-1].get("step") or 0) < steps:
        return None
    return Doubt("watch", f"the guess says the same whatever it is shown: it knows {told:.3f} of its sample")


def free(last: Line) -> bool:
    """Whether nothing in the loss keeps features from collapsing: answers learn, and all there is is a distance."""
    return (last.get("target_grad") or 0.0) > 0 and not penalties(last)
