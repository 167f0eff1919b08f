"""The layers between a representation, which is kept, and the embedding, which the loss sees."""

from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

NORMS = {"bn": nn.BatchNorm1d, "ln": nn.LayerNorm}


class Expander(nn.Module):
    """Linear layers from ``width`` to each of ``widths`` in turn; a norm and a ReLU between any two.

    Args:
        norm: ``bn`` over all tokens of a batch (VICReg), or ``ln`` over the channels of each (VICRegL's ConvNeXts).
        bias: whether the last layer has one; VICReg's has not.
    """

    def __init__(self, width: int, widths: tuple[int, ...], norm: Literal["bn", "ln"] = "bn", bias: bool = False):
        super().__init__()
        layers: list[nn.Module] = []
        for wide, next_wide in pairwise((width, *widths[:-1])):
            layers += [nn.Linear(wide, next_wide), NORMS[norm](next_wide), nn.ReLU()]
        last = (width, *widths)[-2]
        self.layers = nn.Sequential(*layers, nn.Linear(last, widths[-1], bias=bias))

    def forward(self, features: Float[Tensor, "B N d"]) -> Float[Tensor, "B N D"]:
        return self.layers(features.flatten(0, 1)).unflatten(0, features.shape[:2])
