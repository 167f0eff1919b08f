"""One tokenizer for clips and for pictures, which are no clips that stand still (V-JEPA 2.1)."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.types import Grid
from jepakit_vit.initialise import modalities
from jepakit_vit.tokenizer import PatchTokenizer


class JointTokenizer(nn.Module):
    """Clips are cut into boxes of ``tubelet`` frames, pictures (clips of one frame) into patches. Each has a linear map
    of its own, and a learned vector that is added to all of its tokens.

    Args:
        init_std: standard deviation of the initial weights, see ``PatchTokenizer``.

    Raises:
        ValueError: where a clip's sides are not multiples of the box's.
    """

    tiny = {"patch": 8}

    def __init__(
        self, channels: int, encoder_width: int, patch: int = 16, tubelet: int = 2, init_std: float | None = None
    ):
        super().__init__()
        self.pictures = PatchTokenizer(channels, encoder_width, patch, 1, init_std)
        self.clips = PatchTokenizer(channels, encoder_width, patch, tubelet, init_std)
        self.modality = modalities(encoder_width)

    def grid(self, t: int, h: int, w: int) -> Grid:
        """The grid of tokens of a clip of ``t`` frames of ``h`` by ``w`` pixels."""
        return (self.clips if t > 1 else self.pictures).grid(t, h, w)

    def forward(
        self, pixels: Float[Tensor, "B C T H W"], keep: Int[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B K D"]:
        moves = pixels.shape[2] > 1
        return (self.clips if moves else self.pictures)(pixels, keep) + self.modality[int(moves)]
