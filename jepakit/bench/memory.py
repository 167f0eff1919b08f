"""The most memory that a step takes beyond what is held between steps, told by the allocators themselves."""

import os
from statistics import median

import torch

from jepakit.bench.sides import Side

TAKEN = 5
"""Steps that are looked at, of which the median counts: each draws masks of its own, and so sees other tokens."""
QUIET = "KINETO_LOG_LEVEL", "99"
"""A variable of the environment by which PyTorch's profiler keeps its notes to itself."""


def step_bytes(side: Side, steps: int = TAKEN) -> float:
    """Of a step at its peak: gradients, activations, 16-bit copies, what is made in between. Parameters, teacher and
    the optimiser's state are held between steps, and so are no part of it."""
    look = _of_gpu if side.device.type == "cuda" else _of_cpu
    return float(median(look(side) for _ in range(steps)))


def _of_gpu(side: Side) -> int:
    torch.cuda.reset_peak_memory_stats(side.device)
    before = torch.cuda.memory_allocated(side.device)
    side.take(1)
    torch.cuda.synchronize(side.device)
    return torch.cuda.max_memory_allocated(side.device) - before


def _of_cpu(side: Side) -> int:
    """By the allocator's own events, which the profiler collects: what is given back of before the step is none."""
    os.environ.setdefault(*QUIET)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True, acc_events=True) as profile:
        side.take(1)
    events = [each for each in profile.profiler.kineto_results.events() if each.name() == "[memory]"]
    live = most = 0
    for each in sorted(events, key=lambda each: each.start_ns()):
        live += each.nbytes()
        most = max(most, live)
    return most
