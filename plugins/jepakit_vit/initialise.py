"""Initial weights as the released I-JEPA code ends up with them, and what V-JEPA 2 does to them."""

import math

import torch
from torch import nn

STD = 0.02
MODALITY_STD = 1e-6


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


@torch.no_grad()
def scale_by_depth(blocks: nn.ModuleList) -> None:
    """Divide the weights of a block's two outputs by the root of twice its number, from 1 (BEiT).

    I-JEPA's and V-JEPA's training scripts draw every linear layer anew afterwards, which takes it back; V-JEPA 2's does
    not. With a gated MLP the released code scales one of the two factors instead of their output: the same function.
    """
    for number, block in enumerate(blocks, start=1):
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            weight.div_(math.sqrt(2.0 * number))


def modalities(width: int) -> nn.Parameter:
    """A vector that tells pictures and one that tells clips, hardly apart at first (V-JEPA 2.1)."""
    return nn.Parameter(MODALITY_STD * torch.randn(2, width))
