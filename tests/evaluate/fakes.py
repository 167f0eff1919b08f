"""A source and a backbone small enough to know the answer."""

import torch
from torch import Tensor, nn

from jepakit.data import BadSample
from jepakit.types import Grid

DATA = {"name": "stripes", "size": 8, "mean": [0.5] * 3, "std": [0.25] * 3, "batch_size": 32, "workers": 0}


class Stripes:
    """Pictures of stripes over noise; the class is which way they run, if any."""

    def __init__(self, count: int = 200, size: int = 8, labelled: bool = True, bad: tuple = (), seed: int = 0):
        self.count, self.size, self.bad, self.seed = count, size, bad, seed
        self.classes = {"class": ("rows", "columns", "plain")} if labelled else {}

    def __len__(self) -> int:
        return self.count

    def describe(self, index: int) -> str:
        return f"stripes {self.seed}/{index}"

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int]]:
        if index in self.bad:
            raise BadSample(self.describe(index), "made so")
        rng = torch.Generator().manual_seed(self.seed * 10_000 + index)
        picture = torch.randint(0, 120, (3, 1, self.size, self.size), generator=rng, dtype=torch.uint8)
        kind = index % 3
        if kind == 0:
            picture[:, :, ::2] += 130
        if kind == 1:
            picture[..., ::2] += 130
        return picture, {"class": kind} if self.classes else {}

    def held_out_source(self) -> "Stripes | None":
        return Stripes(60, self.size, bool(self.classes), seed=self.seed + 1)


class Blocks(nn.Module):
    """A backbone: patches of two pixels, projected at random; with dropout, which an evaluation must not see."""

    width = 16

    def __init__(self, seed: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 12, generator=torch.Generator().manual_seed(seed)))
        self.drop = nn.Dropout(0.5)

    def grid(self, pixels: Tensor) -> Grid:
        return Grid(pixels.shape[2], pixels.shape[3] // 2, pixels.shape[4] // 2)

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        b, c, t, h, w = pixels.shape
        patches = pixels.view(b, c, t, h // 2, 2, w // 2, 2).permute(0, 2, 3, 5, 1, 4, 6).reshape(b, -1, 4 * c)
        return self.drop(patches @ self.weight.T).relu()
