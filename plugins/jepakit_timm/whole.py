"""The picture itself as the token, or as a grid of boxes of pixels."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.types import Grid, take


class Whole(nn.Module):
    """Embeds nothing: a token is a frame, or a box of ``stride`` by ``stride`` of its pixels.

    Args:
        stride: pixels along a box's side; that of the encoder's features, where it gives a map of them. null: each
            frame is one token, for encoders that give one vector.

    Raises:
        ValueError: where a picture's sides are not multiples of the stride.
    """

    tiny = {"stride": 8}

    def __init__(self, stride: int | None = None):
        super().__init__()
        if stride is not None and stride < 1:
            raise ValueError(f"stride={stride}: a box has one pixel at least")
        self.stride = stride

    def grid(self, t: int, h: int, w: int) -> Grid:
        """The grid of boxes of a clip of ``t`` frames of ``h`` by ``w`` pixels."""
        if self.stride is None:
            return Grid(t, 1, 1)
        if h % self.stride or w % self.stride:
            raise ValueError(f"a picture of {h} x {w} pixels cannot be cut into boxes of stride={self.stride}")
        return Grid(t, h // self.stride, w // self.stride)

    def forward(
        self, pixels: Float[Tensor, "B C T H W"], keep: Int[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B K C h w"]:
        return take(boxes(pixels, self.grid(*pixels.shape[2:])), keep)


def boxes(pixels: Float[Tensor, "B C T H W"], grid: Grid) -> Float[Tensor, "B N C h w"]:
    """Every frame's pixels box by box."""
    cut = pixels.unflatten(4, (grid.w, -1)).unflatten(3, (grid.h, -1))  # B C t rows h columns w
    return cut.permute(0, 2, 3, 5, 1, 4, 6).flatten(1, 3)


def frames(tokens: Float[Tensor, "B N C h w"], grid: Grid) -> Float[Tensor, "F C H W"]:
    """The F = B t frames that all boxes, in the order of the grid, make up."""
    rows = tokens.unflatten(1, grid).permute(0, 1, 4, 2, 5, 3, 6)  # B t C rows h columns w
    return rows.flatten(5).flatten(3, 4).flatten(0, 1)
