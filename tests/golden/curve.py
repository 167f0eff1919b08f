"""Twenty steps of a tiny I-JEPA on the built-in world, and the file that their losses are kept in."""

from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from jepakit.config import resolve
from jepakit.train import Trainer

FILE = Path(__file__).parent / "ijepa_tiny_cpu.txt"
STEPS = 20
SETTINGS = (
    "seed=0",
    "data=world",
    "data.length=64",
    "data.side=32",
    "data.size=32",
    "data.batch_size=8",
    "data.workers=0",
    "data.crop_scale=[1.0,1.0]",  # whole pictures: resized ones differ by a bit here and there between processors
    "data.crop_ratio=[1.0,1.0]",
    "tokenizer=patch",
    "tokenizer.patch=4",
    "tokenizer.init_std=0.12",
    "masker=multiblock",
    "masker.min_keep=4",
    "encoder=vit",
    "encoder.width=48",
    "encoder.depth=2",
    "encoder.heads=3",
    "predictor=vit_predictor",
    "predictor.width=24",
    "predictor.depth=2",
    "predictor.heads=3",
    "anti_collapse=[ema]",
    "distance=smooth_l1",
    "optim.lr=2e-3",
    "optim.start_lr=5e-4",
    "optim.warmup=0.5",
    f"trainer.steps={STEPS}",
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "trainer.threads=1",
    "logger.tensorboard=false",
    "evaluate.every=0",
)
"""All that the losses depend on and that a default could change."""


def losses(folder: Path) -> list[float]:
    """The loss of each step, by the trainer that every run goes through."""
    with mock.patch.object(nn.init, "trunc_normal_", _normal):
        trainer = Trainer(resolve(SETTINGS), folder)
    steps, found = trainer.stream(0, STEPS), []
    for trainer.step in range(STEPS):
        values = trainer.train_step(next(steps))
        assert values is not None, "a step was skipped"
        found.append(float(values["loss"]))
    steps.close()
    trainer.log.close()
    return found


def _normal(tensor: Tensor, std: float, **bounds: Any) -> Tensor:
    """For the truncated one, which versions of PyTorch draw each in its way: its bounds are out of reach here."""
    assert bounds == {"a": -2.0, "b": 2.0} and std <= 0.12
    return nn.init.normal_(tensor, std=std)


def read() -> tuple[str, list[float]]:
    """The version of torch that the file was written with, and its losses."""
    header, *lines = FILE.read_text().splitlines()
    return header.split()[-1], [float.fromhex(line.split()[1]) for line in lines]


def write(found: list[float]) -> None:
    """Step, loss to the last bit, and loss to be read by people."""
    lines = [f"{step:2} {loss.hex()} {loss:.6f}" for step, loss in enumerate(found)]
    FILE.write_text("\n".join([f"# torch {torch.__version__}", *lines]) + "\n")
