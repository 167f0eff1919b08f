"""How a figure went, by the lines of a log; and logs as they are found: resumed, rolled back, old or damaged."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jepakit import jsonl

Line = Mapping[str, Any]

RECENT = 3
"""Lines whose median is what a figure was at first, and is now."""

ATTEMPT, FROM = "rollback", "rolled_back_from"
"""Keys of a log: how often the run had been rolled back when a line was written; and, of the line that says so, the
step that it was rolled back from. That line's own step is the one that it went back to."""


def current(lines: Sequence[Line]) -> list[Line]:
    """Without what a run was rolled back from: the lines that led to where it is now."""
    kept: list[Line] = []
    for line in lines:
        if FROM in line:
            kept = [each for each in kept if (each.get("step") or 0) <= line.get("step", 0)]
        kept.append(line)
    return kept


def lenient(log: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of a log, and a remark for each that is none; what cannot be a figure of a line is left out."""
    found, remarks = [], []
    for number, line in jsonl.lines(log, remarks):
        if isinstance(line.get("step"), int):
            found.append({name: value for name, value in line.items() if _plain(value)})
        else:
            remarks.append(jsonl.damaged(log, number))
    return found, remarks


def course(lines: Sequence[Line], name: str) -> tuple[float, float]:
    """What a figure was at first and is now; zeros where it was not logged."""
    values = values_of(lines, name) or [0.0]
    return median(values[:RECENT]), median(values[-RECENT:])


def values_of(lines: Sequence[Line], name: str) -> list[float]:
    """A figure's finite values."""
    return [line[name] for line in lines if finite(line.get(name))]


def both(lines: Sequence[Line], name: str) -> list[str]:
    """A figure of the features, and the same of the answers where it was logged."""
    return [name, *([f"target_{name}"] if f"target_{name}" in lines[-1] else [])]


def kept(lines: Sequence[Line], name: str) -> float:
    """The share of a figure's first value that is left, of the features' or the answers', whichever kept more."""
    return max(share(lines, each) for each in both(lines, name))


def share(lines: Sequence[Line], name: str) -> float:
    """The share of a figure's first value that is left; all of it where it was not logged."""
    first, now = course(lines, name)
    return now / first if first else 1.0


def finite(value: Any) -> bool:
    """Whether a number of the log is one: log.jsonl keeps what is not as null."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def median(values: Sequence[float]) -> float:
    """The middle one, of two the greater."""
    return sorted(values)[len(values) // 2]


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (int, float, str))
