"""The linear probe as the papers train it: many heads at once on the same frozen features, the best on held-out ones.

A head is a linear layer on the pooled features of one layer or of several, with a batch norm before it or without, at
one learning rate and weight decay. Heads of the same input share it; nothing else.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit.evaluate.features import Extracted, split
from jepakit.evaluate.frozen import POOLED, Layer, cell, check, refuse_share
from jepakit.evaluate.protocol import not_negative, positive
from jepakit.seeds import generator

INIT_STD = 0.01
"""Of the heads' weights, as in MoCo and VISSL; biases begin at nought."""

TRUST = 1e-3
"""LARS's trust coefficient, the same in all that was released."""


@dataclass(frozen=True)
class Settings:
    """What a linear score depends on, beside the features. Each of the first two goes with each, with each rate and
    each weight decay; ``lr_batch`` is the batch that rates are stated for, they grow with it."""

    layers: tuple[Layer, ...]
    norms: tuple[Literal["none", "batch"], ...]
    optimizer: Literal["lars", "sgd"]
    lrs: tuple[float, ...]
    weight_decays: tuple[float, ...]
    lr_batch: int
    batch_size: int
    epochs: int
    decay: Literal["step", "cosine"]
    decay_every: int
    momentum: float
    held_out: float
    seed: int
    FACTS: ClassVar[dict[str, Any]] = POOLED

    def __post_init__(self) -> None:
        positive(self, "lrs", "lr_batch", "batch_size", "epochs", "decay_every")
        refuse_share(self.held_out)
        not_negative(self, "weight_decays")


class Head(NamedTuple):
    """What tells one head from another."""

    layer: Layer
    norm: str
    lr: float
    weight_decay: float


def linear(
    fit: Extracted, test: Extracted, classes: int, settings: Settings, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """Accuracy of the best head: the one that is right most often on a held-out part of ``fit``, learned on all of it.

    Raises DataError for features that are not finite or belong to fewer than two classes.
    """
    check(fit, test)
    heads = grid(settings, fit)
    part, held = (fit.part(rows) for rows in split(len(fit.y), 1 - settings.held_out))
    tried: list[dict[str, Any]] = []
    if len(heads) > 1 and len(part.y.unique()) > 1:
        scores = accuracies(learn(part, classes, heads, settings, device), held, device)
        tried = [head._asdict() | {"held_out": score} for head, score in zip(heads, scores, strict=True)]
    best = max(range(len(heads)), key=lambda i: tried[i]["held_out"]) if tried else 0
    (score,) = accuracies(learn(fit, classes, heads[best : best + 1], settings, device), test, device)
    steps = settings.epochs * math.ceil(len(fit.y) / settings.batch_size)
    return cell(score, fit, test) | heads[best]._asdict() | {"steps": steps, "tried": tried}


def grid(settings: Settings, fit: Extracted) -> list[Head]:
    """All heads. Where features have one layer, several layers are no other input."""
    s = settings
    layers = s.layers if len(fit.widths) > 1 else s.layers[:1]
    return [Head(*each) for each in product(layers, s.norms, s.lrs, s.weight_decays)]


class Group(nn.Module):
    """Heads of the same input, one after the other."""

    def __init__(self, heads: Sequence[Head], width: int, classes: int, seed: int):
        super().__init__()
        self.heads = list(heads)
        draw = torch.randn(classes, width, generator=generator("linear", seed, heads[0].layer)) * INIT_STD
        # one parameter for each head: rates are each head's own
        self.weight = nn.ParameterList(nn.Parameter(draw.clone()) for _ in heads)
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(classes)) for _ in heads)
        batch = nn.BatchNorm1d(width, affine=False, momentum=None)  # None: the mean over all steps
        self.norm = batch if heads[0].norm == "batch" else nn.Identity()

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B H classes"]:
        found = F.linear(self.norm(x), torch.cat(list(self.weight)), torch.cat(list(self.bias)))
        return found.unflatten(1, (len(self.heads), -1))


def learn(
    part: Extracted, classes: int, heads: Sequence[Head], settings: Settings, device: torch.device | str
) -> list[Group]:
    """All heads, after as many epochs as are asked for; each as if there were no other."""
    s = settings
    size = min(s.batch_size, len(part.y))
    alike: dict[tuple[Layer, str], list[Head]] = {}
    for head in heads:
        alike.setdefault((head.layer, head.norm), []).append(head)
    groups = [Group(own, part.seen(layer).x.shape[1], classes, s.seed) for (layer, _), own in alike.items()]
    groups = [group.to(device).train() for group in groups]
    optimizer = _optimizer(groups, s, size / s.lr_batch)
    per_epoch = sum(1 for rows in torch.arange(len(part.y)).split(size) if len(rows) > 1) or 1
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step / per_epoch, s))
    inputs = {layer: part.seen(layer).x for layer in {head.layer for head in heads}}
    for rows in _order(len(part.y), size, s):
        y = part.y[rows].to(device)
        for group in groups:
            logits = group(inputs[group.heads[0].layer][rows].to(device))
            F.cross_entropy(logits.flatten(0, 1), y.repeat_interleave(logits.shape[1]), reduction="sum").div(
                len(rows)
            ).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return groups


def rate(epoch: float, settings: Settings) -> float:
    """The share of the learning rate at a point of training."""
    if settings.decay == "cosine":
        return (1 + math.cos(math.pi * min(epoch / settings.epochs, 1.0))) / 2
    return 0.1 ** int(epoch / settings.decay_every + 1e-9)


@torch.no_grad()
def accuracies(groups: Sequence[Group], part: Extracted, device: torch.device | str) -> list[float]:
    """The share of samples that each head tells right, in the order of the heads; what is not finite is wrong."""
    found = []
    for group in groups:
        x, right = part.seen(group.heads[0].layer).x, torch.zeros(len(group.heads))
        for rows in torch.arange(len(part.y)).split(4096):
            logits = group.eval()(x[rows].to(device)).cpu()
            good = (logits.argmax(2) == part.y[rows][:, None]) & logits.isfinite().all(2)
            right += good.sum(0)
        found += (right / len(part.y)).tolist()
    return found


def _optimizer(groups: Sequence[Group], settings: Settings, scale: float) -> torch.optim.Optimizer:
    """Biases have no weight decay, and under LARS a rate that is not adapted."""
    found = []
    for group in groups:
        for head, weight, bias in zip(group.heads, group.weight, group.bias, strict=True):
            lr = head.lr * scale
            found.append({"params": [weight], "lr": lr, "weight_decay": head.weight_decay, "always_adapt": True})
            found.append({"params": [bias], "lr": lr, "weight_decay": 0.0, "always_adapt": False})
    if settings.optimizer == "sgd":
        plain = [{key: value for key, value in each.items() if key != "always_adapt"} for each in found]
        return torch.optim.SGD(plain, lr=0.0, momentum=settings.momentum)
    from timm.optim import Lars  # half of timm, for those who need it

    return Lars(found, lr=0.0, momentum=settings.momentum, trust_coeff=TRUST, eps=0.0)


def _order(count: int, size: int, settings: Settings) -> Iterator[Int[Tensor, "n"]]:
    """The samples of every batch: a permutation of (seed, epoch)."""
    for epoch in range(settings.epochs):
        order = torch.randperm(count, generator=generator("linear", settings.seed, "order", epoch))
        yield from (rows for rows in order.split(size) if len(rows) > 1 or count == 1)  # of one there is no batch norm
