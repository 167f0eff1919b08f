"""The transformer block that encoder and predictor are stacks of."""

import torch
from jaxtyping import Float
from timm.layers import DropPath, SwiGLU
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepakit.errors import nearest
from jepakit.kernels import linear_gelu, plus
from jepakit_vit.attention import Asked, Attention, pick

NORM_EPS = 1e-6
ALIGNED = 8
"""The hidden units of a gated MLP are a multiple of this."""
MLPS = ("gelu", "swiglu")


def mlp(kind: str, width: int, ratio: float) -> nn.Module:
    """Two layers with an exact GELU between them; or a gated one, which has three layers of two thirds of the units,
    so that it is as large. Its rule is that of the released V-JEPA 2 code (``SwiGLUFFN`` with ``wide_silu``).

    Raises:
        ValueError: where there is none of that name.
    """
    hidden = int(width * ratio)
    if kind == "gelu":
        return Mlp(width, hidden)
    if kind == "swiglu":
        return SwiGLU(width, int(2 * hidden / 3), align_to=ALIGNED)
    raise ValueError(f"no mlp {kind!r}{nearest(kind, MLPS)}; there are: {', '.join(MLPS)}")


class Mlp(nn.Module):
    """Two layers, parameters named as in timm, with an exact GELU between them."""

    def __init__(self, width: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, out or width)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        return self.fc2(linear_gelu(x, self.fc1.weight, self.fc1.bias))


class Block(nn.Module):
    """Pre-norm attention and MLP, parameters named as in timm."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        kind: str = "gelu",
        qkv_bias: bool = True,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = mlp(kind, width, mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Float[Tensor, "B N D"], turn: Float[Tensor, "_ 1 N _"] | None = None, asked: Asked = None
    ) -> Float[Tensor, "B A D"]:
        attended = self.drop_path(self.attn(self.norm1(x), turn, asked))
        x = plus(pick(x, asked), attended)
        return plus(x, self.drop_path(self.mlp(self.norm2(x))))


def stack(
    width: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    drop_path: float = 0.0,
    kind: str = "gelu",
    qkv_bias: bool = True,
) -> nn.ModuleList:
    """``depth`` blocks; the share of dropped paths grows linearly to ``drop_path``."""
    rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
    return nn.ModuleList(Block(width, heads, mlp_ratio, rate, kind, qkv_bias) for rate in rates)


def run(
    blocks: nn.ModuleList,
    x: Float[Tensor, "B N D"],
    turn: Float[Tensor, "_ 1 N _"] | None = None,
    recompute: bool = False,
    asked: Asked = None,
) -> Float[Tensor, "B A D"]:
    """One block after the other. With ``recompute`` (activation checkpointing) each keeps its input alone for the
    backward pass, and is computed once more there: same gradients, less memory, more time. Where some tokens alone are
    ``asked`` for, the last block answers for no others, which saves most of it."""
    for number, block in enumerate(blocks, 1):
        which = asked if number == len(blocks) else None
        if recompute and torch.is_grad_enabled():
            x = checkpoint(block, x, turn, which, use_reentrant=False)
        else:
            x = block(x, turn, which)
    return x if len(blocks) else pick(x, asked)
