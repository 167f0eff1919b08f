"""What a process holds in memory, by strategy, and which strategy that speaks for."""

from collections.abc import Mapping
from typing import Any

from jepakit.parallel import SHARDS
from jepakit.plan.count import FLOAT, Counts, step
from jepakit.scaling import Step

USABLE = 0.9
"""Share of a device's memory to plan with: the rest is its driver's and libraries', and lost between pieces."""
AT_ONCE = 3
"""Blocks that lie put together where processes hold shards: the one that is used, the next one, a gradient's."""
GIB = 2**30


def state(
    counts: Counts, strategy: str = "ddp", world: int = 1, shard: int | None = None, accumulate: int = 1
) -> dict[str, int]:
    """Bytes in each process, by item; they are held at once.

    ``shard`` is that of hsdp. With several backward passes a step (``accumulate``, or branches) processes that hold
    shards add up whole gradients, and exchange the sum. Under ``ddp`` gradients are exchanged in copies of their own,
    while what the backward pass kept is given back: ``activations`` are at least as much.
    """
    parts = parts_of(strategy, world, shard)
    several = counts.passes * accumulate > 1
    gradients = FLOAT * counts.trained
    exchanged = gradients if strategy == "ddp" and world > 1 else 0
    return {
        "parameters": FLOAT * counts.trained // parts,
        "gradients": gradients // (1 if several else parts),
        "optimiser": counts.state // parts,
        "teacher": FLOAT * counts.frozen // parts,
        "buffers": counts.buffers,
        "blocks put together": AT_ONCE * FLOAT * counts.unit if parts > 1 else 0,
        "16-bit copies": counts.copy_bytes,
        "activations": max(counts.activation_bytes, exchanged - counts.copy_bytes),
    }


def parts_of(strategy: str, world: int, shard: int | None = None) -> int:
    """How many processes hold a parameter together."""
    if strategy not in SHARDS:
        return 1
    return min(shard or world, world) if strategy == "hsdp" else world


def largest(counts: Counts, held: Mapping[str, int], memory: int | float) -> int:
    """The largest micro-batch for which there is room in ``memory`` bytes, all branches' together, as far as
    activations grow with the batch; 0 where there is none."""
    fixed = sum(held.values()) - held["activations"]
    room = USABLE * memory - fixed
    return max(0, int(room * counts.samples // counts.activation_bytes))


def choose(config: Mapping[str, Any], world: int, memory_bytes: int | float, per_machine: int) -> tuple[str, str]:
    """The strategy for a resolved configuration on ``world`` processes with ``memory_bytes`` each, ``per_machine`` of
    them on a machine; and a line that says why. Raises ConfigError where no model can be made of it."""
    counts = step(with_world(config, world))
    return chosen(
        counts, world, memory_bytes, per_machine, Step.of(config, world).accumulate, config["trainer"]["shard"]
    )


def chosen(
    counts: Counts, world: int, memory: int | float, per_machine: int, accumulate: int = 1, shard: int | None = None
) -> tuple[str, str]:
    """As ``choose``, of what has been counted: ddp where all of it fits, else shards, over one machine's processes
    where there are several machines and that is enough."""
    needs = {"ddp": sum(state(counts, "ddp", world, accumulate=accumulate).values())}
    shard = shard or per_machine
    if world > shard and world % shard == 0:
        needs["hsdp"] = sum(state(counts, "hsdp", world, shard, accumulate).values())
    if world > 1:
        needs["fsdp2"] = sum(state(counts, "fsdp2", world, accumulate=accumulate).values())
    fitting = next((name for name, need in needs.items() if need <= USABLE * memory), None)
    strategy, has = fitting or list(needs)[-1], f"{100 * USABLE:.0f} % of {memory / GIB:.0f} GiB"
    need = f"{needs[strategy] / GIB:.1f} GiB" + f" in each of {world} processes" * (world > 1)
    if fitting is None:
        return strategy, f"{strategy}: it needs {need}, more than {has}: a smaller data.batch_size is needed"
    over = f"; ddp would need {needs['ddp'] / GIB:.1f} GiB" if strategy != "ddp" else ""
    return strategy, f"{strategy}: {need} fit into {has}{over}"


def with_world(config: Mapping[str, Any], world: int) -> dict[str, Any]:
    """The configuration for ``world`` processes."""
    return {**config, "trainer": {**config["trainer"], "devices": world}}
