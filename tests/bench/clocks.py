"""Time that passes when it is told to."""


class Told:
    """Seconds: both a clock of steps (see ``jepakit.bench.split.Clock``) and, called, one of a run's pace."""

    def __init__(self) -> None:
        self.now = 100.0
        self.settled = 0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds

    def mark(self) -> float:
        return self.now

    def settle(self) -> None:
        self.settled += 1

    def between(self, one: float, other: float) -> float:
        return other - one
