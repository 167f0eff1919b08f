"""AdamW as the papers use it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from jepakit.schedule import DECAYS, cosine


def adamw(model: nn.Module, options: Mapping[str, Any]) -> torch.optim.AdamW:
    """AdamW over what is trained; biases and vectors (norms, tokens' scales) have no weight decay.

    The group's key ``decays`` says whether the schedule of the weight decay applies. Source: released I-JEPA code.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = {name for name, p in trained if p.ndim <= 1 or name.endswith("bias")}
    groups = [
        {"params": [p for name, p in trained if name not in plain], "decays": True},
        {"params": [p for name, p in trained if name in plain], "decays": False, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(
        groups, lr=options["lr"], betas=tuple(options["betas"]), eps=options["eps"], weight_decay=0.0, fused=True
    )


def set_schedules(
    optimizer: torch.optim.Optimizer, options: Mapping[str, Any], step: int, steps: int, epoch_steps: float
) -> dict[str, float]:
    """Set learning rate and weight decay for ``step`` (from 0) of ``steps``; returns both."""
    total = int(steps * options["stretch"])
    warmup = int(options["warmup"] * epoch_steps)
    rate = DECAYS[options["decay"]]
    lr = rate(step, options["start_lr"], options["lr"], options["final_lr"], warmup, total)
    decay = cosine(step, options["weight_decay"], total)
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["weight_decay"] = decay if group["decays"] else 0.0
    return {"lr": lr, "weight_decay": decay}
