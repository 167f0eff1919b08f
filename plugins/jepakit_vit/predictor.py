"""The predictor of I-JEPA and V-JEPA: a narrow transformer that fills mask tokens in from the context, each target
block on its own."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.types import Features, Grid, Mask
from jepakit_vit.block import NORM_EPS, Mlp, run, stack
from jepakit_vit.initialise import STD, initialise, modalities, scale_by_depth
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
        levels: of the pyramid that it reads, all at once, and answers with; 1: tokens.
        recalls: it has a second output, for the tokens of the context (``Mask.recall``, V-JEPA 2.1's context loss).
        modality: a learned vector is added to all tokens, one in pictures and one in clips. What has one tubelet is a
            picture: from a grid a clip of a single tubelet cannot be told from one.

    Raises:
        ValueError: for a grid that its positions cannot tell apart, a mask kind that it has no token for, features of
            another number of levels, and a mask that asks for the context where it has no output for that.
    """

    tiny = {"width": 24, "depth": 1, "heads": 2, "mask_tokens": 2, "positions": "rope"}

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
        levels: int = 1,
        recalls: bool = False,
        modality: bool = False,
    ):
        super().__init__()
        self.checkpoint_blocks, self.share_mask_token = checkpoint_blocks, share_mask_token
        self.levels, self.recalls = levels, recalls
        wide = levels * (target_width or encoder_width)
        self.embed = embedding(encoder_width, width, levels)
        self.mask_token = nn.Parameter(torch.zeros(mask_tokens, width))
        self.blocks = stack(width, depth, heads, mlp_ratio, kind=mlp, qkv_bias=qkv_bias)
        self.positions = located(positions, width, heads, native)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.proj = nn.Linear(width, wide)
        self.recall = nn.Linear(width, wide) if recalls else None
        initialise(self)
        if depth_scaled:
            scale_by_depth(self.blocks)
        if not zero_mask_tokens:
            nn.init.trunc_normal_(self.mask_token, std=STD, a=-2.0, b=2.0)
        self.modality = modalities(width) if modality else None

    def forward(self, seen: Features, mask: Mask, grid: Grid, condition: Any = None) -> Features:
        if condition is not None:
            raise ValueError("vit_predictor takes no condition")
        tokens = self.read(seen)
        where, asked = indices(mask, grid, tokens)  # B K, B M Q
        context = self.positions(self.embed(tokens), where, grid)  # B K d
        blanks = self.positions(self.blank(mask.kind).expand(*asked.shape, -1), asked, grid)  # B M Q d
        x = beside(context, blanks)
        if self.modality is not None:
            x = x + self.modality[int(grid.t > 1)]
        turn = self.positions.turn(beside(where, asked), grid, x) if isinstance(self.positions, Rope) else None
        kept = 0 if mask.recall else context.shape[1]  # tokens of the context that nobody asks for
        x = run(self.blocks, x, turn, self.checkpoint_blocks, slice(kept, None))  # (B M) Q d
        return self.answer(x.unflatten(0, asked.shape[:2]), asked.shape[2], mask.recall)

    def read(self, seen: Features) -> Float[Tensor, "B K _"]:
        """The levels of a pyramid side by side, or the tokens as they are."""
        levels = seen if isinstance(seen, tuple) else (seen,)
        if len(levels) != self.levels:
            reads = f"a pyramid of {self.levels} levels" if self.levels > 1 else "tokens"
            gives = f"a pyramid of {len(levels)} levels" if isinstance(seen, tuple) else "tokens"
            raise ValueError(f"vit_predictor reads {reads}, the encoder gives {gives}")
        return torch.cat(levels, dim=-1) if self.levels > 1 else levels[0]

    def answer(self, x: Float[Tensor, "B M N d"], asked: int, recall: int) -> Features:
        """What is imagined, the last ``asked`` tokens, after it what is recalled, the first ``recall`` ones."""
        guess = self.proj(self.norm(x[:, :, x.shape[2] - asked :]))  # B M Q L*D
        if recall:
            if self.recall is None:
                raise ValueError(f"the mask asks for {recall} tokens of the context; vit_predictor needs recalls=true")
            guess = torch.cat([guess, self.recall(self.norm(x[:, :, :recall]))], dim=2)
        return guess.chunk(self.levels, dim=-1) if self.levels > 1 else guess

    def blank(self, kind: int) -> Float[Tensor, "d"]:
        """The mask token of a kind of mask."""
        number = 0 if self.share_mask_token else kind
        if number >= len(self.mask_token):
            raise ValueError(f"mask kind {kind} needs mask_tokens={kind + 1}, there are {len(self.mask_token)}")
        return self.mask_token[number]


def embedding(wide: int, width: int, levels: int) -> nn.Module:
    """From the encoder's width to the predictor's: of a pyramid first to the width of one level, as V-JEPA 2.1."""
    return nn.Linear(wide, width) if levels == 1 else Mlp(levels * wide, wide, width)


def indices(mask: Mask, grid: Grid, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Context ``B K`` and what is to be imagined, ``B M Q``; written out where they are None, the whole grid."""
    every = torch.arange(grid.size, device=seen.device)
    context = every.expand(len(seen), -1) if mask.context is None else mask.context
    target = every.expand(len(seen), 1, -1) if mask.imagined is None else mask.imagined
    return context, target


def beside(context: Tensor, blocks: Tensor) -> Tensor:
    """``B K ...`` before each of the blocks ``B M Q ...``: ``(B M) K+Q ...``."""
    repeated = context.unsqueeze(1).expand(-1, blocks.shape[1], *context.shape[1:])
    return torch.cat([repeated, blocks], dim=2).flatten(0, 1)
