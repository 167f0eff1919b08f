"""A vision transformer that encodes the tokens it is given, and only those."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.types import Grid
from jepakit_vit.block import NORM_EPS, stack
from jepakit_vit.initialise import initialise
from jepakit_vit.positions import Positions


class VitEncoder(nn.Module):
    """Positions, ``depth`` blocks, a norm. No class token, no registers (as I-JEPA)."""

    def __init__(
        self, width: int = 192, depth: int = 12, heads: int = 3, mlp_ratio: float = 4.0, drop_path: float = 0.0
    ):
        super().__init__()
        self.width = width
        self.positions = Positions(width)
        self.blocks = stack(width, depth, heads, mlp_ratio, drop_path)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        initialise(self)

    def forward(
        self, tokens: Float[Tensor, "B K D"], index: Int[Tensor, "B K"] | None, grid: Grid
    ) -> Float[Tensor, "B K D"]:
        x = self.positions(tokens, index, grid)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
