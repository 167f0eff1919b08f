"""Blocks in a few kernels that PyTorch makes for the device (torch.compile), where that is taken to pay: on a GPU.

A block is compiled for every number of samples and tokens at once. Blocks of one kind share what was made, whatever
their weights and the rates of their dropped paths; so a run compiles each kind once for each way it is called (with a
gradient and without, with some tokens asked for and with all), in its first step, and nothing after it. Scores and
pictures are computed without: they read what ``jepakit eval`` reads of a checkpoint, to the last bit.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.cudagraphs import paused
from jepakit.errors import TrainingError, first_line
from jepakit.parallel import blocks

LIMIT = 64
"""Graphs of one kind of block that may be made: PyTorch's 8 are fewer than student, teacher and predictor need."""
CAPABLE = 7
"""The oldest generation of NVIDIA's GPUs that Triton knows (compute capability 7.0: Volta)."""
MAKERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")
"""Whose errors are errors of compiling."""

Backend = str | Callable[..., Callable[..., Any]]
"""What compiles: PyTorch's inductor by name, or a function of a graph and its inputs."""


def prepared(model: nn.Module, asked: bool | str, device: torch.device) -> tuple[bool, str]:
    """Compile a model's blocks where ``trainer.compile`` says so. Returns whether it does, and what a run has to say
    of it: nothing on a CPU where nobody asked for it."""
    compiles, why = chosen(asked, device)
    if not compiles:
        return False, f"blocks are not compiled: {why}" if asked == "auto" and device.type == "cuda" else ""
    if count := compile_blocks(model):
        return True, f"{count} blocks are compiled where they are first called, so that the first step is long ({why})"
    return False, "nothing is compiled: no part of the model is a stack of blocks"


def chosen(asked: bool | str, device: torch.device) -> tuple[bool, str]:
    """Whether ``trainer.compile`` is to compile on a device, and why."""
    if asked != "auto":
        return bool(asked), f"trainer.compile={str(asked).lower()}"
    if device.type != "cuda":
        return False, "it does not pay on a CPU"
    trouble = refused(device)
    return not trouble, trouble or "Triton works here"


@functools.cache
def refused(device: torch.device) -> str:
    """Why nothing can be compiled for a device; empty where it can: something small has been."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        major, minor = torch.cuda.get_device_capability(device)
        if not torch.version.hip and major < CAPABLE:
            return f"Triton needs a GPU of compute capability {CAPABLE}.0 or later, this one has {major}.{minor}"
        if not has_triton():
            return "there is no Triton that works here (pip install triton)"
    try:
        torch.compile(_small)(torch.ones(2, device=device))
    except Exception as error:  # a compiler, a header, a folder that cannot be written to: whatever it is, it is said
        return f"it was tried, and failed: {first_line(error)}"
    return ""


def _small(x: Tensor) -> Tensor:
    return x.exp() + 1


def compile_blocks(model: nn.Module, backend: Backend = "inductor") -> int:
    """Compile every block of every stack, for any number of samples and tokens. Returns how many.

    Two of PyTorch's settings change for the process: how many graphs there may be, and that sizes which happen to be
    equal at the first call are not taken for one and the same.
    """
    import torch._dynamo
    import torch.fx.experimental._config as symbols
    from timm.layers import DropPath  # half of timm, for the few who need it

    limits = torch._dynamo.config
    limits.recompile_limit, symbols.use_duck_shape = max(limits.recompile_limit, LIMIT), False
    found = list(blocks(model))
    for block in found:
        for module in block.modules():
            if type(module) is DropPath:
                _even(module, next(block.parameters()).device)
        block.compile(dynamic=True, backend=backend)
    return len(found)


class EvenPath(nn.Module):
    """timm's ``DropPath`` with its rate in a tensor: a number would be part of the graph, and each block has its own.
    Drawn otherwise than timm does, so that a compiled run drops other paths."""

    keep: Tensor
    drops: bool
    scale_by_keep: bool

    def forward(self, x: Float[Tensor, "B *N"]) -> Float[Tensor, "B *N"]:
        if not (self.drops and self.training):
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < self.keep
        return x * (kept / self.keep if self.scale_by_keep else kept).to(x.dtype)


def _even(path: Any, device: torch.device) -> None:
    """Make an ``EvenPath`` of a ``DropPath``."""
    rate = path.drop_prob
    path.__class__ = EvenPath
    path.drops, path.scale_by_keep = rate > 0, path.scale_by_keep and rate < 1
    path.register_buffer("keep", torch.tensor(1.0 - rate, device=device), persistent=False)


@contextlib.contextmanager
def eagerly(compiles: bool) -> Iterator[None]:
    """For as long as this lasts, what is compiled or recorded is computed operation by operation."""
    with paused(), torch.compiler.set_stance("force_eager") if compiles else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Around what may compile. Raises TrainingError where that fails."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(MAKERS):
            raise
        said = f"a block could not be compiled ({type(error).__name__}: {first_line(error)})"
        raise TrainingError(f"{said}; trainer.compile=false goes on without") from error
