"""Multi-head self-attention."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.kernels import attend
from jepakit_vit.rope import rotate

Asked = Int[Tensor, "B A"] | slice | None
"""The tokens that a block has to answer for, by index or in a row; None: all of them."""


def pick(x: Float[Tensor, "B *heads N D"], asked: Asked) -> Float[Tensor, "B *heads A D"]:
    """The tokens that are asked for."""
    if isinstance(asked, slice):
        return x[..., asked, :]
    return x if asked is None else x.take_along_dim(asked.reshape(len(x), *[1] * (x.ndim - 3), -1, 1), dim=-2)


class Attention(nn.Module):
    """Multi-head self-attention, parameters named as in timm. ``turn`` turns queries and keys (see ``rope``).

    Raises:
        ValueError: where ``width`` is no multiple of ``heads``.
    """

    def __init__(self, width: int, heads: int, qkv_bias: bool = True):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be split over {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "B N D"], turn: Float[Tensor, "_ 1 N _"] | None = None, asked: Asked = None
    ) -> Float[Tensor, "B A D"]:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv if turn is None else (*rotate(qkv[:2], turn), qkv[2])  # B heads N d each
        return self.proj(attend(pick(q, asked), k, v).transpose(1, 2).flatten(2))
