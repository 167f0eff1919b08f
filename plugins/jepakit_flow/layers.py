"""Convolutions as the estimators have them."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place of a map."""

    def forward(self, input: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D H W"]:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def stack(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """Convolutions of 3 x 3 of these widths, each with LayerNorm and a leaky ReLU after it (MC-JEPA: after every one
    but the last, which is not among them)."""
    layers: list[nn.Module] = []
    for before, after in zip((inputs, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), ChannelNorm(after), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


def still(inputs: int) -> nn.Conv2d:
    """The last convolution: two numbers a place, zero at first, so that the estimate begins where it was."""
    last = nn.Conv2d(inputs, 2, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return last
