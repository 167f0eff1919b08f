"""Norms of tensors of which every process may hold a shard: the same numbers, however they are spread out.

Squares are added up in 64 bits, so that the order in which shards are is not seen in the result. On a CPU a matrix's
rows, which no shard cuts, are added up in their own type first: that takes a third of the time.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

EPS = 1e-6
"""Added to a norm before anything is divided by it (torch's ``clip_grad_norm_`` has the same)."""


def local(tensor: Tensor) -> Tensor:
    """What of a tensor lies in this process: all of it, or its shard."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def everywhere(value: Tensor, like: Iterable[Tensor]) -> Tensor:
    """The sum, over the shards of tensors ``like`` these, of a ``value`` that was computed of each process's own."""
    for tensor in like:
        if isinstance(tensor, DTensor):
            for dim in _split(tensor):
                distributed.all_reduce(value, group=tensor.device_mesh.get_group(dim))
            break
    return value


def squares(tensors: Iterable[Tensor]) -> Float[Tensor, ""]:
    """The sum of the squares of all numbers, in 64 bits. Raises ValueError for no tensors."""
    tensors = list(tensors)
    sharded = [t for t in tensors if isinstance(t, DTensor)]
    whole = [t for t in tensors if not isinstance(t, DTensor)]
    if not tensors:
        raise ValueError("of no tensors there are no squares")
    total = torch.zeros((), dtype=torch.float64, device=local(tensors[0]).device)
    for some in (sharded, whole):
        if some:
            total += everywhere(_squares([local(t).detach() for t in some]), some)
    return total


def _squares(some: Sequence[Tensor]) -> Float[Tensor, ""]:
    if not all(t.device.type == "cpu" and t.dtype == torch.float32 for t in some):
        return torch.stack(torch._foreach_norm(some, 2, torch.float64)).square().sum()
    rows = [torch.linalg.vector_norm(t.flatten(1), dim=1) if t.ndim > 1 else t.flatten() for t in some]
    return torch.cat(rows).double().square().sum()


def norm(tensors: Iterable[Tensor]) -> Float[Tensor, ""]:
    """The norm of all numbers together. Raises ValueError for no tensors."""
    return squares(tensors).sqrt().float()


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Those that there are."""
    return [p.grad for p in parameters if p.grad is not None]


def clip(found: Sequence[Tensor], most: float, length: Float[Tensor, ""]) -> None:
    """Shorten gradients of which ``length`` is the norm to ``most``, where they are longer."""
    if found:
        torch._foreach_mul_([local(each) for each in found], (most / (length + EPS)).clamp(max=1.0))


def _split(tensor: DTensor) -> list[int]:
    """The dimensions of its mesh over which a tensor is cut; over others it is repeated."""
    return [dim for dim, placement in enumerate(tensor.placements) if placement.is_shard()]
