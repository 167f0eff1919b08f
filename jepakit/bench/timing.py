"""Rounds of steps, side by side."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from jepakit.bench.entry import Asked
from jepakit.bench.page import show as show
from jepakit.bench.result import result
from jepakit.bench.sides import Side, of_config, of_file
from jepakit.bench.split import CLOCKS
from jepakit.device import pick_device

WARM = 2
"""Steps that come before all others: what is made at the first use is made then."""
TRACED = 3
"""Steps of a trace."""


def timed(wanted: Asked) -> dict[str, Any]:
    """Take the steps that are asked for. Returns what ``jepakit.bench.result`` makes of them."""
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(_side(wanted, number)) for number in range(len(wanted.sides))]
        measure(sides, wanted.steps, wanted.repeats)
        found = result(sides, [isinstance(config, dict) for _, config in wanted.sides]) | {
            "clock": wanted.clock,
            "fixed": wanted.fixed,
        }
        if wanted.profile:
            trace(sides[0], wanted.profile)
    return found


def measure(sides: Sequence[Side], steps: int, repeats: int) -> None:
    """Rounds of ``steps`` steps, each side in turn, ``repeats`` times: what slows the machine down meets all alike."""
    for side in sides:
        side.take(WARM + side.settle)
    for _ in range(repeats):
        for side in sides:
            side.turn(steps, side.settle if len(sides) > 1 else 0)


def trace(side: Side, path: Path) -> None:
    """A few more steps under PyTorch's profiler, with their parts named; for chrome://tracing or ui.perfetto.dev."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] * (side.device.type == "cuda")
    before, side.split.around = side.split.around, torch.profiler.record_function
    try:
        with torch.profiler.profile(activities=kinds) as profile:
            side.take(TRACED)
    finally:
        side.split.around = before
    profile.export_chrome_trace(str(path))


def _side(wanted: Asked, number: int) -> contextlib.AbstractContextManager[Side]:
    label, config = wanted.sides[number]
    if isinstance(config, dict):
        return of_config(label, config, CLOCKS[wanted.clock], wanted.fixed)
    ours = wanted.sides[0][1]
    assert isinstance(ours, dict)
    return of_file(config, ours, pick_device(ours["trainer"]["device"]), CLOCKS[wanted.clock])
