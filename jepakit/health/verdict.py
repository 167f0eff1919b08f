"""Is it learning, is it collapsing, and why? Judged by the lines of a run's log, see ``figures.figures``.

Whatever a run's strategies are: a verdict looks at what the log of every run says. Figures that a log does not have,
because it is old or because they mean nothing for the run, are no evidence for anything.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jepakit.health.causes import Cause, named, of_collapse
from jepakit.health.collapse import about, collapse, lasted
from jepakit.health.course import Line, current, finite
from jepakit.health.learning import doubt, few_samples

WORDS = ("healthy", "watch", "not learning", "collapsing", "collapsed")
"""What can be said of a run."""

ILL = ("collapsing", "collapsed")
"""What a run does not come back from by itself."""

ALWAYS = ("loss", "std", "rank")
"""Figures that are not finite only where a run has broken down."""


class Verdict(NamedTuple):
    """``word``: one of ``WORDS``; ``reason``: the evidence; ``cause``: the likely one, and what to do, empty where
    nothing is wrong or the log does not tell; ``kind``, ``settings`` and ``change`` are what it consists of, see
    ``causes.Cause``."""

    word: str
    reason: str
    cause: str = ""
    kind: str = ""
    settings: Mapping[str, Any] = {}
    change: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.word}: {self.reason}", *([f"likely cause: {self.cause}"] if self.cause else [])])


def verdict(history: Sequence[Line], config: Mapping[str, Any] | None = None) -> Verdict:
    """What is to be said of a run.

    Args:
        history: the lines of its log, oldest first; lines without health figures are passed over, and so are those that
            the run was rolled back from.
        config: its configuration, so that settings are named with their values.
    """
    history, config = current(history), config or {}
    broken = [line for line in history if not all(finite(line.get(name, 0.0)) for name in ALWAYS)]
    lines = [line for line in history if "rank" in line and "std" in line and line not in broken]
    if broken and broken[-1] is history[-1]:
        reason = f"loss or features are not finite at step {broken[-1].get('step', '?')}"
        return _told("collapsing", reason, named("learning rate too high", lines, config))
    if not lines:
        return Verdict("watch", "no health figures in the log yet")
    if (lost := collapse(lines)) and (lasted(lines) or not few_samples(lines)):  # what few samples have is noise
        return _told("collapsed" if lasted(lines) else "collapsing", lost, of_collapse(lines, config))
    if broken:
        return Verdict("watch", f"{len(broken)} lines with values that are not finite; {about(lines)}")
    found = doubt(lines, config)
    if found is None:
        return Verdict("healthy", about(lines))
    return _told(found.word, found.reason, named(found.kind, lines, config) if found.kind else None)


def _told(word: str, reason: str, cause: Cause | None) -> Verdict:
    return Verdict(word, reason, *((cause.said, cause.kind, cause.settings, cause.change) if cause else ()))
