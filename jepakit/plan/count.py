"""One step of a configuration, counted: operations, tokens, parameters, memory. On a laptop, without its data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jepakit import seeds
from jepakit.branches import branches
from jepakit.build import Figure, ask, seen_shape, view_shapes
from jepakit.data.colour import How
from jepakit.jepa import Backbone, Branched, Jepa
from jepakit.parallel import blocks, units_of
from jepakit.plan.meta import AsOnGpu, backward, model
from jepakit.plan.meter import AGAIN, BACKWARD, Meter
from jepakit.scaling import Step
from jepakit.types import Mask, rows, to_device

DRAWS = 128
"""Batches of masks that are drawn; the step is that of the one whose tokens are nearest to their mean."""
FLOAT = 4
"""Bytes of a number of what is trained, and of all that hangs on it."""
STATES = {"adamw": 2, "lars": 1}
"""Numbers that an optimiser keeps for each one that is trained."""


@dataclass(frozen=True)
class Counts:
    """A micro-batch of every branch, in one process. Bytes and operations are those of all its samples.

    Attributes:
        samples: of all branches.
        forward: operations of the forward pass, by part: encoder, teacher, predictor, rest.
        backward: operations of the backward pass.
        again: operations that are done a second time: activation checkpointing, and features of a step whose
            micro-batches are put together.
        tokens: of a sample, summed over its views and branches: ``context`` tokens that the encoder sees, ``target``
            tokens that the teacher (or who answers) sees, ``predicted`` ones.
        parameters: numbers by part, those that are trained; ``teacher`` and other frozen ones.
        buffers: bytes of all that is kept and not trained by gradients, nor follows what is.
        gathered: numbers that a forward pass reads, by whether they are ``trained`` or ``frozen``: what processes that
            hold shards have to send each other.
        unit: parameters of the largest block, which processes that hold shards put together at once.
        state: bytes of the optimiser.
        activation_bytes: the most that is held beside the model and gradients of its parameters; of several branches,
            which come one after the other, that of the largest one.
        copy_bytes: 16-bit copies of what is trained, held meanwhile; none in fp32.
        passes: backward passes that a micro-batch of every branch comes to in a step: one where they take turns.
        turns: branches that take turns, a step each; 1 where a step is of all of them.
    """

    samples: int
    forward: Mapping[str, int]
    backward: int
    again: int
    tokens: Mapping[str, int]
    parameters: Mapping[str, int]
    buffers: int
    gathered: Mapping[str, int]
    unit: int
    state: int
    activation_bytes: int
    copy_bytes: int
    passes: int
    turns: int

    @property
    def flops_forward(self) -> int:
        """Of all parts."""
        return sum(self.forward.values())

    @property
    def flops_backward(self) -> int:
        """Without what is computed again."""
        return self.backward

    @property
    def flops(self) -> int:
        """Model FLOPs, forward and backward: what is computed again does not count."""
        return self.flops_forward + self.backward

    @property
    def trained(self) -> int:
        """Numbers that are trained."""
        return sum(count for part, count in self.parameters.items() if part not in ("teacher", "frozen"))

    @property
    def frozen(self) -> int:
        """Numbers that follow, or stand still."""
        return sum(self.parameters.values()) - self.trained

    def numbers(self) -> dict[str, Any]:
        """All of it as plain data."""
        sums = {name: getattr(self, name) for name in ("flops_forward", "flops", "trained", "frozen")}
        return asdict(self) | sums


def step(config: Mapping[str, Any], batch: int | None = None) -> Counts:
    """Count a step of a resolved configuration; ``batch`` takes the place of every branch's ``data.batch_size``.

    The data need not be there. Raises ConfigError where no model can be made of it.
    """
    if batch is not None:
        config = _resized(config, batch)
    built, each = model(config), branches(config)
    meter = Meter()
    for module, part in _parts(built.jepa).items():
        meter.watch(module, part)
    for p in built.jepa.parameters():
        p.grad = torch.empty_like(p) if p.requires_grad else None
    together = micro_batches(config)
    found = [_branch(own, built.figures[name], together, meter) for name, own in each.items()]
    again = meter.flops.pop(AGAIN, 0) + sum(one["again"] for one in found)
    trained = sum(p.numel() for p in built.jepa.parameters() if p.requires_grad)
    every = [block for unit in units_of(built.jepa) for block in blocks(unit)]
    turns = len(found) if config["trainer"]["alternate"] else 1
    return Counts(
        samples=sum(own["data"]["batch_size"] for own in each.values()),
        backward=meter.flops.pop(BACKWARD, 0),
        forward=dict(meter.flops),
        again=again,
        tokens={name: sum(one["tokens"][name] for one in found) for name in found[0]["tokens"]},
        parameters=_parameters(built.jepa),
        buffers=sum(buffer.nbytes for buffer in built.jepa.buffers()),
        gathered={"trained": meter.read.total() - meter.read["teacher"], "frozen": meter.read["teacher"]},
        unit=max(map(numbers, every), default=0),
        state=STATES[config["optim"]["name"]] * FLOAT * trained,
        activation_bytes=max(one["most"] for one in found),
        copy_bytes=max(one["copies"] for one in found),
        passes=len(found) // turns,
        turns=turns,
    )


def _resized(config: Mapping[str, Any], batch: int) -> dict[str, Any]:
    def data(node: Any) -> Any:
        return node and {**node, "batch_size": batch}

    own = {name: {**each, "data": data(each.get("data"))} for name, each in (config.get("branches") or {}).items()}
    return {**config, "data": data(config["data"]), "branches": own}


def micro_batches(config: Mapping[str, Any]) -> tuple[int, int]:
    """Of a branch in a step: those that a process looks at one after the other, and the processes that do."""
    world = config["trainer"].get("devices") or 1
    return Step.of(config, world).accumulate, world


def _branch(config: Mapping[str, Any], figure: Figure, together: tuple[int, int], meter: Meter) -> dict[str, Any]:
    """Forward and backward of one micro-batch of a branch, of as many as a step puts ``together``."""
    jepa, size = figure.jepa, config["data"]["batch_size"]
    statistics = getattr(jepa.anti_collapse, "statistics", False)
    shapes = [*view_shapes(config, jepa.backbone), *[seen_shape(config)] * figure.views][: figure.views]
    views = [torch.empty((size, *shape), device="meta") for shape in shapes]
    condition = [torch.empty(size, len(How._fields), device="meta") for _ in views]
    masks = _typical(config, figure, size * math.prod(together) if statistics else size)
    masks = to_device(rows(masks, slice(0, size)), "meta")  # statistics: those of a step are drawn as of one batch
    before, meter.most, meter.live = meter.flops.copy(), 0, 0
    gpu = AsOnGpu(config["trainer"]["precision"], meter.count)
    with meter, gpu:
        total = jepa(views, masks, condition).total
        forward = meter.flops - before
        copies = gpu.forget()
        meter.backward = True
        backward(total)
        meter.backward = False
    return {
        "again": forward.total() if statistics and together[0] > 1 else 0,
        "tokens": _tokens(jepa.backbone, masks, views),
        "most": meter.most - copies,
        "copies": copies,
    }


def _typical(config: Mapping[str, Any], figure: Figure, size: int) -> list[Mask]:
    """Masks of a batch that has about as many tokens of each kind as batches have on average."""
    who = f"masker {config['masker']['name']!r}"
    draws = [
        ask(who, figure.masker, figure.grid, size, seeds.generator("plan", config["seed"], number))
        for number in range(DRAWS)
    ]
    views = [torch.empty((1, *seen_shape(config)), device="meta")] * figure.views
    tokens = [_tokens(figure.jepa.backbone, masks, views) for masks in draws]
    mean = {name: sum(each[name] for each in tokens) / DRAWS for name in tokens[0]}
    off = [sum(abs(each[name] / mean[name] - 1) for name in mean) for each in tokens]
    return draws[off.index(min(off))]


def numbers(module: nn.Module) -> int:
    """How many there are in a module's parameters."""
    return sum(p.numel() for p in module.parameters())


