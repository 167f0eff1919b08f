"""Have features collapsed, or do they shrink?

Features collapse in two ways (Jing et al., arXiv 2110.09348): completely, where all samples get the same ones, and in
dimension, where few directions are left. What a figure was at first is what it is measured by: a small model has few
directions from the beginning, and positions alone make samples alike.
"""

from collections.abc import Sequence
from typing import Any

from jepakit.health.course import Line, both, course, finite, kept, share

STD_FLOOR = 0.01
"""Features of which every sample points the same way have a standard deviation below this."""

ALIKE, FEW, NONE = 0.99, 10.0, 3.0
"""Samples are alike above this mean cosine, where the effective rank is below the second. Below the third it is lost,
whatever it was at first."""

NEARLY = 0.95
"""Mean cosine of samples from which they are nearly alike: a collapse where their spread is lost as well."""

ROOM = "spectrum/16"
"""What a line holds where there are so many samples and dimensions that a low rank says something by itself."""

RANK_COLLAPSING = 0.33
"""Share of its first value below which the effective rank is lost, where it is below ``FEW`` and that of the answers
fell as far."""

SHRUNK = 0.33
"""Share of its first value below which a spread is lost: that of features and of answers; or features' own standard
deviation, and that of the answers as well, where no penalty is there to hold them."""

APART = 0.25
"""Share of the features' standard deviation below which that of answers that learn is lost: what is penalised there is
what is seen, and whole views, which the answers are those of, have the same features all the same."""

DECAYED = 0.5
"""Share of their first size below which the weights have been decayed away."""

HELD = 10
"""Lines for which features have to be collapsing before they have collapsed."""


def collapse(lines: Sequence[Line]) -> str:
    """What of the features is lost, with its numbers; empty where nothing is.

    Args:
        lines: judged ones, oldest first, one at least.
    """
    rules = (_same, _few, _nearly, _decayed, _answers_alone, _shrunk)
    return next((found for rule in rules if (found := rule(lines))), "")


def lasted(lines: Sequence[Line]) -> bool:
    """Whether it has been so for the last ``HELD`` lines."""
    ends = range(len(lines) - HELD + 1, len(lines) + 1)
    return len(lines) >= HELD and all(collapse(lines[:end]) for end in ends)


def about(lines: Sequence[Line]) -> str:
    """How rank and standard deviation went, in words."""
    (first, rank), std = course(lines, "rank"), course(lines, "std")[1]
    return f"effective rank {rank:.1f}, {rank / max(first, 1.0):.0%} of its first {first:.1f}; std {std:.3f}"


def alike(lines: Sequence[Line]) -> float:
    """The mean cosine of samples, by the features or by the answers, whichever differ more: who still has something to
    learn from may come back."""
    return min(course(lines, name)[1] for name in both(lines, "sample_cosine"))


def apart(lines: Sequence[Line]) -> bool:
    """Whether answers have collapsed that learn from the same steps as features that have not."""
    last = lines[-1]
    learns = (last.get("target_grad") or 0.0) > 0 and "target_std" in last
    return learns and course(lines, "target_std")[1] < APART * course(lines, "std")[1]


def answers_fell(lines: Sequence[Line]) -> bool:
    """Whether the answers collapsed along with what learns from them."""
    spread = kept(lines, "std") < SHRUNK and alike(lines) > NEARLY
    return alike(lines) > ALIKE or spread or kept(lines, "rank") < RANK_COLLAPSING or kept(lines, "std_raw") < SHRUNK


def penalties(line: Line) -> dict[str, Any]:
    """What but a distance the loss of a line is the sum of: a log has it between the loss and ``grad_norm``."""
    names = list(line)
    if "loss" not in names or "grad_norm" not in names:
        return {}
    parts = names[names.index("loss") + 1 : names.index("grad_norm")]
    return {name: line[name] for name in parts if not name.rpartition("/")[2].startswith(("loss", "distance"))}


def _same(lines: Sequence[Line]) -> str:
    std, rank = course(lines, "std")[1], course(lines, "rank")[1]
    if not (std < STD_FLOOR or (rank < FEW and alike(lines) > ALIKE)):
        return ""
    cosine = course(lines, "sample_cosine")[1]
    named = f"std {std:.4f}" + f", mean cosine {cosine:.4f}" * (cosine > 0) + f", effective rank {rank:.1f}"
    return f"all samples have nearly the same features: {named}"


def _few(lines: Sequence[Line]) -> str:
    rank = course(lines, "rank")[1]
    few = (rank < NONE and ROOM in lines[-1]) or (rank < FEW and kept(lines, "rank") < RANK_COLLAPSING)
    return f"few directions are left: {about(lines)}" if few else ""


def _nearly(lines: Sequence[Line]) -> str:
    if "sample_cosine" not in lines[-1] or not (kept(lines, "std") < SHRUNK and alike(lines) > NEARLY):
        return ""
    first, std = course(lines, "std")
    return (
        f"samples grow alike: std {std:.3f}, {std / first:.0%} of its first {first:.3f}; "
        f"mean cosine {course(lines, 'sample_cosine')[1]:.3f}"
    )


def _decayed(lines: Sequence[Line]) -> str:
    (first, weight), left = course(lines, "weight"), min(share(lines, "std"), share(lines, "rank"))
    if not first or weight > DECAYED * first or left > SHRUNK:
        return ""
    return f"the weights are {weight / first:.0%} of what they were, and features go with them: {about(lines)}"


def _answers_alone(lines: Sequence[Line]) -> str:
    if not apart(lines):
        return ""
    answers, std = course(lines, "target_std")[1], course(lines, "std")[1]
    return f"the answers grow alike, what is seen does not: std {answers:.3f} and {std:.3f}"


def _shrunk(lines: Sequence[Line]) -> str:
    last = lines[-1]
    if not finite(last.get("target_std_raw")) or penalties(last) or (left := kept(lines, "std_raw")) >= SHRUNK:
        return ""
    return f"features and answers shrink to a point: std_raw {course(lines, 'std_raw')[1]:.3g}, {left:.0%} of its first"
