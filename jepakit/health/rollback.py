"""Back to where a run was healthy, and on with smaller steps; the run's own log says what was done.

A rollback is a line of log.jsonl, written before anything else is done about it. Whatever comes in between, whoever
opens the run next finds it there and does the rest. The lines that led to the collapse stay; those that follow say by
``rollback`` how often the run had been rolled back.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jepakit import checkpoint
from jepakit.health.course import ATTEMPT, FROM, Line
from jepakit.health.verdict import ILL, WORDS

SCALE = "lr_scale"
"""Key of a rollback's line: what learning rates are multiplied by from there on, all rollbacks together."""


class Rollback(NamedTuple):
    """The ``number``-th of a run, from 1: from step ``start`` to step ``step``, because of ``reason``."""

    number: int
    step: int
    start: int
    scale: float
    reason: str

    @property
    def line(self) -> dict[str, Any]:
        """As a log keeps it."""
        return {"step": self.step, ATTEMPT: self.number, FROM: self.start, SCALE: self.scale, "reason": self.reason}

    def __str__(self) -> str:
        return (
            f"rollback {self.number}: from step {self.start:,} to step {self.step:,}, learning rates x {self.scale:.4g}"
        )


def done(lines: Sequence[Line]) -> list[Rollback]:
    """Those of a log, oldest first."""
    found = [line for line in lines if FROM in line]
    return [Rollback(line[ATTEMPT], line["step"], line[FROM], line[SCALE], line.get("reason", "")) for line in found]


def finish(run: Path, rollbacks: Sequence[Rollback]) -> None:
    """Remove the checkpoints that a run was rolled back from. A damaged one stays: nobody goes on from it."""
    for folder in checkpoint.folders(run) if rollbacks else ():
        try:
            state = checkpoint.state(folder)
        except checkpoint.Damaged:
            continue
        if any(each.step < state["step"] and state.get(ATTEMPT, 0) < each.number for each in rollbacks):
            checkpoint.remove(folder)


def target(run: Path, verify: str = "full") -> int | None:
    """The step of the newest valid checkpoint that was healthy when it was saved, else of the newest that was not ill;
    None where there is none. Of one that does not say, because it is old, nothing bad is known."""
    found: dict[str, int] = {}
    for folder in checkpoint.folders(run):
        try:
            checkpoint.check(folder, verify)
            state = checkpoint.state(folder)
        except checkpoint.Damaged:
            continue  # restoring passes it over too, and says so
        found[state.get("health", WORDS[0])] = state["step"]
    return next((found[word] for word in WORDS if word in found and word not in ILL), None)


def planned(
    run: Path, options: Mapping[str, Any], past: Sequence[Rollback], step: int, reason: str, verify: str
) -> Rollback | None:
    """The next rollback of a run that is at ``step``; None where ``options`` (see ``jepakit.options.HealthOptions``) do
    not ask for it, where it was done too often, and where there is nothing to go back to."""
    asked = options["on_collapse"] == "rollback" and len(past) < options["rollbacks"]
    back = target(run, verify) if asked else None
    scale = options["factor"] * (past[-1].scale if past else 1.0)
    return None if back is None else Rollback(len(past) + 1, back, step, scale, reason)


def slower(optim: Mapping[str, Any], past: Sequence[Rollback]) -> dict[str, Any]:
    """The optimiser's options with the learning rates of a run that was rolled back."""
    scale = past[-1].scale if past else 1.0
    return {**optim, **{name: optim[name] * scale for name in ("lr", "start_lr", "final_lr")}}


def ended(run: Path, step: int, past: Sequence[Rollback], reason: str) -> str:
    """Why a run was stopped, and how to go on."""
    often = f" after {len(past)} rollbacks" * bool(past)
    on, why = f"jepakit train run={run} health.on_collapse=warn", f"jepakit health run={run}"
    return f"stopped and saved at step {step:,}{often}: {reason}; why: {why}; to go on all the same: {on}"


def guarded(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The verdicts of which the newest checkpoint is kept, whatever comes after it: where a run may be rolled back it
    has to be a healthy one."""
    return WORDS[:1] if options["on_collapse"] == "rollback" else tuple(word for word in WORDS if word not in ILL)
