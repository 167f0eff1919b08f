"""I-JEPA's predictor: a narrow transformer that fills mask tokens in from the context, each target block on its own."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.types import Features, Grid, Mask
from jepakit_vit.block import NORM_EPS, stack
from jepakit_vit.initialise import STD, initialise
from jepakit_vit.positions import Positions


class VitPredictor(nn.Module):
    """Narrows the context to ``width``, appends the mask tokens of one target block, and answers at their places.

    The M blocks of a mask are predicted side by side in the batch and do not see one another. ``mask_tokens`` of them
    are learned, one for each ``Mask.kind`` (V-JEPA has two). Answers are as wide as the targets: as the encoder, unless a
    strategy against collapse says otherwise.

    Raises:
        ValueError: for a grid that its positions cannot tell apart, and a mask kind that it has no token for.
    """

    def __init__(
        self,
        encoder_width: int,
        width: int = 384,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        mask_tokens: int = 1,
        target_width: int | None = None,
    ):
        super().__init__()
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(mask_tokens, width))
        self.positions = Positions(width)
        self.blocks = stack(width, depth, heads, mlp_ratio)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.proj = nn.Linear(width, target_width or encoder_width)
        initialise(self)
        nn.init.trunc_normal_(self.mask_token, std=STD, a=-2.0, b=2.0)

    def forward(self, seen: Features, mask: Mask, grid: Grid, condition: Any = None) -> Float[Tensor, "B M Q D"]:
        if condition is not None:
            raise ValueError("vit_predictor takes no condition")
        if isinstance(seen, tuple):
            raise ValueError(f"vit_predictor reads tokens, the encoder gives a pyramid of {len(seen)} levels")
        if mask.kind >= len(self.mask_token):
            raise ValueError(
                f"mask kind {mask.kind} needs mask_tokens={mask.kind + 1}, there are {len(self.mask_token)}"
            )
        context = self.positions(self.embed(seen), mask.context, grid)  # B K d
        asked = self.asked(mask, grid, context)  # B M Q d
        blocks = asked.shape[1]
        x = torch.cat([context.unsqueeze(1).expand(-1, blocks, -1, -1), asked], dim=2).flatten(0, 1)  # (B M) K+Q d
        for block in self.blocks:
            x = block(x)
        guess = x[:, context.shape[1] :].unflatten(0, (-1, blocks))  # B M Q d
        return self.proj(self.norm(guess))

    def asked(self, mask: Mask, grid: Grid, context: Tensor) -> Float[Tensor, "B M Q d"]:
        """Mask tokens at the places of the target blocks; a target of None asks for the whole grid as one block."""
        places = self.positions.at(mask.target, grid, context)
        if mask.target is None:
            places = places.expand(len(context), 1, -1, -1)
        return self.mask_token[mask.kind] + places
