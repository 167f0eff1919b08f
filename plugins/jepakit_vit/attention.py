"""Softmax attention through the kernel that suits device and type."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit_vit.rope import rotate


def attend(
    q: Float[Tensor, "B heads N d"], k: Float[Tensor, "B heads S d"], v: Float[Tensor, "B heads S d"]
) -> Float[Tensor, "B heads N d"]:
    """Softmax attention.

    PyTorch's fused kernel, but for 16-bit types on CPUs: there it is slower than plain products (1.1 to 4.5 times,
    measured on a CPU without AMX at the sizes of a ViT).
    """
    if q.device.type == "cpu" and q.dtype.itemsize == 2:
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.mT, dim=-1)
        return weights.to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v)


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
        self, x: Float[Tensor, "B N D"], turn: Float[Tensor, "_ 1 N _"] | None = None
    ) -> Float[Tensor, "B N D"]:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv if turn is None else (*rotate(qkv[:2], turn), qkv[2])  # B heads N d each
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))
