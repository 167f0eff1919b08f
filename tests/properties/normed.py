"""One of the processes that share a batch normalisation: ``python -m tests.properties.normed RANK FOLDER``."""

import sys
from collections.abc import Callable

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, distributed, nn

from jepakit.batchnorm import synchronise

SHARES, STEPS = (3, 5), 2
"""Samples of each process, which differ."""
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "plain": nn.BatchNorm2d,
    "double": lambda width: nn.BatchNorm2d(width, dtype=torch.float64),
    "mean over all steps": lambda width: nn.BatchNorm2d(width, momentum=None, dtype=torch.float64),
    "neither scale nor shift": lambda width: nn.BatchNorm2d(width, affine=False, dtype=torch.float64),
    "no running figures": lambda width: nn.BatchNorm2d(width, track_running_stats=False, dtype=torch.float64),
    "timm's": lambda width: BatchNormAct2d(width, dtype=torch.float64),
    "torch's own": lambda width: nn.SyncBatchNorm(width, dtype=torch.float64),
}


def network(norm: str) -> nn.Module:
    """Two normalisations, of planes and of vectors, with weights of their own."""
    torch.manual_seed(0)
    dtype = torch.float32 if norm == "plain" else torch.float64
    first, last = NORMS[norm](4), nn.BatchNorm1d(5, dtype=dtype)
    layers = [nn.Conv2d(3, 4, 3, dtype=dtype), first, nn.GELU(), nn.Flatten(), nn.Linear(64, 5, dtype=dtype), last]
    for parameter in (model := nn.Sequential(*layers)).parameters():
        nn.init.normal_(parameter, 0.5, 0.2)
    return model.train()


def trained(norm: str, shared: bool, rank: int | None = None) -> dict[str, Tensor]:
    """Gradients of a step, of inputs and of parameters, and the buffers after it; for one process's share of a batch,
    or for all of it. A process's loss is so weighed that their mean is that of the batch."""
    model, found = network(norm), {}
    model = synchronise(model) if shared else model
    dtype, rows = next(model.parameters()).dtype, sum(SHARES)
    mine = slice(0, rows) if rank is None else slice(sum(SHARES[:rank]), sum(SHARES[: rank + 1]))
    for step in range(STEPS):
        drawn = torch.randn(2, rows, 3, 6, 6, generator=torch.Generator().manual_seed(step), dtype=dtype)
        x = (3 * drawn[0, mine] + 10).requires_grad_()
        goal = drawn[1, mine, 0, 0, :5]
        loss = (torch.tanh(model(x)) - goal).square().sum() / rows * (1 if rank is None else len(SHARES))
        model.zero_grad()
        loss.backward()
        found |= {f"{step} loss": loss.detach(), f"{step} x": x.grad / (1 if rank is None else len(SHARES))}
        found |= {f"{step} {name}": parameter.grad.clone() for name, parameter in model.named_parameters()}
        found |= {f"{step} {name}": buffer.clone() for name, buffer in model.named_buffers()}
    return found


def process(rank: int, folder: str) -> None:
    """One of those that share a batch."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(SHARES))
    found = {norm: trained(norm, True, rank) for norm in NORMS}
    torch.save(found | {"apart": trained("double", False, rank)}, f"{folder}/{rank}.pt")
    half = synchronise(nn.BatchNorm2d(3))(torch.randn(4, 3, 2, 2).bfloat16())
    assert half.dtype == torch.bfloat16
    distributed.destroy_process_group()


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2])
