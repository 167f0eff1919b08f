"""How many processes share a step, and what becomes of a run that goes on in another number of them.

A step is ``trainer.devices`` x ``trainer.accumulate`` micro-batches. Where the first changes within a run, the second
makes up for it: steps stay what they were, and so do learning rates, schedules and epochs.
"""

import json
from collections.abc import Mapping
from typing import Any

from jepakit import runs
from jepakit.errors import ConfigError

BEGAN = "began.json"
"""File of a run that has gone on in another number of processes: what it began with."""
KEYS = ("devices", "accumulate")


def agreed(asked: int | None, world: int) -> int | None:
    """The number of processes: what is asked for, or as many as a launcher has started (0: there is no launcher).

    Raises ConfigError where the two differ.
    """
    if world and asked not in (None, world):
        started = f"{world} process{'es' * (world != 1)}"
        raise ConfigError(f"trainer.devices={asked}, but the launcher has started {started}: leave it out")
    return world or asked


def refuse_devices(trainer: Mapping[str, Any]) -> None:
    """Raise ConfigError for more processes than there are GPUs, where these are what is trained on."""
    count, device = trainer["devices"] or 1, trainer["device"]
    if count == 1 or device == "cpu":
        return
    if device.startswith("cuda:"):
        raise ConfigError(f"trainer.device={device} is one GPU, and trainer.devices={count}: write trainer.device=cuda")
    import torch

    there = torch.cuda.device_count()
    if count > there and (device == "cuda" or there):
        raise ConfigError(f"trainer.devices={count}: this machine has {there} GPU{'s' * (there != 1)}")


def altered(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with other ``settings`` of the trainer, by dotted key."""
    return {**config, "trainer": config["trainer"] | {key.partition(".")[2]: settings[key] for key in settings}}


def shared(before: Mapping[str, Any], devices: int | None) -> dict[str, Any]:
    """The settings, by dotted key, with which a run goes on in ``devices`` processes and in the steps that it had.

    Raises ConfigError, with the choices there are, where a step cannot be shared among so many.
    """
    trainer, batch = before["trainer"], before["data"]["batch_size"]
    old, new, count = trainer["devices"] or 1, devices or 1, trainer["accumulate"]
    if old == new or count is None:  # null: as many as make up trainer.global_batch
        return {"trainer.devices": devices or trainer["devices"], "trainer.accumulate": count}
    total = count * old
    if total % new:
        fitting = ", ".join(str(each) for each in range(1, total + 1) if total % each == 0)
        raise ConfigError(
            f"a step of this run is {total} micro-batches of {batch} samples, which {new} processes cannot share: go "
            f"on with {fitting} of them, or say by hand what each takes, with data.batch_size and trainer.accumulate"
        )
    return {"trainer.devices": devices, "trainer.accumulate": total // new}


def why(key: str, changed: Mapping[str, Any]) -> str:
    """What is said of a setting that changed because the number of processes did."""
    if key != "trainer.accumulate" or "trainer.devices" not in changed or None in changed[key]:
        return ""
    old, new = ((changed["trainer.devices"][i] or 1) * changed[key][i] for i in (0, 1))
    return ", so that a step stays what it was" if old == new else ""


def note_beginning(run: runs.Run) -> None:
    """Keep what a run began with, where it is about to go on in another number of processes for the first time."""
    if not (run.folder / BEGAN).exists():
        began = {f"trainer.{key}": run.config["trainer"].get(key) for key in KEYS}
        (run.folder / BEGAN).write_text(json.dumps(began), "utf-8")


def begun(run: runs.Run, config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration with the number of processes that it began with."""
    file = run.folder / BEGAN
    return altered(config, json.loads(file.read_text("utf-8")) if file.exists() else {})


def unfinished(config: Mapping[str, Any]) -> runs.Run | None:
    """The newest unfinished run that differs from a configuration in nothing but its length and how many share it."""
    for run in map(runs.open_run, runs.found()):
        same = not run.finished and run.config.get("recipe") == config["recipe"] and "trainer" in run.config
        if same and not runs.changes(begun(run, run.config), config, but=(*runs.LENGTH, "trainer.devices")):
            return run
    return None
