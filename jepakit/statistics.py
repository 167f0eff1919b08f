"""Statistics of the samples of a step, whoever holds them: what processes hold is summed or gathered here, with
gradients, and nowhere else.

Every process then has the loss of the whole batch. A gradient comes back from all of them, so that the mean over
processes, which data-parallel training takes, is the gradient of that loss. Samples that come one micro-batch after the
other are put together by the trainer (``jepakit/joined.py``), and are one batch here.
"""

import contextlib
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from jepakit.distributed import place
from jepakit.types import Features

Tokens = Literal["mean", "each", "all"]
"""What one sample of a statistic is, see ``samples``."""


def samples(features: Features, tokens: Tokens) -> list[Float[Tensor, "N P D"]]:
    """N samples at each of P places, for each level of a pyramid, in 32 bits or more.

    ``mean``: the mean token of each view of the batch (P = 1). ``each``: every token is a place of its own. ``all``:
    the tokens of all views are the samples (P = 1). Of one vector a view (``B 1 D``) the three are the same.
    """
    found = []
    for level in features if isinstance(features, tuple) else (features,):
        x = level.flatten(1, -2)  # blocks side by side
        x = x.float() if x.dtype.itemsize < 4 else x
        found.append({"mean": x.mean(1, keepdim=True), "each": x, "all": x.flatten(0, 1).unsqueeze(1)}[tokens])
    return found


def moments(x: Float[Tensor, "N P D"]) -> tuple[int, Float[Tensor, "P D"], Float[Tensor, "P D D"]]:
    """The number of samples everywhere, their mean, and the sum of products of what is left without it.

    Samples are gathered where they are fewer than their products, which are summed otherwise.

    Raises:
        ValueError: for a single sample, which has no variance.
    """
    if gathers(x, x.shape[1] * x.shape[2] * (x.shape[2] + 1)):
        x = everyone(x)
        count, mean = len(x), x.mean(0)
        products = _products(x - mean)
    else:
        count, mean = average(x)
        products = everywhere(_products(x - mean))
    if count < 2:
        raise ValueError("a variance needs two samples or more; use a larger batch")
    return count, mean, products


def average(x: Float[Tensor, "N *D"]) -> tuple[int, Float[Tensor, "*D"]]:
    """The number of samples everywhere, and their mean."""
    count = len(x) * processes()
    return count, everywhere(x.sum(0)) / count if processes() > 1 else x.mean(0)


def gathers(x: Float[Tensor, "N *D"], summed: int) -> bool:
    """Whether all samples are fewer numbers than the ``summed`` that would do in their place."""
    return processes() > 1 and x.numel() * processes() < summed


def everyone(x: Float[Tensor, "n *D"]) -> Float[Tensor, "N *D"]:
    """The samples of all processes, in the order of their ranks; as many in each."""
    if processes() == 1:
        return x
    own = torch.arange(processes(), device=x.device) == distributed.get_rank()
    return everywhere(x * own.view(-1, *[1] * x.ndim)).flatten(0, 1)


def everywhere(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The sum over all processes."""
    return _Sum.apply(x) if processes() > 1 else x


class _Sum(torch.autograd.Function):
    """Every process has a loss that depends on everyone's numbers: what comes back is the sum over their losses."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None: ...

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(gradient)


def processes() -> int:
    """How many there are that hold samples of a step."""
    return place().world


def exact(device: torch.device) -> contextlib.AbstractContextManager:
    """Sums and products of many small numbers are not rounded to 16 bits, whatever precision the run has."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def _products(centred: Float[Tensor, "N P D"]) -> Float[Tensor, "P D D"]:
    centred = centred.transpose(0, 1)
    with exact(centred.device):
        return centred.mT @ centred
