"""A plan: what was counted, put beside devices, their number, and a length of training."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jepakit.branches import branches
from jepakit.errors import ConfigError
from jepakit.peaks import peak
from jepakit.plan.count import FLOAT, Counts, micro_batches, step
from jepakit.plan.memory import GIB, chosen, largest, parts_of, state, with_world
from jepakit.plan.traffic import leaving, sent


class Hardware(NamedTuple):
    """What is assumed: ``gpus`` processes, each with one device, ``per_machine`` of them on a machine; a device by its
    short name, its ``memory`` in GiB, and the share ``mfu`` of its peak that training reaches; GB/s that leave a
    machine over the ``network`` for each of its devices."""

    gpus: int
    per_machine: int
    gpu: str
    memory: float
    mfu: float
    network: float


def plan(config: Mapping[str, Any], hardware: Hardware, images: int | None = None) -> dict[str, Any]:
    """All figures as plain data: bytes, operations, seconds. ``images`` are those of an epoch.

    Raises ConfigError where no model can be made of the configuration, or it cannot be spread over the devices.
    """
    config = with_world(config, hardware.gpus)
    accumulate = micro_batches(config)[0]
    _refuse(config, hardware)
    lasts = length(config, hardware.gpus, accumulate, images)
    counts = step(config)
    strategy, why, shard = _spread(config, counts, hardware, accumulate)
    spread = (strategy, hardware.gpus, shard, accumulate)
    held, traffic = state(counts, *spread), sent(counts, *spread)
    parts = parts_of(*spread[:3])
    micro = counts.samples * accumulate
    found: dict[str, Any] = {"recipe": config["recipe"], "assumed": hardware._asdict(), "counts": counts.numbers()}
    found |= {"strategy": strategy, "shard": shard if strategy == "hsdp" else None, "why": why, "memory": held}
    found |= {"largest_micro_batch": largest(counts, held, hardware.memory * GIB), "accumulate": accumulate}
    found |= {"samples_per_step": micro * hardware.gpus, "checkpoint": checkpoint(counts)}
    found |= {"sent": traffic, "leaving_machine": leaving(traffic, hardware.gpus, parts, hardware.per_machine)}
    found |= lasts
    return found | _time(found, hardware, peak(hardware.gpu, config["trainer"]["precision"]))


def checkpoint(counts: Counts) -> int:
    """Bytes of a checkpoint of all processes: parameters, teacher, optimiser, buffers, each once."""
    return FLOAT * (counts.trained + counts.frozen) + counts.state + counts.buffers


def length(config: Mapping[str, Any], world: int, accumulate: int, images: int | None) -> dict[str, Any]:
    """Steps of an epoch and of the run, None where they are not known, and where they come from.

    Raises ConfigError for ``images`` that training would not ask for.
    """
    options, batch = config["trainer"], next(iter(branches(config).values()))["data"]["batch_size"]
    stated = options["epoch_steps"]
    if images and stated:
        raise ConfigError(f"images={images} has no place here: an epoch is trainer.epoch_steps={stated}")
    samples, source = (images, f"images={images}") if images else (config["data"].get("length"), "data.length")
    epoch = stated or (samples and max(1, samples // (batch * world)) / accumulate)
    if options["steps"]:
        return {"epoch_steps": epoch, "steps": options["steps"], "length_from": f"trainer.steps={options['steps']}"}
    if not epoch:
        return {"epoch_steps": None, "steps": None, "length_from": "add images=N, how many samples an epoch has"}
    said = f"trainer.epochs={options['epochs']:g} of {epoch:,.0f} steps"
    source = f"trainer.epoch_steps={stated}" if stated else source
    return {"epoch_steps": epoch, "steps": max(1, int(options["epochs"] * epoch)), "length_from": f"{said}, {source}"}


def _refuse(config: Mapping[str, Any], hardware: Hardware) -> None:
    """Raise ConfigError for groups that the processes cannot be divided into."""
    asked, shard = config["trainer"]["strategy"], config["trainer"]["shard"] or hardware.per_machine
    if asked == "hsdp" and hardware.gpus % shard:
        raise ConfigError(f"trainer.shard={shard}: {hardware.gpus} processes are no multiple of it")


def _spread(config: Mapping[str, Any], counts: Counts, hardware: Hardware, accumulate: int) -> tuple[str, str, int]:
    """The strategy, why, and the processes of a group of hsdp."""
    asked, shard = config["trainer"]["strategy"], config["trainer"]["shard"] or hardware.per_machine
    if asked != "auto":
        return asked, f"{asked}: asked for", shard
    return *chosen(counts, hardware.gpus, hardware.memory * GIB, hardware.per_machine, accumulate, shard), shard


def _time(found: Mapping[str, Any], hardware: Hardware, best: float | None) -> dict[str, Any]:
    """Seconds of a step's operations, of what is sent in it, and of the run; what is computed again takes time too."""
    counts = found["counts"]
    operations = (counts["flops"] + counts["again"]) * found["accumulate"] / counts["turns"]
    seconds = None if best is None else operations / (best * hardware.mfu)
    run = seconds * found["steps"] if seconds and found["steps"] else None
    sending = found["leaving_machine"] / (hardware.network * hardware.per_machine * 1e9)
    return {"peak": best, "seconds_per_step": seconds, "seconds_sending": sending, "seconds": run}
