"""Is it learning, is it collapsing, and why? Judged by the lines of a run's log, see ``health.figures``.

Features collapse in two ways (Jing et al., arXiv 2110.09348): completely, where all samples get the same ones, and in
dimension, where few directions are left. The likely cause is told apart by what the log of every run says, whatever
its strategies: whether the gradient reaches the answers, what the loss is the sum of, how the gradient's norm went.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Line = Mapping[str, Any]

STD_FLOOR = 0.01
"""Features of which every sample points the same way have a standard deviation below this."""

ALIKE, FEW, NONE = 0.99, 10.0, 3.0
"""Samples are alike above this mean cosine, where the effective rank is below the second. Below the third it is lost,
whatever it was at first."""

ROOM = "spectrum/16"
"""What a line holds where there are so many samples and dimensions that a low rank says something by itself."""

RANK_WATCH, RANK_COLLAPSING = 0.6, 0.33
"""Shares of its first value below which the effective rank is worth watching; or is lost, where it is below ``FEW``
and that of the answers fell as far."""

SHRUNK = 0.33
"""Share of its first value below which features' own standard deviation is lost, and that of the answers as well, where
no penalty is there to hold them."""

APART = 0.25
"""Share of the features' standard deviation below which that of answers that learn is lost: what is penalised there is
what is seen, and whole views, which the answers are those of, have the same features all the same."""

SETTLED = 10
"""Lines of the log after which a predictor should beat the mean token."""

JUMP = 10.0
"""A gradient's norm jumps where it is so many times the median of those before it."""

RECENT = 3
"""Lines whose median is what a figure was at first, and is now."""

KEPT = 100
"""Lines that are looked at while a run goes on, beside the first ones."""


class Verdict(NamedTuple):
    """``word``: healthy, watch or collapsing; ``reason``: the evidence; ``cause``: the likely one of a collapse, and
    what to do, empty where nothing is wrong or the log does not tell."""

    word: str
    reason: str
    cause: str = ""

    def __str__(self) -> str:
        return "\n".join([f"{self.word}: {self.reason}", *([f"likely cause: {self.cause}"] if self.cause else [])])


def verdict(history: Sequence[Line], config: Mapping[str, Any] | None = None) -> Verdict:
    """What is to be said of a run.

    Args:
        history: the lines of its log, oldest first; lines without health figures are passed over.
        config: its configuration, so that settings are named with their values.
    """
    broken = [line for line in history if not all(_finite(line.get(k, 0.0)) for k in ("loss", "std", "rank"))]
    lines = [line for line in history if "rank" in line and "std" in line and line not in broken]
    if broken and broken[-1] is history[-1]:
        reason = f"loss or features are not finite at step {broken[-1].get('step', '?')}"
        return Verdict("collapsing", reason, f"steps are too long: {_shorter(config or {})}")
    if not lines:
        return Verdict("watch", "no health figures in the log yet")
    found = _judge(lines, len(broken))
    wrong = found.word == "collapsing" or _free(lines[-1])
    return found._replace(cause=_cause(lines, config or {})) if wrong else found


class Watch:
    """A verdict after each new line of a run, told where a collapse begins, and where features are healthy again.

    Args:
        config: the run's.
        lines: its log so far.
    """

    def __init__(self, config: Mapping[str, Any], lines: Sequence[Line] = ()):
        judged = [line for line in lines if "rank" in line]
        self.config, self.lines = config, [*judged[:RECENT], *judged[RECENT:][-KEPT:]]
        self.collapsing = bool(self.lines) and verdict(self.lines).word == "collapsing"

    def __call__(self, line: Line) -> str:
        """What to say after this line: mostly nothing."""
        self.lines.append(line)
        del self.lines[RECENT : max(RECENT, len(self.lines) - KEPT)]  # what a line costs does not grow with the run
        before, found = self.collapsing, verdict(self.lines, self.config)
        self.collapsing = found.word == "collapsing" or (before and found.word == "watch")
        return str(found) if self.collapsing != before else ""


def _judge(lines: Sequence[Line], broken: int) -> Verdict:
    """The rules, worst first."""
    last, (_, std), (first, rank) = lines[-1], _course(lines, "std"), _course(lines, "rank")
    course = f"effective rank {rank:.1f}, {rank / max(first, 1.0):.0%} of its first {first:.1f}; std {std:.3f}"
    if std < STD_FLOOR or (rank < FEW and _alike(lines) > ALIKE):
        alike = _course(lines, "sample_cosine")[1]
        named = f"std {std:.4f}" + f", mean cosine {alike:.4f}" * (alike > 0) + f", effective rank {rank:.1f}"
        return Verdict("collapsing", f"all samples have nearly the same features: {named}")
    if (rank < NONE and ROOM in last) or (rank < FEW and _kept(lines, "rank") < RANK_COLLAPSING):
        return Verdict("collapsing", f"few directions are left: {course}")
    if _apart(lines):
        answers = _course(lines, "target_std")[1]
        return Verdict("collapsing", f"the answers grow alike, what is seen does not: std {answers:.3f} and {std:.3f}")
    if "target_std_raw" in last and not penalties(last) and (kept := _kept(lines, "std_raw")) < SHRUNK:
        raw = _course(lines, "std_raw")[1]
        return Verdict(
            "collapsing", f"features and answers shrink to a point: std_raw {raw:.3g}, {kept:.0%} of its first"
        )
    if broken:
        return Verdict("watch", f"{broken} lines with values that are not finite; {course}")
    if rank < RANK_WATCH * first or _free(last):
        return Verdict("watch", course)
    if len(lines) >= SETTLED and last.get("cosine", 1.0) <= last.get("cosine_mean", -1.0):
        return Verdict("watch", f"the guess (cosine {last['cosine']:.3f}) is no closer than the mean token would be")
    return Verdict("healthy", course)


