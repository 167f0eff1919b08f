"""What processes send one another in a step, by strategy.

Bytes that leave each process, by the algorithms that need the least: a ring's all-reduce of ``n`` bytes among ``W``
processes sends 2 (W - 1) / W n, an all-gather or a reduce-scatter half of that (Patarasu and Yuan, 2009).
"""

from collections.abc import Mapping

from jepakit.plan.count import FLOAT, Counts
from jepakit.plan.memory import parts_of


def sent(counts: Counts, strategy: str, world: int, shard: int | None = None, accumulate: int = 1) -> dict[str, float]:
    """Bytes that a process sends in an optimiser step, by purpose; empty for one process.

    Shards are put together for every forward pass that reads them, those that are trained once more for the backward
    pass; gradients are exchanged once a step, whatever ``accumulate`` is.
    """
    parts = parts_of(strategy, world, shard)
    gradients = FLOAT * counts.trained
    found: dict[str, float] = {}
    if parts > 1:
        each = FLOAT * accumulate / counts.turns * (parts - 1) / parts
        found["all-gather of parameters"] = 2 * each * counts.gathered["trained"]
        found["all-gather of the teacher"] = each * counts.gathered["frozen"]
        found["reduce-scatter of gradients"] = gradients * (parts - 1) / parts
    groups = world // parts
    if groups > 1:
        found["all-reduce of gradients"] = 2 * (groups - 1) / groups * gradients / parts
    return {purpose: bytes for purpose, bytes in found.items() if bytes}


def leaving(found: Mapping[str, float], world: int, shard: int, per_machine: int) -> float:
    """Bytes of a step that leave each machine, of those that its processes have ``sent``; ``shard`` processes hold a
    parameter together.

    A ring of neighbours leaves a machine once, however many of its processes lie on it; and there are as many rings of
    all-reduces as processes hold a parameter together.
    """
    if world <= per_machine:
        return 0.0
    reduced = found.get("all-reduce of gradients", 0.0)
    gathered = sum(found.values()) - reduced
    return reduced * min(shard, per_machine) + (gathered if shard > per_machine else 0.0)