def _tokens(backbone: Backbone, masks: Sequence[Mask], views: Sequence[Tensor]) -> dict[str, int]:
    """Of a sample: what is seen once is counted once."""
    sizes = [backbone.grid(view).size for view in views]
    contexts, targets, predicted = {}, {}, 0
    for mask in masks:
        whole = sizes[mask.context_view]
        contexts[mask.context_view, id(mask.context)] = whole if mask.context is None else mask.context.shape[1]
        targets |= {view: sizes[view] for view in mask.target_views}
        predicted += sizes[mask.target_views[0]] if mask.target is None else mask.target.shape[1:].numel()
    return {"context": sum(contexts.values()), "target": sum(targets.values()), "predicted": predicted}


def _parts(jepa: Jepa | Branched) -> dict[nn.Module, str]:
    """What is counted by itself: the units of a model, by the part that they belong to."""
    names = {module: name for name, module in jepa.named_modules()}
    return {unit: _part(names[unit], unit) for unit in units_of(jepa)}


def _part(name: str, unit: nn.Module) -> str:
    last = name.rpartition(".")[2]
    if last in ("backbone", "predictor"):
        return {"backbone": "encoder"}.get(last, last)
    return "rest" if any(p.requires_grad for p in unit.parameters()) else "teacher"


def _parameters(jepa: Jepa | Branched) -> dict[str, int]:
    """Numbers by part; those of a part that is trained and do not learn are ``frozen``."""
    found: dict[str, int] = {}
    homes = {p: part for module, part in _parts(jepa).items() for p in module.parameters()}
    for p in jepa.parameters():
        part = homes.get(p, "rest")
        part = part if p.requires_grad or part == "teacher" else "frozen"
        found[part] = found.get(part, 0) + p.numel()
    return found
