"""A verdict after each new line of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from jepakit.health.course import RECENT, Line, current
from jepakit.health.verdict import ILL, Verdict, verdict

KEPT = 100
"""Lines that are looked at while a run goes on, beside the first ones."""


class Watch:
    """A verdict after each new line of a run, told where a collapse begins, and where features are healthy again.

    Args:
        config: the run's.
        lines: its log so far.
    """

    def __init__(self, config: Mapping[str, Any], lines: Sequence[Line] = ()):
        judged = [line for line in current(lines) if "rank" in line]
        self.config, self.lines = config, [*judged[:RECENT], *judged[RECENT:][-KEPT:]]
        self.last = verdict(self.lines, config) if self.lines else Verdict("healthy", "it has not begun yet")
        self.collapsing = self.last.word in ILL

    def __call__(self, line: Line) -> str:
        """What to say after this line: mostly nothing."""
        before = self.collapsing
        self.add(line)
        self.judge()
        return str(self.last) if self.collapsing != before else ""

    def add(self, line: Line) -> None:
        """A line that is not judged yet. What one costs does not grow with the run."""
        self.lines.append(line)
        del self.lines[RECENT : max(RECENT, len(self.lines) - KEPT)]

    def judge(self) -> Verdict:
        """The verdict as it is now, which is ``last`` from here on."""
        self.last = verdict(self.lines, self.config)
        self.collapsing = self.last.word in ILL or (self.collapsing and self.last.word != "healthy")
        return self.last