def _free(last: Line) -> bool:
    """Whether nothing in the loss keeps features from collapsing: answers learn, and all there is is a distance."""
    return last.get("target_grad", 0.0) > 0 and not penalties(last)


def _apart(lines: Sequence[Line]) -> bool:
    """Whether answers have collapsed that learn from the same steps as features that have not."""
    last = lines[-1]
    learns = last.get("target_grad", 0.0) > 0 and "target_std" in last
    return learns and _course(lines, "target_std")[1] < APART * _course(lines, "std")[1]


def _alike(lines: Sequence[Line]) -> float:
    """The mean cosine of samples, by the features or by the answers, whichever differ more: who still has something to
    learn from may come back."""
    return min(_course(lines, name)[1] for name in _both(lines, "sample_cosine"))


def _kept(lines: Sequence[Line], name: str) -> float:
    """The share of a figure's first value that is left, of the features' or the answers', whichever kept more."""
    courses = [_course(lines, each) for each in _both(lines, name)]
    return max(now / first if first else 1.0 for first, now in courses)


def _both(lines: Sequence[Line], name: str) -> list[str]:
    """A figure of the features, and the same of the answers where it was logged."""
    return [name, *([f"target_{name}"] if f"target_{name}" in lines[-1] else [])]


def _cause(lines: Sequence[Line], config: Mapping[str, Any]) -> str:
    """Why features collapsed, most likely, and what to do about it. Empty for logs that do not say who answers."""
    last, strategies = lines[-1], config.get("anti_collapse") or {}
    if "target_grad" not in last:
        return ""
    by = _named(strategies)
    if _free(last):
        return (
            f"nothing keeps features apart{by}: the gradient reaches the answers, and the loss is a distance alone; "
            "choose a strategy that answers without gradient or adds a penalty (jepakit plugins lists them)"
        )
    if jump := _jump(lines):
        return f"steps are too long: {jump}; {_shorter(config)}"
    if _apart(lines):
        return f"penalties hold up what is seen, and not the answers{by}; let them be those of the answers (of=truth)"
    if last["target_grad"]:
        weight = f"distance_weight{_value(config, 'distance_weight')}"
        return f"penalties are too weak beside the distance: {_held(last)}{by}; raise theirs, or lower {weight}"
    if _answers_fell(lines):
        return f"answers follow what learns too quickly{by}; slow them down, add a penalty, or {_shorter(config)}"
    return f"the answers still differ, what learns from them does not{by}: steps are too long; {_shorter(config)}"


def penalties(line: Line) -> dict[str, float]:
    """What but a distance the loss of a line is the sum of: a log has it between the loss and ``grad_norm``."""
    names = list(line)
    if "loss" not in names or "grad_norm" not in names:
        return {}
    parts = names[names.index("loss") + 1 : names.index("grad_norm")]
    return {name: line[name] for name in parts if not name.rpartition("/")[2].startswith(("loss", "distance"))}


def _held(last: Line) -> str:
    """The penalties' share of the loss."""
    held = penalties(last)
    total = sum(value for value in held.values() if _finite(value))
    return f"{' and '.join(held)} did not hold, at {total / max(last['loss'], 1e-12):.0%} of the loss"


def _jump(lines: Sequence[Line]) -> str:
    """Where the gradient's norm jumped first, if it did."""
    norms = [(line["grad_norm"], line.get("step", "?")) for line in lines if _finite(line.get("grad_norm"))]
    for number in range(RECENT, len(norms)):
        (norm, step), usual = norms[number], _median([before for before, _ in norms[:number]])
        if norm > JUMP * usual:
            return f"the gradient's norm was {norm / max(usual, 1e-12):.0f} times what it had been at step {step}"
    return ""


def _answers_fell(lines: Sequence[Line]) -> bool:
    """Whether the answers collapsed along with what learns from them."""
    return _alike(lines) > ALIKE or _kept(lines, "rank") < RANK_COLLAPSING or _kept(lines, "std_raw") < SHRUNK


def _shorter(config: Mapping[str, Any]) -> str:
    """The settings that make steps shorter, with their values where they are known."""
    optim = config.get("optim") or {}
    return f"lower optim.lr{_value(optim, 'lr')} or set optim.clip{_value(optim, 'clip')}"


def _named(strategies: Mapping[str, Any]) -> str:
    """The strategies as on the command line, and the numbers that they are set by."""
    numbers = [
        f"anti_collapse.{name}.{key}={value:g}"
        for name, node in strategies.items()
        for key, value in node.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    chosen = f"anti_collapse=[{','.join(strategies)}]"
    return f" ({', '.join([chosen, *numbers])})" if strategies else ""


def _value(node: Mapping[str, Any], key: str) -> str:
    return f"={node[key]}" if node.get(key) is not None else ""


def _course(lines: Sequence[Line], name: str) -> tuple[float, float]:
    """What a figure was at first and is now; zeros where it was not logged."""
    values = [line[name] for line in lines if _finite(line.get(name))] or [0.0]
    return _median(values[:RECENT]), _median(values[-RECENT:])


def _finite(value: float | None) -> bool:
    """Whether a number of the log is one: log.jsonl keeps what is not as null."""
    return value is not None and math.isfinite(value)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
