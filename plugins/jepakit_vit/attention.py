"""Multi-head self-attention."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.kernels import attend, linear
from jepakit.types import take
from jepakit_vit.rope import rotate

Asked = Int[Tensor, "B A"] | slice | None
"""The tokens that a block has to answer for, by index or in a row; None: all of them."""


def pick(x: Float[Tensor, "_ *heads N D"], asked: Asked) -> Float[Tensor, "_ *heads A D"]:
    """The tokens that are asked for."""
    if isinstance(asked, slice):
        return x[..., asked, :]
    if x.ndim == 3 or asked is None:
        return take(x, asked)
    return x.take_along_dim(asked.reshape(len(asked), *[1] * (x.ndim - 3), -1, 1), dim=-2)


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
        some = isinstance(asked, slice | Tensor)  # `is None` would make a slice's numbers part of a compiled graph
        q, k, v = self.some_of(x, turn, asked) if some else self.all_of(x, turn)
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))

    def all_of(self, x: Tensor, turn: Tensor | None) -> tuple[Float[Tensor, "B heads N d"], ...]:
        """Queries, keys and values of all tokens."""
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1))
        if turn is None:
            return tuple(each.transpose(1, 2) for each in qkv.unbind(2))  # their gradients are put together as they lie
        both, v = qkv.permute(2, 0, 3, 1, 4).split((2, 1))
        return *rotate(both, turn), v[0]

    def some_of(self, x: Tensor, turn: Tensor | None, asked: Asked) -> tuple[Float[Tensor, "B heads _ d"], ...]:
        """Queries of the tokens that are asked for, keys and values of all."""
        parts = (x.shape[-1], 2 * x.shape[-1])
        of_q, of_kv = self.qkv.weight.split(parts)
        bias_q, bias_kv = (None, None) if self.qkv.bias is None else self.qkv.bias.split(parts)
        q = linear(pick(x, asked), of_q, bias_q).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = linear(x, of_kv, bias_kv).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return (q, k, v) if turn is None else (rotate(q, pick(turn, asked)), rotate(k, turn), v)
