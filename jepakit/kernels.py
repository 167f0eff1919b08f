"""The kernels that a device is given: by a table, not by a measurement at the start, so that a run that goes on
computes with what it began with. ``python -m tests.bench.kernels`` measures what each is worth (BENCHMARKS.md);
``jepakit doctor`` says which are taken.

| device | type | products (linear layers) | attention |
|---|---|---|---|
| CPU of AMD with AVX-512 | 32 bits | oneDNN: MKL, PyTorch's choice, has no AVX-512 there | fused; long ones by oneDNN |
| any other CPU | 32 bits | PyTorch's choice | PyTorch's fused kernel |
| CPU | 16 bits | oneDNN, the bias and a teacher's GELU within the product | plain products, see ``_Plain`` |
| GPU | any | PyTorch's choice | PyTorch's choice of fused kernels |
"""

import functools
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

LEAST = 2**21
"""Multiplications of a product from which on a kernel pays that PyTorch does not choose; below, its call costs more."""
MANY = 2**20
"""Numbers of 16 bits that fill a cache."""
NARROW = 256
"""Numbers of 16 bits up to which on a row is so short that a gradient has rather columns of them."""
ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether PyTorch has oneDNN's ``product``."""
VECTOR = 32
"""Numbers of 16 bits that a CPU takes at once."""


def linear(
    x: Float[Tensor, "*B D"], weight: Float[Tensor, "E D"], bias: Float[Tensor, " E"] | None = None
) -> Float[Tensor, "*B E"]:
    """``x @ weight.T + bias`` through the kernel that suits device and type."""
    dtype = _lowered(x, weight)
    return F.linear(x, weight, bias) if dtype is None else _Linear.apply(x, weight, bias, dtype)


def linear_gelu(
    x: Float[Tensor, "*B D"], weight: Float[Tensor, "E D"], bias: Float[Tensor, " E"] | None = None
) -> Float[Tensor, "*B E"]:
    """The exact GELU of ``linear``. Where no gradient asks for what it is the GELU of, that is never written down."""
    dtype = None if torch.is_grad_enabled() else _lowered(x, weight)
    return F.gelu(linear(x, weight, bias)) if dtype is None else product(*_cast(dtype, x, weight, bias), "gelu")


