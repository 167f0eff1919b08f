"""Initial weights as the released I-JEPA code ends up with them."""

from torch import nn

STD = 0.02


def initialise(module: nn.Module, std: float = STD) -> None:
    """Truncated normal weights (bounds at 2, which hardly ever bind), zero biases, unit norms."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=std, a=-2.0, b=2.0)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
