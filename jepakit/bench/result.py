"""What was measured, as plain data: what ``out=`` writes, and what the page is printed from."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import torch

from jepakit import runs
from jepakit.bench import machine
from jepakit.bench.numbers import interval, parts, spread
from jepakit.bench.sides import Side
from jepakit.bench.split import PARTS, REST
from jepakit.bench.syncs import waits
from jepakit.pace import memory, sample_flops

FORMAT = 1


def result(sides: Sequence[Side], ours: Sequence[bool]) -> dict[str, Any]:
    """All of it. ``ours`` says of which sides the operations can be counted: those that are configurations."""
    told = [figures(side, own) for side, own in zip(sides, ours, strict=True)]
    return {
        "format": FORMAT,
        "environment": runs.environment(),
        "sides": told,
        "ratios": [ratio(sides, 0, number) for number in range(1, len(sides))],
        "memory_gib": memory(torch.device("cpu"))["memory_gib"],
    }


def figures(side: Side, own: bool = True) -> dict[str, Any]:
    """One side: parts, the whole step, samples a second, operations, and how much of the device they use.

    Seconds are medians with quartiles over all steps, and so do not add up exactly; shares do.
    """
    whole = spread([sum(step.values()) for step in side.steps])
    speed = {name: side.samples / value for name, value in zip(("median", "high", "low"), whole, strict=True)}
    flops = sample_flops(side.config) if own else None
    achieved = None if flops is None else flops * speed["median"]
    return {
        "label": side.label,
        "device": name(side.device),
        "threads": side.threads,
        "precision": side.config["trainer"]["precision"],
        "compiled": side.compiles,
        "samples": side.samples,
        "unit": side.unit,
        "parts": {part: {"seconds": each._asdict(), "share": share} for part, (each, share) in _parts(side).items()},
        "step": {
            "seconds": whole._asdict(),
            "rounds": [_median(each) for each in side.rounds],
            "count": len(side.steps),
        },
        "samples_per_second": speed,
        "flops_per_step": None if flops is None else flops * side.samples,
        "flops_per_second": achieved,
        "peak": side.peak,
        "peak_said": machine.who(side.device) if side.stated else "measured",
        "mfu": None if achieved is None else achieved / side.peak,
        "gpu_memory_gib": side.memory or None,
        "syncs": waits(side),
    }


def ratio(sides: Sequence[Side], one: int, other: int) -> dict[str, Any]:
    """How many times as fast ``one`` is as ``other``, per sample: of each pair of rounds that followed one another the
    medians of a step."""
    pairs = zip(sides[one].rounds, sides[other].rounds, strict=True)
    per_sample = sides[one].samples / sides[other].samples
    values = [_median(theirs) / _median(mine) * per_sample for mine, theirs in pairs]
    return {"of": one, "to": other, "pairs": len(values), **interval(values)._asdict()}


def name(device: torch.device) -> str:
    """A device as people know it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _parts(side: Side) -> dict[str, Any]:
    return parts(side.steps, (*PARTS, REST))


def _median(steps: Sequence[dict[str, float]]) -> float:
    return median(sum(step.values()) for step in steps)
