"""A few real steps of a combination, on the built-in world, and what can be wrong with them."""

import functools
from dataclasses import asdict

import torch
from torch import nn

from jepakit import seeds
from jepakit.build import ask
from jepakit.data import open_source
from jepakit.data.loader import Loader
from jepakit.jepa import Jepa
from jepakit.matrix import BATCH, DATA, SIZE, Combination, Trial
from jepakit.options import DataOptions, ViewOptions
from jepakit.types import Batch, Losses

STEPS = 2
STILL = {"ema", "frozen", "stopgrad", "pixels"}
"""Strategies whose answers no gradient reaches."""

IDLE = {("joint", "pictures"): "backbone.tokenizer.clips", ("joint", "clips"): "backbone.tokenizer.pictures"}
"""What has nothing to do in a run on one kind of data."""


@functools.cache
def batches(data: str, views: int) -> list[Batch]:
    """One for each step."""
    options = {"name": "world", "length": STEPS * BATCH, **asdict(DataOptions(batch_size=BATCH, size=SIZE, workers=0))}
    source = open_source({**options, **DATA[data]})
    seen = {"all": asdict(ViewOptions(count=views))}
    return list(Loader(source, {**options, **DATA[data]}, seed=0, views=seen).batches(0, STEPS))


def trained(trial: Trial) -> str:
    """What was wrong with a few steps; empty where nothing was."""
    assert trial.built is not None
    (figure,) = trial.built.figures.values()
    jepa = figure.jepa.train()
    learning = {name: each for name, each in jepa.named_parameters() if each.requires_grad}
    optimizer, teacher = torch.optim.AdamW(learning.values(), lr=1e-3), _copy(jepa.target_backbone)
    for step, batch in enumerate(batches(trial.combination.data, figure.views)):
        masks = ask("masker", figure.masker, figure.grid, BATCH, seeds.generator("masks", step), step)
        optimizer.zero_grad()
        losses = jepa(batch.views, masks, batch.condition)
        losses.total.backward()
        if fault := _losses(losses, trial.combination) or _gradients(jepa, learning, trial.combination):
            return f"step {step}: {fault}"
        optimizer.step()
        jepa.after_step(step)
    return _teacher(jepa, teacher, trial.combination)


def _losses(losses: Losses, combination: Combination) -> str:
    if not torch.isfinite(losses.total):
        return f"the loss is {losses.total}: {losses.parts}"
    still = bool(STILL & set(combination.anti_collapse.split("+")))
    for _, guess, truth in losses.trace:
        if not guess.requires_grad:
            return "no gradient reaches the guess"
        if truth.requires_grad == still:
            return f"answers have gradients: {truth.requires_grad}"
    return ""


def _gradients(jepa: Jepa, learning: dict[str, nn.Parameter], combination: Combination) -> str:
    """All that is trained has a gradient, of which something is not zero; nothing else has one."""
    idle = IDLE.get((combination.tokenizer, combination.data), "nothing")
    for name, each in jepa.named_parameters():
        if name in learning and not name.startswith(idle):
            if each.grad is None or not torch.isfinite(each.grad).all():
                return f"the gradient of {name} is {each.grad}"
        elif each.grad is not None:
            return f"{name} has a gradient"
    if not any(each.grad is not None and each.grad.any() for each in learning.values()):
        return "all gradients are zero"
    return ""


def _teacher(jepa: Jepa, before: list[torch.Tensor], combination: Combination) -> str:
    """A slow one has moved, a frozen one has not; neither learns."""
    here = jepa.target_backbone
    if here is jepa.backbone:
        return ""
    if any(each.requires_grad for each in here.parameters()):
        return "the teacher learns"
    moved = any(not torch.equal(old, new) for old, new in zip(before, here.parameters(), strict=True))
    frozen = "frozen" in combination.anti_collapse.split("+")
    return "the teacher has moved" if moved and frozen else "" if moved or frozen else "the teacher has not moved"


def _copy(module: nn.Module) -> list[torch.Tensor]:
    return [each.detach().clone() for each in module.parameters()]
