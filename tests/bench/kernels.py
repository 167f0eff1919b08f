"""What each kernel of ``jepakit/kernels.py`` is worth beside PyTorch's own choice: the evidence of its table.

    OMP_NUM_THREADS=1 python -m tests.bench.kernels

Both compute the same, in turns; CPU time of the process in milliseconds, medians, and ratios pair by pair.
"""

import statistics
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from jepakit import kernels, types
from jepakit.device import keep_pages
from tests.bench.turns import ratio, seconds

ROUNDS = 21
WIDE, NARROW = torch.float32, torch.bfloat16
NAMES = {WIDE: "fp32", NARROW: "bf16"}
LINEAR = ((3136, 384, 1536), (1568, 768, 3072), (832, 384, 1152), (5632, 192, 768), (128, 48, 48))
"""Rows, in, out: of ViT-S and ViT-B, of a context and a predictor, and a small one."""
ATTENTION = ((16, 196, 6, 64), (8, 256, 16, 80), (64, 88, 6, 32), (16, 52, 6, 64), (2, 464, 6, 64), (2, 1568, 6, 64))
"""Batch, tokens, heads, width of a head."""
SCORES = ((96, 196), (384, 88), (96, 52), (192, 64), (6, 1568))
TOKENS = (16, 196, 144, 384)
"""Batch, tokens of each, how many are taken, their width."""
GRADIENTS = ((5632, 768), (832, 1536))

Pair = tuple[str, Callable[[], object], Callable[[], object]]


def normal(*shape: int, dtype: torch.dtype = WIDE) -> Tensor:
    return torch.randn(shape).to(dtype).requires_grad_()


def both_ways(function: Callable[..., Tensor], *given: Tensor) -> Callable[[], object]:
    """Forward and backward."""
    like = torch.ones_like(function(*given))
    return lambda: torch.autograd.grad(function(*given), given, like)


def forward(function: Callable[..., Tensor], *given: Tensor) -> Callable[[], object]:
    given = tuple(each.detach() for each in given)
    return lambda: function(*given)


def pairs() -> Iterator[Pair]:
    """What it is, PyTorch's way, ours."""
    for dtype, (rows, into, out) in ((dtype, each) for dtype in NAMES for each in LINEAR):
        given = [normal(*shape, dtype=dtype) for shape in ((rows, into), (out, into), (out,))]
        for way in (forward, both_ways):
            name = f"linear {rows} x {into} to {out}, {NAMES[dtype]}, {way.__name__.replace('_', ' ')}"
            yield name, way(F.linear, *given), way(kernels.linear, *given)
    for dtype, (batch, tokens, heads, width) in ((dtype, each) for dtype in NAMES for each in ATTENTION):
        given = [normal(batch, heads, tokens, width, dtype=dtype) for _ in range(3)]
        for way in (forward, both_ways):
            name = f"attention {batch} x {tokens}, {heads} x {width}, {NAMES[dtype]}, {way.__name__.replace('_', ' ')}"
            yield name, way(F.scaled_dot_product_attention, *given), way(kernels.attend, *given)
    for heads, tokens in SCORES:
        scores = torch.randn(heads, tokens, tokens).to(NARROW)
        name = f"softmax of {heads} x {tokens} x {tokens}, bf16"
        yield name, lambda x=scores: torch.softmax(x, -1), lambda x=scores: kernels._softmax(x)
    batch, tokens, some, width = TOKENS
    x, index = torch.randn(batch, tokens, width), torch.rand(batch, tokens).argsort(1)[:, :some]
    name = f"{some} of {tokens} tokens, {batch} x {width}, fp32"
    yield name, lambda: x.gather(1, index.unsqueeze(2).expand(-1, -1, width)), lambda: types.take(x, index)
    for rows, width in GRADIENTS:
        g = torch.randn(rows, width).to(NARROW)
        yield f"sum of {rows} rows of {width}, bf16", lambda g=g: g.sum(0), lambda g=g: kernels._sum(g)
    x, y = torch.randn(16, 196, 384), torch.randn(16, 196, 384).to(NARROW)
    yield "16 bits added to 32, 16 x 196 x 384", lambda: x + y, lambda: kernels.plus(x, y)


if __name__ == "__main__":
    keep_pages()
    torch.set_num_threads(1)
    print(f"| {'':52} | PyTorch, ms | jepakit, ms | times as fast |")
    print("|---|---|---|---|")
    for name, theirs, ours in pairs():
        theirs(), ours()
        took = [[seconds(way) for way in (theirs, ours)] for _ in range(ROUNDS)]
        columns = list(zip(*took, strict=True))
        (one, other), found = (1e3 * statistics.median(times) for times in columns), ratio(*columns)
        spread = f"**{found.median:.2f}** [{found.least:.2f}, {found.most:.2f}]"
        print(f"| {name:52} | {one:.2f} | {other:.2f} | {spread} |", flush=True)
