"""AdamW and LARS as the papers use them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from jepakit.schedule import DECAYS, cosine

TRUST = 1e-3
"""LARS's trust coefficient, the same in all that was released."""


def adamw(model: nn.Module, options: Mapping[str, Any]) -> torch.optim.AdamW:
    """AdamW over what is trained; biases and vectors (norms, tokens' scales) have no weight decay.

    The group's key ``decays`` says whether the schedule of the weight decay applies. Source: released I-JEPA code.
    """
    return torch.optim.AdamW(
        _groups(model),
        lr=options["lr"],
        betas=tuple(options["betas"]),
        eps=options["eps"],
        weight_decay=0.0,
        fused=True,
    )


def lars(model: nn.Module, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """LARS (You et al., arXiv 1708.03888) as VICReg's released code has it, by timm's.

    Biases and vectors have no weight decay and a rate that is not adapted. The others' is adapted to the norm of
    gradient and weight decay together; timm adds up the two norms, so the decay is part of the gradient before.
    """
    from timm.optim import Lars  # half of timm, for the few who need it

    groups = [{**group, "always_adapt": group["decays"]} for group in _groups(model)]
    optimizer = Lars(groups, lr=options["lr"], momentum=options["momentum"], trust_coeff=TRUST, eps=0.0)
    optimizer.register_step_pre_hook(_decay)
    return optimizer


OPTIMIZERS: dict[str, Callable[[nn.Module, Mapping[str, Any]], torch.optim.Optimizer]] = {"adamw": adamw, "lars": lars}
"""What ``optim.name`` can be."""


def make_optimizer(model: nn.Module, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimiser that ``optim.name`` names, over what is trained."""
    return OPTIMIZERS[options["name"]](model, options)


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """What is trained: what has weight decay, and biases and vectors, which have none."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = {name for name, p in trained if p.ndim <= 1 or name.endswith("bias")}
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in trained if name not in plain], "decays": True},
        {"params": [p for name, p in trained if name in plain], "decays": False, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _decay(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Move the weight decay of a step into its gradient.

    Not at a rate of 0: torch makes an empty state by such a step without gradients, and it has to be empty.
    """
    for group in optimizer.param_groups:
        decay, group["weight_decay"] = group["weight_decay"], 0.0
        if decay and group["lr"]:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.add_(p.detach(), alpha=decay)


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
