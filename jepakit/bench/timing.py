"""Steps that are asked for: side by side, along a setting, in a trace."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch

from jepakit.bench.entry import Asked
from jepakit.bench.memory import QUIET
from jepakit.bench.page import show as show
from jepakit.bench.plot import draw
from jepakit.bench.result import result
from jepakit.bench.roofline import roofline
from jepakit.bench.rounds import measure
from jepakit.bench.sides import Side, of_config
from jepakit.bench.split import CLOCKS
from jepakit.bench.sweep import swept
from jepakit.bench.theirs import of_file
from jepakit.device import pick_device

TRACED = 3
"""Steps of a trace."""


def timed(wanted: Asked) -> dict[str, Any]:
    """Take the steps that are asked for. Returns what ``jepakit.bench.result`` makes of them, or ``sweep``."""
    if wanted.sweeps:
        found = swept(wanted)
        if wanted.plot:
            draw(found, wanted.plot)
        return found
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(_side(wanted, number)) for number in range(len(wanted.sides))]
        measure(sides, wanted.steps, wanted.repeats)
        found = result(sides, [isinstance(config, dict) for _, config in wanted.sides]) | {
            "clock": wanted.clock,
            "fixed": wanted.fixed,
        }
        if wanted.roofline:
            for side, figures in zip(sides, found["sides"], strict=True):
                figures["roofline"] = roofline(side, CLOCKS[wanted.clock])
        if wanted.profile:
            trace(sides[0], wanted.profile)
    return found


def trace(side: Side, path: Path) -> None:
    """A few more steps under PyTorch's profiler, with their parts named; for chrome://tracing or ui.perfetto.dev."""
    os.environ.setdefault(*QUIET)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] * (side.device.type == "cuda")
    before, side.split.around = side.split.around, torch.profiler.record_function
    try:
        with torch.profiler.profile(activities=kinds, acc_events=True) as profile:
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
