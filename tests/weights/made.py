"""Weights made by hand: a small model, shaken so that teacher and backbone differ, as a file would hold it."""

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jepakit.build import Built, build
from jepakit.cli import main
from jepakit.config import resolve
from jepakit.optim import adamw
from jepakit.types import Weights, to_device

SETTINGS = (
    "data=world",
    "data.size=32",
    "data.length=24",
    "data.side=32",
    "data.batch_size=4",
    "data.workers=0",
    "tokenizer=patch",
    "tokenizer.patch=8",
    "masker=multiblock",
    "masker.min_keep=0",
    "encoder=vit",
    "encoder.width=24",
    "encoder.depth=1",
    "encoder.heads=3",
    "predictor=vit_predictor",
    "predictor.width=16",
    "predictor.depth=1",
    "predictor.heads=2",
    "anti_collapse=[ema]",
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "trainer.threads=1",
    "trainer.steps=3",
    "logger.tensorboard=false",
    "evaluate.every=0",
)


def settings(*more: str, without: str = "") -> list[str]:
    """The small model's settings, less those that begin with ``without``; later ones win over earlier ones, and one
    that has no value takes one away."""
    keys = {each.split("=")[0] for each in more}
    kept = (each for each in SETTINGS if each.split("=")[0] not in keys)
    every = [*(each for each in kept if not (without and each.startswith(without))), *more]
    return [each for each in every if not each.endswith("=")]


def config(*more: str) -> dict[str, Any]:
    """The small model's configuration."""
    return copy.deepcopy(_config(*more))


@functools.cache
def _config(*more: str) -> dict[str, Any]:
    return resolve(settings(*more))


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> Path:
    """A run of this command line, without pictures, below the folder that one is in."""
    monkeypatch.setattr("jepakit.train.report", lambda *_: [])
    assert main(["train", *words]) == 0
    return next(Path("runs").iterdir())


def trained(made: dict[str, Any]) -> tuple[Built, torch.optim.AdamW]:
    """A model after three steps on noise, at a learning rate that moves it."""
    built = build(made)
    optimizer = adamw(built.jepa, made["optim"] | {"lr": 1e-2})
    for step in range(3):
        advance(built, optimizer, step)
    return built, optimizer


def advance(built: Built, optimizer: torch.optim.AdamW, seed: int) -> float:
    """One step on noise that hangs on ``seed`` alone; its loss."""
    rng = torch.Generator().manual_seed(seed)
    masks = to_device(built.masker(built.grid, 4, rng), "cpu")
    losses = built.jepa([torch.randn(4, 3, 1, 32, 32, generator=rng)], masks)
    losses.total.backward()
    optimizer.step()
    optimizer.zero_grad()
    built.jepa.anti_collapse.after_step(built.jepa.backbone, 0)
    return losses.total.item()


def weights(made: dict[str, Any], built: Built, optimizer: torch.optim.AdamW | None = None) -> Weights:
    """What a run's file holds: copies, so that nothing that is done to them reaches the model."""
    names = {id(p): name for name, p in built.jepa.named_parameters()}
    state = optimizer.state.items() if optimizer else ()
    moments = {f"{names[id(p)]}/{key}": copied(value) for p, kept in state for key, value in kept.items()}
    backbones = {"target": states(built.jepa.target_backbone), "online": states(built.jepa.backbone)}
    return Weights(copy.deepcopy(made), backbones, states(built.jepa.predictor), moments, {"step": 3})


def states(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: copied(value) for name, value in module.state_dict().items()}


def copied(value: Tensor) -> Tensor:
    return value.detach().clone()
