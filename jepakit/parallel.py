"""One model over several processes, by one of three strategies over one device mesh.

    ddp     every process holds all of it; gradients are averaged while the backward pass goes on
    fsdp2   parameters, gradients, optimiser and teacher lie in shards, one a process; blocks are put together when used
    hsdp    the same within groups of processes; gradients are then averaged over the groups

Student, predictor, and every teacher and branch are sharded by one plan, block by block, so that a teacher's shards
lie where the student's do and follow them without a word between processes. Parameters are the same to the last bit
whichever is chosen (on CPUs, and where a step is one micro-batch in each process). They stay in 32 bits; half precision
is a matter of autocast.

DDP is written here because torch's wants one forward pass of one module for each backward pass, and a step here is as
many of them as it has branches and micro-batches.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from jepakit import sums
from jepakit.distributed import place
from jepakit.errors import ConfigError
from jepakit.jepa import Branched, Jepa, figures_of

SHARDS = ("fsdp2", "hsdp")
"""Those that need a group even of one process."""
BUCKET = 25 * 2**20
"""Bytes of gradients that are exchanged at once (torch's DDP has the same)."""
METHODS = ("represent",)
"""What modules are called by, beside their forward."""


class Alone:
    """One process: nothing is shared."""

    @contextlib.contextmanager
    def exchanging(self, figure: nn.Module) -> Iterator[Callable[[bool], None]]:
        """Around the backward passes of one figure in one step: before each the given function is told whether it is
        the last. Afterwards gradients are means over processes, added to those that were there before."""
        yield lambda last: None

    def whole(self, model: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
        """The model with all parameters, in the first process: here the model itself."""
        return model


class Averaged(Alone):
    """DDP: each process holds all parameters, and gradients are averaged over processes.

    They are exchanged in buckets, last layers first, each as soon as the last backward pass has filled it and those
    before it: in every process in the same order.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.buckets: list[list[nn.Parameter]] = []
        self.waiting: list[set[nn.Parameter]] = []
        self.sent: list[tuple[Any, Tensor]] = []  # the transfer (None: done), and what is transferred
        for p in self.parameters:
            p.register_post_accumulate_grad_hook(self.ready)

    @contextlib.contextmanager
    def exchanging(self, figure: nn.Module) -> Iterator[Callable[[bool], None]]:
        """See ``Alone``. What is sent is the figure's own share: what others have left is put aside meanwhile."""
        inside = set(figure.parameters())
        mine = [p for p in self.parameters if p in inside]
        before = [(p, p.grad) for p in mine if p.grad is not None]
        for p, _ in before:
            p.grad = None
        self.buckets = list(buckets(mine))

        def begins(last: bool) -> None:
            self.waiting = [set(bucket) for bucket in self.buckets] if last else []

        yield begins
        self.finish()
        for p, gradient in before:
            p.grad = gradient if p.grad is None else p.grad + gradient

    def ready(self, p: nn.Parameter) -> None:
        """A gradient was added to; in the last backward pass it is complete."""
        for bucket in self.waiting:
            bucket.discard(p)
        while len(self.sent) < len(self.waiting) and not self.waiting[len(self.sent)]:
            self.send()

    def send(self) -> None:
        """Begin to exchange the next bucket, and which gradients there are: what has none here may have one elsewhere,
        and what has none anywhere keeps none."""
        bucket = self.buckets[len(self.sent)]
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        there = torch.tensor([p.grad is not None for p in bucket]).to(pieces[0])
        flat = torch.cat([*(piece.flatten() for piece in pieces), there])
        self.sent.append((distributed.all_reduce(flat, async_op=True) if flat.is_cuda else sums.all_reduce(flat), flat))

    def finish(self) -> None:
        """Send what is left, wait for all of it, and put means in the place of gradients."""
        while len(self.sent) < len(self.buckets):
            self.send()
        for (work, flat), bucket in zip(self.sent, self.buckets, strict=True):
            if work is not None:
                work.wait()
            *pieces, there = flat.split([*(p.numel() for p in bucket), len(bucket)])
            for p, piece, has in zip(bucket, pieces, there.tolist(), strict=True):
                p.grad = piece.div_(place().world).view_as(p) if has else None
        self.waiting, self.sent = [], []


class Sharded(Averaged):
    """FSDP2 and HSDP: units that are put together when they are used, and whose gradients are exchanged after each
    backward pass, so that no more than shards of them are kept. What no unit holds is averaged."""

    copy: nn.Module | None = None

    def whole(self, model: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
        """In the first process one that is made by ``make``, with all parameters; elsewhere the model as it is."""
        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if not place().first:
            return model
        self.copy = self.copy or make()
        self.copy.load_state_dict(state)
        return self.copy


def buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The trained ones, last ones first, in groups of one type and about ``BUCKET`` bytes."""
    bucket: list[nn.Parameter] = []
    for p in reversed([p for p in parameters if p.requires_grad]):
        if bucket and (p.dtype != bucket[0].dtype or sum(each.nbytes for each in bucket) + p.nbytes > BUCKET):
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket


def parallelise(model: Jepa | Branched, strategy: str, device: torch.device, shard: int | None = None) -> Alone:
    """Spread a model that is on its ``device`` over the processes that have joined.

    Args:
        model: the run's.
        strategy: ddp, fsdp2 or hsdp.
        shard: processes of one group of hsdp.

    Raises:
        ConfigError: groups that the processes cannot be divided into.
    """
    if strategy == "ddp":
        if place().world == 1:
            return Alone()
        for unit in units_of(model) if device.type == "cpu" else ():
            for module in (unit, *blocks(unit)):
                module.register_forward_pre_hook(gathered, with_kwargs=True)
        return Averaged(model.parameters())
    mesh, units = device_mesh(device, strategy, shard), units_of(model)
    for unit in units:
        for block in blocks(unit):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)  # or a teacher's root would stay put together
        for module in unit.modules() if device.type == "cpu" else ():
            if isinstance(module, FSDPModule):
                module.set_custom_reduce_scatter(sums.ReduceScatter())
        for name in METHODS:
            if hasattr(unit, name):
                register_fsdp_forward_method(unit, name)
    return Sharded(p for p in model.parameters() if not isinstance(p, DTensor))


def device_mesh(device: torch.device, strategy: str, shard: int | None) -> DeviceMesh:
    """The processes in a row; of hsdp groups of ``shard`` that lie side by side. Raises ConfigError."""
    world = place().world
    if strategy == "fsdp2":
        return init_device_mesh(device.type, (world,), mesh_dim_names=("shard",))
    shard = shard or place().near
    if world % shard:
        raise ConfigError(f"trainer.shard={shard}: {world} processes are no multiple of it")
    return init_device_mesh(device.type, (world // shard, shard), mesh_dim_names=("replicate", "shard"))


def units_of(model: Jepa | Branched) -> list[Any]:
    """What is sharded by itself: backbone, predictors, and the modules that strategies hold, teachers among them."""
    found: dict[nn.Module, None] = {}
    for figure in figures_of(model).values():
        held = (child for strategy in figure.anti_collapse.strategies.values() for child in strategy.children())
        found |= dict.fromkeys(unit for unit in (figure.backbone, figure.predictor, *held) if has_parameters(unit))
    return list(found)


def blocks(unit: nn.Module) -> Iterator[nn.Module]:
    """The blocks of every stack in a module, those that have parameters."""
    for module in unit.modules():
        for block in getattr(module, "blocks", ()):
            if has_parameters(block):
                yield block


def gathered(unit: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """What a unit or block is given, so that its gradients are added up inside of it before those from elsewhere join
    them, which is what FSDP2 does: sums in another order are rounded otherwise."""
    given, spec = tree_flatten((args, kwargs))
    found = [number for number, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
    for number, x in zip(found, _AtOnce.apply(*(given[number] for number in found)) if found else (), strict=True):
        given[number] = x
    return tree_unflatten(given, spec)


class _AtOnce(torch.autograd.Function):
    """Tensors as they are; their gradients go on when all are there."""

    @staticmethod
    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tensors

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return gradients


def has_parameters(module: nn.Module) -> bool:
    """Whether there is anything to share."""
    return next(module.parameters(), None) is not None


def laid_out(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same in every process, spread out like another."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
