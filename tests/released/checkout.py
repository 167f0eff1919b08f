"""What the steps of released code share: where that code lies, and the schedules that they train by."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jepakit.errors import ConfigError

EPOCH_STEPS = 1000
"""Steps of an epoch where the configuration leaves them to the data."""
CONSTRUCTED = {"qkv_bias": True, "norm_layer": partial(nn.LayerNorm, eps=1e-6)}
"""What their ``vit_tiny``, ``vit_small``, ... hand to their classes; sizes are the configuration's here."""

Part = Callable[[str], contextlib.AbstractContextManager[None]]
"""``with part("backward"):`` the time in there is that part's (see ``jepakit.bench.split``)."""


class Asked(NamedTuple):
    """What their collators draw for a batch: indices of tokens, ``B K`` and ``B Q``, several of each."""

    context: list[Tensor]
    target: list[Tensor]

    def to(self, device: torch.device) -> "Asked":
        return Asked(*([each.to(device) for each in some] for some in self))


class Models(NamedTuple):
    """Theirs: what is trained, and who answers."""

    encoder: nn.Module
    predictor: nn.Module
    target: nn.Module

    def states(self) -> list[dict[str, Tensor]]:
        """Of each of them."""
        return [each.state_dict() for each in self]

    def load(self, states: list[dict[str, Tensor]]) -> None:
        """What ``states`` gave; all or an error."""
        for each, state in zip(self, states, strict=True):
            each.load_state_dict(state)


def unwatched(part: str) -> contextlib.AbstractContextManager[None]:
    """Nobody wants to know."""
    return contextlib.nullcontext()


@contextlib.contextmanager
def opened(variable: str, home: str) -> Iterator[None]:
    """Within it their packages ``src`` and ``app`` can be imported, from the checkout that an environment variable
    names. They set up the root's logger and use what has other names by now: neither is heard.

    Raises ConfigError where there is no checkout.
    """
    folder = os.environ.get(variable, "")
    if not (Path(folder) / "src" / "models" / "vision_transformer.py").is_file():
        said = f"{variable}={folder} is no checkout" if folder else f"{variable} is not set"
        raise ConfigError(f"{said}: it is to name the folder of a checkout of {home}")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.getLogger().setLevel(logging.WARNING)


def schedules(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of their ``init_opt``. It makes no gradient scaler then, which has nothing to do in bfloat16."""
    optim, trainer = config["optim"], config["trainer"]
    wd, final_wd = optim["weight_decay"]
    return {
        "start_lr": optim["start_lr"],
        "ref_lr": optim["lr"],
        "final_lr": optim["final_lr"],
        "warmup": optim["warmup"],
        "wd": wd,
        "final_wd": final_wd,
        "ipe_scale": optim["stretch"],
        "num_epochs": trainer["epochs"],
        "iterations_per_epoch": trainer["epoch_steps"] or EPOCH_STEPS,
    }


def momenta(config: Mapping[str, Any]) -> Iterator[float]:
    """Of the teacher, growing linearly."""
    ema, trainer = config["anti_collapse"]["ema"], config["trainer"]
    steps = trainer["epochs"] * (trainer["epoch_steps"] or EPOCH_STEPS) * ema["stretch"]
    return (ema["start"] + i * (ema["end"] - ema["start"]) / steps for i in range(int(steps) + 1))


def cast(config: Mapping[str, Any], device: torch.device) -> torch.autocast:
    """Their mixed precision on any device; their own call is CUDA's alone."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config["trainer"]["precision"] == "bf16")


def stepping(
    step: Callable[[Tensor, Asked], float], draw: Callable[[int], Asked], batch: Tensor, part: Part
) -> Callable[[int], int]:
    """What ``prepare`` returns (see ``jepakit.bench.theirs``): steps on one batch, with other masks each time."""

    def taken(number: int) -> int:
        with part("masks"):
            asked = draw(len(batch)).to(batch.device)
        step(batch, asked)
        return len(batch)

    return taken
