"""One of the processes that share a batch: ``python -m tests.properties.ranks RANK FOLDER``."""

import sys

import torch
from jepakit_sigreg.sigreg import Sigreg
from jepakit_vicreg.barlow import Barlow
from jepakit_vicreg.vicreg import Vicreg
from jepakit_vicreg.vicregl import Vicregl
from torch import Tensor, distributed, nn

WORLD, WIDE = 2, 24
"""Processes, and features that are more than the few samples: of those samples are gathered."""


def cases() -> list[tuple[nn.Module, int, int, bool]]:
    """A strategy, samples in a process, width of the features, and whether samples are then gathered."""
    return [
        (Vicreg(), 4, WIDE, True),
        (Vicreg(tokens="all"), 16, 5, False),
        (Barlow(), 4, WIDE, True),
        (Barlow(tokens="each"), 16, 3, False),
        (Sigreg(slices=8), 4, WIDE, True),
        (Sigreg(slices=8), 24, 5, False),
        (Vicregl(matches=(3, 2), invariance=0.0), 4, WIDE, True),
    ]


def total(strategy: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """What is forbidden to features that a parameter has a part in."""
    features = torch.tanh(x @ weight)
    return sum(strategy.penalty(features, 0.7 * features, 0.9 * features).values())


def drawn(samples: int, width: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(samples)
    x, weight = torch.randn(samples, 3, width, generator=rng), torch.randn(width, width, generator=rng)
    return x.double(), (weight / width**0.5).double().requires_grad_()


def process(rank: int, folder: str) -> None:
    """One of those that share a batch."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    found = []
    for strategy, count, width, _ in cases():
        x, weight = drawn(count * WORLD, width)
        loss = total(strategy, x[rank * count : (rank + 1) * count], weight)
        (gradient,) = torch.autograd.grad(loss, weight)
        distributed.all_reduce(gradient)
        found.append((loss.detach(), gradient / WORLD))
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2])