def plus(x: Float[Tensor, "*B D"], y: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """``x + y``. On CPUs a ``y`` of fewer bits is widened first and added to where it lies, which is faster."""
    if x.dtype == y.dtype or x.device.type != "cpu" or torch.compiler.is_compiling():
        return x + y
    return y.to(x.dtype).add_(x)


class Linear(nn.Linear):
    """A linear layer that computes by ``linear``."""

    def forward(self, input: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        return linear(input, self.weight, self.bias)


def fit(model: nn.Module) -> nn.Module:
    """Let every linear layer of a model, whoever wrote it, compute by ``linear``. Names and weights stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
    return model


def attend(
    q: Float[Tensor, "B heads N d"], k: Float[Tensor, "B heads S d"], v: Float[Tensor, "B heads S d"]
) -> Float[Tensor, "B heads N d"]:
    """Softmax attention.

    PyTorch's fused kernel, but for 16-bit types on CPUs: there it is slower than plain products (1.1 to 4.5 times,
    measured on a CPU without AMX at the sizes of a ViT); and for long sequences of 32 bits where MKL multiplies for it.
    """
    if q.device.type == "cpu" and not torch.compiler.is_compiling():
        if q.dtype.itemsize == 2:
            return _Plain.apply(q, k, v)
        if q.shape[2] * k[0, 0].numel() >= LEAST and q.dtype == torch.float32 and _pays(q.dtype):
            return _HeadByHead.apply(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def chosen(device: torch.device | str) -> dict[str, str]:
    """What a device is given, for people: by kind of operation and precision."""
    if torch.device(device).type != "cpu":
        return {"linear": "PyTorch's choice", "attention": "PyTorch's choice of fused kernels"}
    ours = {False: "PyTorch's choice", True: "oneDNN"}
    return {
        "linear fp32": ours[_pays(torch.float32)],
        "linear bf16": ours[_pays(torch.bfloat16)] + ", bias and a teacher's GELU within" * _pays(torch.bfloat16),
        "attention fp32": "PyTorch's fused kernel" + ", oneDNN for long sequences" * _pays(torch.float32),
        "attention bf16": "plain products" + ", softmax by oneDNN" * _pays(torch.bfloat16),
    }


class _Linear(torch.autograd.Function):
    """Products by oneDNN. PyTorch calls it by itself for 16 bits alone, and adds the bias in a second pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        x, weight, bias = _cast(dtype, x, weight, bias)
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        g = gradients[0].reshape(-1, len(weight))
        return (
            _times(g, weight).view_as(x) if of_x else None,
            _of_weight(g, x.reshape(len(g), -1)) if of_weight else None,
            _sum(g) if of_bias else None,
            None,
        )


class _Plain(torch.autograd.Function):
    """Attention by plain products of 16 bits. Rows of scores that are shorter than a vector are filled up, since their
    gradient would go number by number.

    Where no gradient asks for the weights, as many heads go together as have scores that fill a cache: these are in it
    from one operation to the next, and never written down. The backward pass goes head by head, for the same reason,
    where the scores of one fill it; of a product with a matrix that lies across the other one is turned, the small one.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads, ctx.count = q.shape[:2], k.shape[2]
        q, k, v = q.flatten(0, 1), _filled(k), _filled(v)
        if any(ctx.needs_input_grad):
            weights = _weights(q, k, ctx.count)
            ctx.save_for_backward(q, k, v, weights)
            return torch.bmm(weights, v).unflatten(0, heads)
        some = max(1, MANY // max(1, q.shape[1] * k.shape[1]))
        out = q.new_empty(*q.shape[:2], v.shape[2])
        for q1, k1, v1, out1 in zip(*(each.split(some) for each in (q, k, v, out)), strict=True):
            torch.bmm(_weights(q1, k1, ctx.count), v1, out=out1)
        return out.unflatten(0, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        q, k, v, weights = ctx.saved_tensors
        heads, g, scale = gradients[0].shape[:2], gradients[0].flatten(0, 1), q.shape[-1] ** -0.5
        if weights[0].numel() < MANY:
            of_v = weights.mT @ g
            of_scores = g @ v.mT
            torch._softmax_backward_data(of_scores, weights, -1, weights.dtype, grad_input=of_scores)
            of_q, of_k = (
                torch.baddbmm(q.new_empty(()), one, other, beta=0, alpha=scale)
                for one, other in ((of_scores, k), (of_scores.mT, q))
            )
        else:
            of_q, of_k, of_v = (q.new_empty(shape) for shape in (q.shape, k.mT.shape, v.mT.shape))
            of_scores = torch.empty_like(weights[0])
            for head, of_head in enumerate(weights):
                torch.mm(g[head].t(), of_head, out=of_v[head])
                torch.mm(g[head], v[head].t(), out=of_scores)
                torch._softmax_backward_data(of_scores, of_head, -1, of_head.dtype, grad_input=of_scores)
                torch.addmm(q.new_empty(()), of_scores, k[head], beta=0, alpha=scale, out=of_q[head])
                torch.addmm(q.new_empty(()), q[head].t(), of_scores, beta=0, alpha=scale, out=of_k[head])
            of_k, of_v = of_k.mT, of_v.mT
        return tuple(x[:, :n].unflatten(0, heads) for x, n in ((of_q, None), (of_k, ctx.count), (of_v, ctx.count)))


class _HeadByHead(torch.autograd.Function):
    """Attention by oneDNN's products, of which the backward pass makes the scores anew: no more is kept than what the
    fused kernel keeps. What is transposed stands where oneDNN takes it as it lies."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = q.shape[:2]
        q, k, v = (x.flatten(0, 1) for x in (q * q.shape[-1] ** -0.5, k, v))
        ctx.save_for_backward(q, k, v)
        out = [product(_of_head(q1, k1), v1.t()) for q1, k1, v1 in zip(q, k, v, strict=True)]
        return torch.stack(out).unflatten(0, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        heads, found = gradients[0].shape[:2], []
        for q, k, v, g in zip(*ctx.saved_tensors, gradients[0].flatten(0, 1), strict=True):
            weights, of_scores = _of_head(q, k), product(g, v)
            of_v = product(g.t(), weights.t()).t()
            torch._softmax_backward_data(of_scores, weights, -1, weights.dtype, grad_input=of_scores)
            found.append((product(of_scores, k.t()), product(q.t(), of_scores.t()).t(), of_v))
        of_q, of_k, of_v = (torch.stack(each).unflatten(0, heads) for each in zip(*found, strict=True))
        return of_q * of_q.shape[-1] ** -0.5, of_k, of_v


def _weights(q: Float[Tensor, "X N d"], k: Float[Tensor, "X S d"], count: int) -> Float[Tensor, "X N S"]:
    """Of 16 bits; none for keys from ``count`` on."""
    scores = torch.baddbmm(q.new_empty(()), q, k.mT, beta=0, alpha=q.shape[-1] ** -0.5)
    scores[..., count:] = -math.inf
    return _softmax(scores)


def _softmax(scores: Float[Tensor, "X N S"]) -> Float[Tensor, "X N S"]:
    """By oneDNN, for which scores are copied there and back: PyTorch's own takes 1.3 times as long, and where the ends
    of rows fill no vector 2 to 6 times. Many go in pieces, into their own place: new memory costs more."""
    if not _pays(scores.dtype):
        return torch.softmax(scores, -1, out=scores)
    if scores.numel() <= 4 * MANY:
        return _softmax_there(scores)
    for rows in scores.flatten(0, 1).split(max(1, MANY // scores.shape[-1])):
        rows.copy_(_softmax_there(rows))
    return scores


def _softmax_there(x: Float[Tensor, "*B S"]) -> Float[Tensor, "*B S"]:
    """By oneDNN, of a tensor of its own."""
    return torch.softmax(x.to_mkldnn(), -1).to_dense()


def _of_head(q: Float[Tensor, "N d"], k: Float[Tensor, "S d"]) -> Float[Tensor, "N S"]:
    """Weights of a head, whose queries are scaled, in the place of its scores."""
    scores = product(q, k)
    return torch.softmax(scores, -1, out=scores)


def _filled(x: Float[Tensor, "B heads S d"]) -> Float[Tensor, "X T d"]:
    """Batch and heads as one, and rows that are shorter than a vector filled up."""
    count = x.shape[2]
    if count >= VECTOR:
        return x.flatten(0, 1)
    filled = x.new_zeros(*x.shape[:2], VECTOR, x.shape[3])
    filled[:, :, :count] = x
    return filled.flatten(0, 1)


def _lowered(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """The type that oneDNN is to compute in; None where PyTorch's choice is as good."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.numel() * len(weight) < LEAST:
        return None
    lowers = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if lowers else x.dtype
    same = lowers or x.dtype == weight.dtype
    return dtype if same and weight.dtype in (dtype, torch.float32) and _pays(dtype) else None


def _cast(dtype: torch.dtype, *several: Tensor | None) -> list[Tensor | None]:
    return [None if each is None else each.to(dtype) for each in several]


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    """``x @ weight.T + bias`` by oneDNN, and what is done to it ``then`` (none, gelu); without a gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "none" if then == "gelu" else "")


def _times(x: Float[Tensor, "M K"], y: Float[Tensor, "K N"]) -> Float[Tensor, "M N"]:
    """A product, which PyTorch itself has done by oneDNN where numbers have 16 bits."""
    return x @ y if x.dtype.itemsize == 2 else product(x, y.t())


def _sum(g: Float[Tensor, "M E"]) -> Float[Tensor, " E"]:
    """Of rows. A product takes many of 16 bits as they lie, where PyTorch's sum goes through memory by columns."""
    return g.new_ones(len(g)) @ g if g.dtype.itemsize == 2 and g.numel() >= MANY else g.sum(0)


def _of_weight(g: Float[Tensor, "M E"], x: Float[Tensor, "M D"]) -> Float[Tensor, "E D"]:
    """The gradient of a weight: of a high and narrow one of 16 bits as the rows of a low and wide one."""
    if g.dtype.itemsize == 2 and x.shape[1] <= NARROW and x.shape[1] < g.shape[1]:
        return (x.t() @ g).t()
    return _times(g.t(), x)


@functools.cache
def _pays(dtype: torch.dtype) -> bool:
    """Whether products of that type go through oneDNN here."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.float32:
        fits = "AuthenticAMD" in _processor() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    else:
        fits = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return fits and _works(dtype)


def _processor() -> str:
    """Who made it, among other things."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()


def _works(dtype: torch.dtype) -> bool:
    """Whether PyTorch has the kernel, which is not among those that it promises, and it does what it is taken for."""
    x, weight, bias = (torch.linspace(-1, 1, math.prod(s)).view(s).to(dtype) for s in ((8, 12), (5, 12), (5,)))
    try:
        found = (
            product(x, weight, bias),
            product(x, weight, bias, "gelu"),
            product(x.t(), weight[:, :8]),
            _softmax_there(x),
        )
    except (AttributeError, RuntimeError, TypeError):
        return False
    y = F.linear(x, weight, bias)
    expected = y, F.gelu(y), F.linear(x.t(), weight[:, :8]), torch.softmax(x, -1)
    close = functools.partial(torch.allclose, atol=8 * torch.finfo(dtype).eps)
    return all(close(one, other) for one, other in zip(found, expected, strict=True))


def _operations(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    """What the kernel does, told to those who count."""
    return 2 * math.prod(x) * weight[0]


if ONEDNN:
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_operations)
