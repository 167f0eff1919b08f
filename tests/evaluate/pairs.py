"""Pairs whose motion is known, and who says what of it."""

import torch
from torch import Tensor, nn

from jepakit.data import BadSample
from jepakit.data.flow import Truth
from jepakit.jepa import Backbone, Jepa

CONFIG = {
    "run": None,
    "recipe": None,
    "seed": 0,
    "data": {"name": "shifts", "size": 16, "mean": [0.5] * 3, "std": [0.25] * 3, "batch_size": 4, "workers": 0},
    "predictor": {"name": "told"},
}


class Shifts:
    """Noise that moves as a whole, ``index + 1`` pixels to the right; the columns that leave are occluded.

    Pairs in ``bad`` cannot be read, of those in ``mute`` nobody tells the motion. The topmost row is never known.
    """

    classes: dict = {}

    def __init__(self, count: int = 4, side: int = 16, bad: tuple = (), mute: tuple = ()):
        self.count, self.side, self.bad, self.mute = count, side, bad, mute

    def __len__(self) -> int:
        return self.count

    def describe(self, index: int) -> str:
        return f"shift {index}"

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        if index in self.bad:
            raise BadSample(self.describe(index), "made so")
        rng = torch.Generator().manual_seed(index)
        coarse = torch.randint(0, 256, (3, self.side // 4, self.side // 4), generator=rng).float()
        wide = nn.functional.interpolate(coarse[None], size=(self.side, self.side), mode="bicubic")[0].clamp(0, 255)
        return torch.stack([wide, wide.roll(index + 1, 2)], 1).to(torch.uint8), {}

    def truth(self, index: int) -> Truth | None:
        if index in self.mute:
            return None
        flow = torch.zeros(2, self.side, self.side)
        flow[0] = index + 1
        known = torch.ones(self.side, self.side, dtype=torch.bool)
        known[0] = False
        occluded = torch.zeros_like(known)
        occluded[:, self.side - index - 1 :] = True
        return Truth(flow * known, known, occluded)


class Told(nn.Module):
    """A predictor that says what it was told."""

    infers = True

    def __init__(self, right: float = 0.0):
        super().__init__()
        self.right, self.seen = right, []

    def flow(self, backbone: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        assert not self.training and not torch.is_grad_enabled() and first.shape == second.shape
        self.seen.append((first, second))
        flow = torch.zeros(len(first), 2, *first.shape[-2:])
        flow[:, 0] = self.right
        return flow


def figure(predictor: nn.Module) -> Jepa:
    """A model that is nothing but a predictor."""
    return Jepa(Backbone(nn.Identity(), nn.Identity()), predictor, nn.Identity(), lambda *_: torch.zeros(()))
