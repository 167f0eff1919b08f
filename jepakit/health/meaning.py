"""What each figure means, in words, and how it went: the evidence of a verdict."""

from collections.abc import Sequence
from typing import Any

from jepakit.health.collapse import HELD, NEARLY, RANK_COLLAPSING, SHRUNK
from jepakit.health.course import Line, course, values_of
from jepakit.health.learning import FEW_SAMPLES, KNOWN, LONG, SAME

MEANING = {
    "loss": "what is minimised; that it falls says nothing by itself",
    "std": f"spread of samples' features, whatever its scale; below {SHRUNK:.0%} of its first value all grow alike",
    "target_std": "the same of the answers",
    "rank": f"directions in which features vary (RankMe); below {RANK_COLLAPSING:.0%} of its first value few are left",
    "target_rank": "the same of the answers",
    "sample_cosine": f"cosine of two samples: 1 where all have the same features; above {NEARLY:g} nearly so",
    "target_sample_cosine": "the same of the answers",
    "alpha": "how fast the features' spectrum falls (alpha-ReQ): around 1 is best, steeper is fewer directions",
    "cosine": "how close guess and truth point",
    "cosine_mean": "how close the mean token comes: what there is to beat",
    "copy_nearest": "how close a copy of the nearest context token comes: what there is to beat",
    "known": f"how much the guess knows of its very sample, 0 to 1; below {KNOWN:g} it says the same of every sample",
    "copy_known": "how much a copy of the nearest context token knows of it",
    "step_length": f"how far a step moves the backbone, over the norm of its parameters; above {LONG:g} it is too long",
    "grad_norm": "norm of the gradient",
    "grad_norm/backbone": "its part in the backbone",
    "grad_norm/predictor": "its part in the predictor",
    "weight": "size of the backbone's weights (root mean square), which weight decay shrinks",
    "teacher_distance": "how far the teacher is from what learns, over its norm",
    "context_tokens": "tokens that are shown",
    "context_share": "their share of the grid",
    "target_tokens": "tokens that are asked for",
    "copy_steps": "tokens from a target to the nearest one that is shown",
    "samples": f"samples a step; fewer than {FEW_SAMPLES} are noise",
    "pixel_alike": f"correlation of two samples' pixels; above {SAME:g} they are one picture",
    "knn": "k-NN score of the features",
    "rankme": "RankMe of held-out samples",
    "lidar": "directions that tell samples apart, beside how views of one sample scatter (LiDAR)",
    "alpha_req": "alpha-ReQ of held-out samples",
}
"""By key of the log, in the order in which they are told."""


def evidence(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Every figure that a log has: its ``name``, what it was at ``first`` (the median of a few lines) and is ``now``,
    and what it ``means``."""
    return [
        {"name": name, "first": first, "now": now, "means": means}
        for name, means in MEANING.items()
        if values_of(lines, name)
        for first, now in (course(lines, name),)
    ]


def stretches(words: Sequence[tuple[int, str, str]]) -> list[str]:
    """What was said from which step on: ``(step, word, kind)`` after each line, told where word or kind change."""
    told: list[str] = []
    before = ("", "")
    for step, word, kind in words:
        if (word, kind) != before:
            told.append(f"from step {step:,}: {word}" + f" ({kind})" * bool(kind))
        before = (word, kind)
    return told


REMARK = f"collapsed is what has been collapsing for {HELD} lines of the log"
