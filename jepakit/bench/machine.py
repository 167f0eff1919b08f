"""What a device can do: by the table of ``jepakit.peaks``, and where nobody has said, by a product of two matrices."""

import time
from collections.abc import Callable

import torch

from jepakit.peaks import known, peak

SIDE = {"cpu": 512, "cuda": 8192}
"""Rows and columns of the matrices: large enough to fill a core, or a GPU, and small enough to be done before someone
else wants it. For several threads the product is as many times as large."""
TIMES = 16
"""Products, of which the fastest counts."""
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def stated(device: torch.device, precision: str) -> float | None:
    """FLOP/s by its maker; None where nobody has said."""
    return peak(device, precision)


def who(device: torch.device) -> str:
    """Whose figure is ``stated``."""
    return f"stated for {known(torch.cuda.get_device_name(device))}"


def measured(device: torch.device, precision: str, now: Callable[[], float] = time.perf_counter) -> float:
    """FLOP/s of a product of two matrices, by the clock ``now``, with as many threads as are set."""
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    side = round(SIDE.get(device.type, SIDE["cpu"]) * threads ** (1 / 3))
    one = torch.ones(side, side, dtype=TYPES[precision], device=device)
    best = float("inf")
    for _ in range(TIMES + 1):  # the first one prepares what the others use
        _settle(device)
        begun = now()
        torch.mm(one, one)
        _settle(device)
        best = min(best, now() - begun)
    return 2 * side**3 / best


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
