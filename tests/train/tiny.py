"""The smallest run there is, and what it left behind."""

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepakit import checkpoint
from jepakit.build import build
from jepakit.optim import make_optimizer
from jepakit.options import DataOptions, EvaluateOptions, LoggerOptions, OptimOptions, StartOptions, TrainerOptions

EPOCH = 5
"""Micro-batches in an epoch."""
STEPS = 12

BASE: dict[str, Any] = {
    "seed": 0,
    "recipe": None,
    "run": None,
    "distance": "smooth_l1",
    "data": {"name": "world", "length": 8 * EPOCH, "side": 16}
    | asdict(DataOptions(batch_size=8, size=16, workers=0, flip=True)),
    "tokenizer": {"name": "patch", "patch": 4},
    "masker": {"name": "multiblock", "min_keep": 0},
    "encoder": {"name": "vit", "width": 32, "depth": 1, "heads": 2, "drop_path": 0.1},
    "predictor": {"name": "vit_predictor", "width": 16, "depth": 1, "heads": 2},
    "anti_collapse": {"ema": {"name": "ema"}},
    "branches": {},
    "optim": asdict(OptimOptions(warmup=1.0)),
    "trainer": asdict(TrainerOptions(steps=STEPS, precision="fp32", device="cpu", threads=1, log_every=1)),
    "start": asdict(StartOptions()),
    "logger": asdict(LoggerOptions(tensorboard=False)),
    "evaluate": asdict(EvaluateOptions(every=0, samples=32, k=3)),
    "published": [],
}
FREE = ("images_per_second", "images_per_second_rank", "data_wait", "memory_gib")
"""What of a line of the log hangs on the clock."""


def config(**changes: Any) -> dict[str, Any]:
    """The base with settings changed: ``config(trainer__steps=3, seed=1)``."""
    made = copy.deepcopy(BASE)
    for path, value in changes.items():
        node, _, key = path.rpartition("__")
        assert not node or key in made[node] or node == "data", path
        (made[node] if node else made)[key] = value
    return made


def lines(folder: Path) -> list[dict[str, Any]]:
    """A run's log.jsonl, less what hangs on the clock."""
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in FREE} for line in found]


def saved(made: dict[str, Any], folder: Path) -> tuple[int, dict[str, Tensor]]:
    """The step of a run's newest checkpoint and every tensor in it: parameters, teacher, optimiser's state."""
    jepa = build(made, made["trainer"]["steps"]).jepa.train()
    optimizer = make_optimizer(jepa, made["optim"])
    step = checkpoint.restore(folder, jepa, optimizer)
    names = {id(parameter): name for name, parameter in jepa.named_parameters()}
    moments = {f"{names[id(p)]}.{key}": v for p, state in optimizer.state.items() for key, v in state.items()}
    return step, {**jepa.state_dict(), **moments}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Equal to the last bit, and not empty."""
    return bool(one) and one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def checkpoints(folder: Path) -> list[Path]:
    """Those of a run, oldest first."""
    return sorted((folder / checkpoint.FOLDER).iterdir())
