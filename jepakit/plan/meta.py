"""Models and steps that have shapes and no content, as a GPU would take them.

A step on the device ``meta`` computes nothing and takes no memory. What a GPU does otherwise than that device is added
here: autocast, and attention that keeps no matrix of weights (FlashAttention, arXiv 2205.14135).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from jepakit.build import Built, build
from jepakit.errors import ConfigError

LOWERED = {F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d, torch.einsum, torch.addmm} | {
    getattr(where, name) for where in (torch, Tensor) for name in ("matmul", "bmm", "mm", "baddbmm")
}
"""What autocast does in 16 bits: products."""
LOWERED |= {Tensor.__matmul__, Tensor.__rmatmul__}
RAISED = {F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax, F.log_softmax, F.cross_entropy} | {
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
}
"""What it does in 32 bits: what is added up."""


def model(config: Mapping[str, Any]) -> Built:
    """The model of a configuration without content. Raises ConfigError as ``build`` does."""
    try:
        with weightless():
            built = build(config)
    except (ConfigError, NotImplementedError) as error:
        if "meta" not in str(error):
            raise
        built = build(config)  # a part that looks at its weights when it is made
    built.jepa.to("meta").train()
    return built


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """Parameters of modules that are made meanwhile have no content; what draws their values draws nothing."""

    def moved(module: nn.Module, name: str, value: Tensor | None) -> Tensor | None:
        if value is None or value.is_meta:
            return value
        return nn.Parameter(value.detach().to("meta"), value.requires_grad)

    told: Any = moved  # torch's annotation has it return nothing
    hook = register_module_parameter_registration_hook(told)
    try:
        yield
    finally:
        hook.remove()


class AsOnGpu(TorchFunctionMode):
    """Autocast to bf16, where that is the ``precision``, and attention in one kernel.

    Args:
        precision: as ``trainer.precision``.
        count: told the operations of each attention, forward and backward.
    """

    def __init__(self, precision: str, count: Callable[[int], None]):
        super().__init__()
        self.lowers, self.count = precision == "bf16", count
        self.copies: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self.attend(*map(self.lowered, args[:3] or (kwargs[name] for name in ("query", "key", "value"))))
        if self.lowers and func in LOWERED:
            args, kwargs = _each(self.lowered, args), _each(self.lowered, kwargs)
        elif self.lowers and func in RAISED:
            args, kwargs = _each(_raised, args), _each(_raised, kwargs)
        return func(*args, **kwargs)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Counts its two products; the backward pass counts four."""
        products = 2 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        self.count(products)
        return _Attention.apply(q, k, v, lambda: self.count(2 * products))

    def lowered(self, x: Any) -> Any:
        """In 16 bits; of a parameter that is trained one copy is made, and kept for the length of a step."""
        if not (self.lowers and isinstance(x, Tensor) and x.dtype == torch.float32):
            return x
        if not (x.is_leaf and x.requires_grad):
            return x.to(torch.bfloat16)
        if id(x) not in self.copies:
            self.copies[id(x)] = x, x.to(torch.bfloat16)
        return self.copies[id(x)][1]

    def forget(self) -> int:
        """Let go of the copies, as autocast does at its end. Returns the bytes that they take."""
        taken = sum(copy.nbytes for _, copy in self.copies.values())
        self.copies.clear()
        return taken


class _Attention(torch.autograd.Function):
    """Keeps queries, keys, values, answers, and of each row of weights its normaliser."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, done: Callable[[], None]) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        if q.ndim > 2:  # heads side by side, as kernels do
            out = q.new_empty(*q.shape[:-3], *q.shape[-3:-1][::-1], v.shape[-1]).transpose(-2, -3)
        norm = q.new_empty(q.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, norm)
        ctx.done = done
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        ctx.done()
        q, k, v, *_ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), None


def backward(total: Tensor) -> None:
    """The backward pass of a scalar, within whatever mode is on: torch's own call leaves it for that time, and what is
    computed again would be done without."""
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward(
        (total,), (torch.ones_like(total),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def _raised(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x


def _each(change: Callable[[Any], Any], values: Any) -> Any:
    """Change what is in arguments, lists of tensors too."""
    if isinstance(values, dict):
        return {name: _each(change, value) for name, value in values.items()}
    return type(values)(_each(change, x) for x in values) if type(values) in (tuple, list) else change(values)
