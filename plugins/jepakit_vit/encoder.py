"""A vision transformer that encodes the tokens it is given, and only those."""

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.types import Features, Grid
from jepakit_vit.attention import pick
from jepakit_vit.block import NORM_EPS, run, stack
from jepakit_vit.initialise import initialise, scale_by_depth
from jepakit_vit.rope import Rope, located


class VitEncoder(nn.Module):
    """Positions, ``depth`` blocks, a norm. No class token, no registers (as I-JEPA and V-JEPA).

    Args:
        native: rows and columns of the grid that it was trained on, for clips also tubelets before them; on another
            one places are scaled to it.
        positions: ``sincos_2d`` (I-JEPA; images only), ``sincos_3d`` (V-JEPA), ``rope`` (3-D, as V-JEPA 2.1), or
            ``rope_tiled`` (as V-JEPA 2 was released).
        mlp: ``swiglu`` is a gated one of about the same size.
        checkpoint_blocks: compute each block once more in the backward pass instead of keeping what is in it.
        depth_scaled: scale initial weights down with depth, as V-JEPA 2.
        layers: numbers of the blocks, from 0, whose outputs are given, each through a norm of its own: a pyramid,
            shallowest first (V-JEPA 2.1). null: the last block's alone, as tokens.

    Raises:
        ValueError: where ``layers`` are no blocks, in order, up to the last one; at the call for tokens that are no
            vectors of its width.
    """

    tiny = {"width": 24, "depth": 1, "heads": 2, "positions": "rope"}
    picks, replays = True, ("trunk",)

    def __init__(
        self,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        native: tuple[int, ...] | None = None,
        positions: Literal["sincos_2d", "sincos_3d", "rope", "rope_tiled"] = "sincos_2d",
        mlp: Literal["gelu", "swiglu"] = "gelu",
        qkv_bias: bool = True,
        checkpoint_blocks: bool = False,
        depth_scaled: bool = False,
        layers: tuple[int, ...] | None = None,
    ):
        super().__init__()
        self.width, self.checkpoint_blocks = width, checkpoint_blocks
        self.ends = _ends(layers, depth)
        self.blocks = stack(width, depth, heads, mlp_ratio, drop_path, mlp, qkv_bias)
        self.positions = located(positions, width, heads, native)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=NORM_EPS) for _ in self.ends[1:])
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        initialise(self)
        if depth_scaled:
            scale_by_depth(self.blocks)

    def forward(
        self,
        tokens: Float[Tensor, "B K *D"],
        index: Int[Tensor, "B K"] | None,
        grid: Grid,
        asked: Int[Tensor, "B A"] | None = None,
    ) -> Features:
        if tokens.shape[2:] != (self.width,):
            given = " x ".join(map(str, tokens.shape[2:]))
            raise ValueError(f"vit reads tokens that are vectors of its width, {self.width}, not of {given} numbers")
        x = self.positions(tokens, index, grid)
        turn = self.positions.turn(index, grid, x) if isinstance(self.positions, Rope) else None
        early = asked is not None and asked.shape[1] < x.shape[1]  # else it would not save anything
        levels, start = [], 0
        for end, norm in zip(self.ends, (*self.norms, self.norm), strict=True):
            last = asked if early and end == len(self.blocks) else None
            fixed = end if last is None else end - 1
            if index is None and start < fixed:
                x, start = self.trunk(x, turn, start, fixed), fixed
            x, start = run(self.blocks[start:end], x, turn, self.checkpoint_blocks, last), end
            levels.append(norm(pick(x, asked) if last is None else x))  # B A D
        return tuple(levels) if len(levels) > 1 else levels[0]

    def trunk(
        self, x: Float[Tensor, "B N D"], turn: Float[Tensor, "_ 1 N _"] | None, start: int, end: int
    ) -> Float[Tensor, "B N D"]:
        """Blocks ``start`` to ``end - 1`` of a whole view, for all of its tokens: the same work in every step."""
        return run(self.blocks[start:end], x, turn, self.checkpoint_blocks)


def _ends(layers: tuple[int, ...] | None, depth: int) -> list[int]:
    """After how many blocks each level of a pyramid is taken. Raises ValueError for layers that there are not."""
    if layers is None:
        return [depth]
    if not layers or layers[0] < 0 or sorted(set(layers)) != list(layers) or layers[-1] != depth - 1:
        raise ValueError(f"layers={list(layers)}: numbers of blocks from 0, ascending, up to the last one, {depth - 1}")
    return [layer + 1 for layer in layers]
