"""Patches, or tubelets of several frames, each embedded by one linear map."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.types import Grid, take
from jepakit_vit.initialise import STD, initialise


class PatchTokenizer(nn.Module):
    """Cuts a clip into boxes of ``tubelet`` frames by ``patch`` by ``patch`` pixels and embeds those that are kept.

    The map is that of a convolution whose stride is its kernel; its weight is kept flat, ``D (C tubelet patch patch)``.
    A clip of one frame is a picture that stands still: the frame fills a tubelet.

    Args:
        init_std: standard deviation of the initial weights; null: as everywhere else. With few pixels a patch that
            lets the positions, which are of order one, drown the picture.

    Raises:
        ValueError: where a clip's sides are not multiples of the box's.
    """

    tiny = {"patch": 8}

    def __init__(
        self, channels: int, encoder_width: int, patch: int = 16, tubelet: int = 1, init_std: float | None = None
    ):
        super().__init__()
        self.patch, self.tubelet = patch, tubelet
        self.proj = nn.Linear(channels * tubelet * patch * patch, encoder_width)
        initialise(self, init_std or STD)

    def grid(self, t: int, h: int, w: int) -> Grid:
        """The grid of tokens of a clip of ``t`` frames of ``h`` by ``w`` pixels."""
        if t == 1:
            t = self.tubelet
        if t % self.tubelet or h % self.patch or w % self.patch:
            box = f"{self.tubelet} x {self.patch} x {self.patch}"
            raise ValueError(f"a clip of {t} x {h} x {w} (frames, height, width) cannot be cut into boxes of {box}")
        return Grid(t // self.tubelet, h // self.patch, w // self.patch)

    def forward(
        self, pixels: Float[Tensor, "B C T H W"], keep: Int[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B K D"]:
        return self.proj(take(self.boxes(pixels), keep))

    def boxes(self, pixels: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B N P"]:
        """The pixels of each box, P = C tubelet patch patch of them, in the order of a convolution's weight."""
        t, h, w = self.grid(*pixels.shape[2:])
        if pixels.shape[2] == 1:
            pixels = pixels.expand(-1, -1, self.tubelet, -1, -1)
        cut = pixels.unflatten(4, (w, self.patch)).unflatten(3, (h, self.patch)).unflatten(2, (t, self.tubelet))
        return torch.permute(cut, (0, 2, 4, 6, 1, 3, 5, 7)).flatten(4).flatten(1, 3)  # B t h w (C tubelet patch patch)
