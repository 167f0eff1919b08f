"""The predictor of I-JEPA and V-JEPA: a narrow transformer that fills mask tokens in from the context, each target
block on its own."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.types import Features, Grid, Mask
from jepakit_vit.block import NORM_EPS, run, stack
from jepakit_vit.initialise import STD, initialise, scale_by_depth
from jepakit_vit.rope import Rope, located


class VitPredictor(nn.Module):
    """Narrows the context to ``width``, appends the mask tokens of one target block, and answers at their places.

    The M blocks of a mask are predicted side by side in the batch and do not see one another. Answers are as wide as
    the targets: as the encoder, unless a strategy against collapse says otherwise. Tokens are not sorted by place, as
    V-JEPA 2 sorts them before its blocks and back after: attention does not ask for an order.

    Args:
        mask_tokens: how many are learned, one for each ``Mask.kind`` (V-JEPA has two).
        share_mask_token: the first one stands for every kind, which is what V-JEPA 2 trains.
        zero_mask_tokens: they start from zero, as in V-JEPA.
        native, positions, mlp, checkpoint_blocks, depth_scaled: as for the encoder.

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
        native: tuple[int, ...] | None = None,
        positions: Literal["sincos_2d", "sincos_3d", "rope", "rope_tiled"] = "sincos_2d",
        mlp: Literal["gelu", "swiglu"] = "gelu",
        qkv_bias: bool = True,
        checkpoint_blocks: bool = False,
        depth_scaled: bool = False,
        share_mask_token: bool = False,
        zero_mask_tokens: bool = False,
    ):
        super().__init__()
        self.checkpoint_blocks, self.share_mask_token = checkpoint_blocks, share_mask_token
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(mask_tokens, width))
        self.blocks = stack(width, depth, heads, mlp_ratio, kind=mlp, qkv_bias=qkv_bias)
        self.positions = located(positions, width, heads, native)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.proj = nn.Linear(width, target_width or encoder_width)
        initialise(self)
        if depth_scaled:
            scale_by_depth(self.blocks)
        if not zero_mask_tokens:
            nn.init.trunc_normal_(self.mask_token, std=STD, a=-2.0, b=2.0)

    def forward(self, seen: Features, mask: Mask, grid: Grid, condition: Any = None) -> Float[Tensor, "B M Q D"]:
        if condition is not None:
            raise ValueError("vit_predictor takes no condition")
        if isinstance(seen, tuple):
            raise ValueError(f"vit_predictor reads tokens, the encoder gives a pyramid of {len(seen)} levels")
        where, asked = indices(mask, grid, seen)  # B K, B M Q
        context = self.positions(self.embed(seen), where, grid)  # B K d
        blanks = self.positions(self.blank(mask.kind).expand(*asked.shape, -1), asked, grid)  # B M Q d
        x = beside(context, blanks)
        turn = self.positions.turn(beside(where, asked), grid, x) if isinstance(self.positions, Rope) else None
        x = run(self.blocks, x, turn, self.checkpoint_blocks)  # (B M) K+Q d
        guess = x[:, context.shape[1] :].unflatten(0, asked.shape[:2])  # B M Q d
        return self.proj(self.norm(guess))

    def blank(self, kind: int) -> Float[Tensor, "d"]:
        """The mask token of a kind of mask."""
        number = 0 if self.share_mask_token else kind
        if number >= len(self.mask_token):
            raise ValueError(f"mask kind {kind} needs mask_tokens={kind + 1}, there are {len(self.mask_token)}")
        return self.mask_token[number]


def indices(mask: Mask, grid: Grid, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Context ``B K`` and target ``B M Q``, written out where they are None: the whole grid, and that as one block."""
    every = torch.arange(grid.size, device=seen.device)
    context = every.expand(len(seen), -1) if mask.context is None else mask.context
    target = every.expand(len(seen), 1, -1) if mask.target is None else mask.target
    return context, target


def beside(context: Tensor, blocks: Tensor) -> Tensor:
    """``B K ...`` before each of the blocks ``B M Q ...``: ``(B M) K+Q ...``."""
    repeated = context.unsqueeze(1).expand(-1, blocks.shape[1], *context.shape[1:])
    return torch.cat([repeated, blocks], dim=2).flatten(0, 1)
