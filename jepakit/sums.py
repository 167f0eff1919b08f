"""Sums over processes on CPUs, whose last bits do not hang on how the numbers are spread out.

gloo adds up in an order that depends on where in a buffer a number lies, so that gradients in one long buffer (DDP) and
in shards (FSDP2) would differ by rounding. Here each number is added up in pairs of processes, then pairs of pairs:
it costs what an all-reduce costs. On GPUs sums are NCCL's.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed


def pairwise(pieces: Float[Tensor, "W n"]) -> Float[Tensor, "n"]:
    """The sum over W: neighbours first, then neighbouring pairs, and so on."""
    while len(pieces) > 1:
        even = len(pieces) // 2 * 2
        pieces = torch.cat([pieces[0:even:2] + pieces[1:even:2], pieces[even:]])
    return pieces[0]


def reduce_scatter(x: Float[Tensor, "n"], group: Any = None) -> Float[Tensor, "m"]:
    """This process's part, one of W equal ones, of the sum over processes."""
    pieces = torch.empty_like(x)
    distributed.all_to_all_single(pieces, x, group=group)
    return pairwise(pieces.view(distributed.get_world_size(group), -1))


def all_reduce(x: Float[Tensor, "n"]) -> None:
    """Put the sum over processes in place of each one's own."""
    world = distributed.get_world_size()
    padded = torch.nn.functional.pad(x, (0, -len(x) % world))
    part = reduce_scatter(padded)
    distributed.all_gather_into_tensor(padded, part)
    x.copy_(padded[: len(x)])


class ReduceScatter:
    """The same as FSDP2 calls it, which says by ``op`` whether a mean is meant."""

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """What is to be reduced is written there."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False
    ) -> None:
        """Reduce at once."""
        found = reduce_scatter(input_tensor.flatten(), group)
        mean = op == distributed.ReduceOp.AVG
        output_tensor.copy_((found / distributed.get_world_size(group) if mean else found).view_as(output_tensor))
