"""How near to the machine's limits each part of a step comes (roofline: Williams, Waterman and Patterson, 2009).

A part can be no faster than its products at the machine's peak, than its bytes at the memory's bandwidth, or than its
calls, each of which costs something whatever it does. Products alone are counted as floating-point operations, as is
usual. Bytes are the inputs and outputs of every operation, as if each came from memory and went there: more than really
do where caches keep them, so that a part can come out above all that memory gives.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jepakit.bench import machine
from jepakit.bench.machine import Limits
from jepakit.bench.numbers import parts
from jepakit.bench.sides import Side
from jepakit.bench.split import PARTS, REST, Now
from jepakit.compiling import eagerly
from jepakit.plan.meter import products

OUTSIDE = ("data", "masks")
"""Parts whose work is not torch's: reading, decoding, drawing. Nothing of them is counted."""
NEW = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"}
"""Operations that take memory and touch none."""
FILLS = {"copy_", "zero_", "fill_"}
"""Operations that write to a tensor without a look at what is in it."""


@dataclass
class Work:
    """Floating-point operations, bytes read and written, and operations that were called for them."""

    flops: int = 0
    bytes: int = 0
    calls: int = 0


class Tally(TorchDispatchMode):
    """Counts the work of each part of a step, ``rest`` where none is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, Work] = {}
        self._part = REST

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is done in here is that part's."""
        self._part = name
        try:
            yield
        finally:
            self._part = REST

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs := kwargs or {}))
        if moves := moved(func, args, kwargs, out):
            work = self.parts.setdefault(self._part, Work())
            work.bytes += moves
            work.calls += 1
            work.flops += products(func, args, kwargs, out)
        return out


def moved(func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    """Bytes that one operation reads and writes; none of those that only look at a tensor in another way."""
    name = func._schema.name.partition("::")[2]
    given = _tensors((args, kwargs))
    known = {_storage(each) for each in given}
    made = [each for each in _tensors(out) if _storage(each) not in known]
    changed = _changed(func, args, kwargs)
    if name in NEW or not (made or changed):
        return 0
    read = given[1:] if name in FILLS else given
    return sum(map(_size, (*read, *made, *changed)))


def _changed(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes to."""
    named = zip((each.name for each in func._schema.arguments), args, strict=False)
    values = dict(named) | kwargs
    writes = [each.name for each in func._schema.arguments if each.alias_info and each.alias_info.is_write]
    return _tensors([values.get(name) for name in writes])


def _tensors(values: Any) -> list[Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]


def _storage(tensor: Tensor) -> int:
    return id(tensor) if tensor.is_mkldnn else tensor.untyped_storage()._cdata  # oneDNN's own have none, and no views


def _size(tensor: Tensor) -> int:
    """Bytes of what is in it: a row that is shown many times (stride 0) is one."""
    if tensor.is_mkldnn:
        return tensor.numel() * tensor.element_size()
    places = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        places *= size if stride else 1
    return places * tensor.element_size() if tensor.numel() else 0


def tally(side: Side) -> dict[str, Work]:
    """The work of each part of one more step, which is not timed. What would be compiled is done operation by
    operation."""
    counted, before = Tally(), side.split.around
    side.split.around = counted.part
    try:
        with eagerly(side.compiles), counted:
            side.take(1)
    finally:
        side.split.around = before
    return {name: work for name, work in counted.parts.items() if name not in OUTSIDE}


def roofline(side: Side, now: Now = time.perf_counter) -> dict[str, Any]:
    """The machine's limits, and beside them each part of a side whose rounds have been taken, as plain data."""
    with side.own():
        limits = machine.limits(side.device, side.config["trainer"]["precision"], now)
    work = tally(side)
    seconds = {name: spread.median for name, (spread, _) in parts(side.steps, (*PARTS, REST)).items()}
    each = {name: beside(work[name], took, limits) for name, took in seconds.items() if name in work}
    whole = Work(*(sum(getattr(one, key) for one in work.values()) for key in ("flops", "bytes", "calls")))
    return {"limits": limits._asdict(), "parts": each, "step": beside(whole, _median(seconds, work), limits)}


def _median(seconds: dict[str, float], work: dict[str, Work]) -> float:
    """Of a step, without what is not counted."""
    return sum(took for name, took in seconds.items() if name in work)


def beside(work: Work, seconds: float, limits: Limits) -> dict[str, Any]:
    """Some work and the time that it took, beside the machine's limits.

    ``roof`` is the share of the rate that its operations per byte allow, min(peak, intensity x bandwidth), which is
    that of the least time; of work without products that of the bandwidth. ``bound`` is which limit comes first.
    """
    least = {"products": work.flops / limits.flops, "memory": work.bytes / limits.bandwidth}
    roof = max(least.values()) / seconds
    least["calls"] = work.calls * limits.call
    return {
        **vars(work),
        "seconds": seconds,
        "intensity": work.flops / work.bytes,
        "of_peak": least["products"] / seconds,
        "of_bandwidth": least["memory"] / seconds,
        "roof": roof,
        "bound": max(least, key=lambda limit: least[limit]),
    }
