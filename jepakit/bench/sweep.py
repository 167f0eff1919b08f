"""What a sample costs in time and memory, against the values of a setting."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from jepakit import runs
from jepakit.bench.entry import Asked, Sweep
from jepakit.bench.memory import step_bytes
from jepakit.bench.numbers import parts, spread
from jepakit.bench.result import FORMAT, name
from jepakit.bench.rounds import measure
from jepakit.bench.sides import Side, of_config
from jepakit.bench.split import CLOCKS, PARTS, REST
from jepakit.plan.count import Counts, step
from jepakit.plan.memory import state

BETWEEN = ("parameters", "optimiser", "teacher", "buffers")
"""Items of a plan's memory that are held between steps; of all others a step's peak is made."""


def swept(wanted: Asked) -> dict[str, Any]:
    """Every sweep that is asked for, one after the other, as plain data. Raises UserError as training would."""
    return {
        "format": FORMAT,
        "environment": runs.environment(),
        "clock": wanted.clock,
        "fixed": wanted.fixed,
        "recipe": wanted.sides[0][0],
        "sweeps": [_sweep(each, wanted) for each in wanted.sweeps],
    }


def _sweep(each: Sweep, wanted: Asked) -> dict[str, Any]:
    """All values at once, in turns."""
    with contextlib.ExitStack() as stack:
        made = [of_config(value, config, CLOCKS[wanted.clock], wanted.fixed) for value, config in each.sides]
        sides = [stack.enter_context(side) for side in made]
        measure(sides, wanted.steps, wanted.repeats)
        points = [point(side) for side in sides]
        first = sides[0]
        found = {"key": each.key, "unit": first.unit, "device": name(first.device), "threads": first.threads}
        found["precision"], found["compiled"] = first.config["trainer"]["precision"], first.compiles
    label, places = axis(each.key, points)
    return found | {"axis": label, "points": [{**each, "at": at} for each, at in zip(points, places, strict=True)]}


def point(side: Side) -> dict[str, Any]:
    """One value: of a sample the seconds, in all and by part (shares of all steps' time, so that they add up), the
    operations and tokens; of a step the peak of memory, measured, and of a process what is counted by item."""
    whole = spread([sum(step.values()) / side.samples for step in side.steps])
    shares = {part: share for part, (_, share) in parts(side.steps, (*PARTS, REST)).items()}
    counts = step(side.config)
    planned = state(counts)
    return {
        "value": side.label,
        "samples": side.samples,
        "seconds": whole._asdict(),
        "parts": {part: share * whole.median for part, share in shares.items()},
        "flops": counts.flops / counts.samples,
        "tokens": dict(counts.tokens),
        "parameters": _encoder(counts),
        "memory": {
            "step": step_bytes(side),
            "planned": sum(size for item, size in planned.items() if item not in BETWEEN),
            "items": planned,
        },
    }


def _encoder(counts: Counts) -> int:
    return counts.parameters.get("encoder", counts.trained)


def axis(key: str, points: Sequence[Mapping[str, Any]]) -> tuple[str, list[float]]:
    """What the cost grows with, and where on it each point lies: the value itself where it is a number, else what it
    changes: the encoder's parameters, or the tokens that it sees."""
    values = [_number(each["value"]) for each in points]
    if None not in values:
        return key, [value for value in values if value is not None]
    parameters = [float(each["parameters"]) for each in points]
    tokens = [float(each["tokens"]["context"]) for each in points]
    return ("parameters of the encoder", parameters) if len(set(parameters)) > 1 else ("tokens of the context", tokens)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
