"""AdamW and LARS as the papers use them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from jepakit.distributed import place
from jepakit.schedule import DECAYS, cosine

TRUST = 1e-3
"""LARS's trust coefficient, the same in all that was released."""


def adamw(model: nn.Module, options: Mapping[str, Any], scales: Mapping[str, float] = {}) -> torch.optim.AdamW:  # noqa: B006
    """AdamW over what is trained; biases and vectors (norms, tokens' scales) have no weight decay.

    The group's key ``decays`` says whether the schedule of the weight decay applies. ``scales`` are those of the
    learning rate, by the beginning of parameters' names. Source: released I-JEPA code.
    """
    groups = _groups(model, scales)
    # torch's fused one rounds the last few numbers of a tensor otherwise on CPUs: shards would not be what a whole is.
    whole = place().world == 1 or any(p.is_cuda for group in groups for p in group["params"])
    return torch.optim.AdamW(
        groups,
        lr=options["lr"],
        betas=tuple(options["betas"]),
        eps=options["eps"],
        weight_decay=0.0,
        fused=whole,
    )


def lars(model: nn.Module, options: Mapping[str, Any], scales: Mapping[str, float] = {}) -> torch.optim.Optimizer:  # noqa: B006
    """LARS (You et al., arXiv 1708.03888) as VICReg's released code has it, by timm's.

    Biases and vectors have no weight decay and a rate that is not adapted. The others' is adapted to the norm of
    gradient and weight decay together; timm adds up the two norms, so the decay is part of the gradient before.
    """
    from timm.optim import Lars  # half of timm, for the few who need it

    groups = [{**group, "always_adapt": group["decays"]} for group in _groups(model, scales)]
    optimizer = Lars(groups, lr=options["lr"], momentum=options["momentum"], trust_coeff=TRUST, eps=0.0)
    optimizer.register_step_pre_hook(_decay)
    return optimizer


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": adamw, "lars": lars}
"""What ``optim.name`` can be."""


def make_optimizer(
    model: nn.Module,
    options: Mapping[str, Any],
    scales: Mapping[str, float] = {},  # noqa: B006
) -> torch.optim.Optimizer:
    """The optimiser that ``optim.name`` names, over what is trained; ``scales`` are those of the learning rate, by the
    beginning of parameters' names."""
    return OPTIMIZERS[options["name"]](model, options, scales)


def _groups(model: nn.Module, scales: Mapping[str, float]) -> list[dict[str, Any]]:
    """What is trained, by the scale of its rate: what has weight decay, then biases and vectors, which have none."""
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            scale = next((scale for start, scale in scales.items() if name.startswith(start)), 1.0)
            found.setdefault((scale, p.ndim > 1 and not name.endswith("bias")), []).append(p)
    ordered = sorted(found.items(), key=lambda item: (item[0][0] != 1.0, item[0][0], not item[0][1]))
    groups: list[dict[str, Any]] = []
    for (scale, decays), params in ordered:
        plain, scaled = {} if decays else {"weight_decay": 0.0}, {"scale": scale} if scales else {}
        groups.append({"params": params, "decays": decays, **plain, **scaled})
    return groups


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
        group["lr"] = lr * group.get("scale", 1.0)
        group["weight_decay"] = decay if group["decays"] else 0.0
    return {"lr": lr, "weight_decay": decay}
