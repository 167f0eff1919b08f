"""What a device can do: by the table of ``jepakit.peaks``, and measured: products of matrices, copies, calls."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from jepakit.bench.split import Now, clock
from jepakit.kernels import ONEDNN, product
from jepakit.peaks import known, peak

SIDE = {"cpu": 512, "cuda": 8192}
"""Rows and columns of the matrices: large enough to fill a core, or a GPU, and small enough to be done before someone
else wants it. For several threads the product is as many times as large."""
COPIED = {"cpu": 2**27, "cuda": 2**31}
"""Bytes that are copied from one place to another: more than caches hold."""
TIMES = 16
"""Products, copies, rounds of calls, of which the fastest counts."""
CALLS = 256
"""Calls of a round: operations on one number."""
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Limits(NamedTuple):
    """FLOP/s of products, bytes a second to and from memory (a copy reads and writes), seconds of a call of the
    smallest operation that there is. All measured."""

    flops: float
    bandwidth: float
    call: float


def stated(device: torch.device, precision: str) -> float | None:
    """FLOP/s by its maker; None where nobody has said."""
    return peak(device, precision)


def who(device: torch.device) -> str:
    """Whose figure is ``stated``."""
    return f"stated for {known(torch.cuda.get_device_name(device))}"


def measured(device: torch.device, precision: str, now: Now = time.perf_counter) -> float:
    """FLOP/s of a product of two matrices, by the clock ``now``, with as many threads as are set, by the fastest
    library that there is for it."""
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    side = round(_size(SIDE, device) * threads ** (1 / 3))
    one = torch.ones(side, side, dtype=TYPES[precision], device=device)
    return 2 * side**3 / min(_fastest(each, device, now) for each in _products(one))


def _products(one: Tensor) -> list[Callable[[], Tensor]]:
    """A matrix by itself. On CPUs in fp32 torch's product is MKL's, which on some of them leaves half of what there is
    and what oneDNN reaches, so that both are tried."""
    ways = [lambda: torch.mm(one, one)]
    if one.device.type == "cpu" and one.dtype == torch.float32 and ONEDNN:
        ways.append(lambda: product(one, one))
    return ways


def bandwidth(device: torch.device, now: Now = time.perf_counter) -> float:
    """Bytes a second of a large copy, those that are read and those that are written."""
    size = _size(COPIED, device)
    one, other = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / _fastest(lambda: other.copy_(one), device, now)


def call(device: torch.device, now: Now = time.perf_counter) -> float:
    """Seconds of an operation on one number: what a call costs, whatever it does."""
    one = torch.zeros((), device=device)

    def several() -> Tensor:
        for _ in range(CALLS):
            one.add_(1)
        return one

    with torch.no_grad():
        return _fastest(several, device, now) / CALLS


def limits(device: torch.device, precision: str, now: Now = time.perf_counter) -> Limits:
    """All of them."""
    return Limits(measured(device, precision, now), bandwidth(device, now), call(device, now))


def _fastest(work: Callable[[], Tensor], device: torch.device, now: Now) -> float:
    """Seconds of the fastest of many; on a GPU between two events of its stream."""
    clock_, best = clock(device, now), float("inf")
    for _ in range(TIMES + 1):  # the first one prepares what the others use
        begun = clock_.mark()
        work()
        ended = clock_.mark()
        clock_.settle()
        best = min(best, clock_.between(begun, ended))
    return best


def _size(sizes: dict[str, int], device: torch.device) -> int:
    return sizes.get(device.type, sizes["cpu"])
