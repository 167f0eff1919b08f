"""The transformer block that encoder and predictor are stacks of."""

from jaxtyping import Float
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from jepakit_vit.attention import Attention

NORM_EPS = 1e-6


class Block(nn.Module):
    """Pre-norm attention and MLP (exact GELU), parameters named as in timm."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, drop_path: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def stack(width: int, depth: int, heads: int, mlp_ratio: float, drop_path: float = 0.0) -> nn.ModuleList:
    """``depth`` blocks; the share of dropped paths grows linearly to ``drop_path``."""
    rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
    return nn.ModuleList(Block(width, heads, mlp_ratio, rate) for rate in rates)
