"""A plugin by path: a predictor that says that everything drifts alike, and learns it not."""

import torch
from torch import Tensor, nn

from jepakit import hookimpl
from jepakit.types import Evidence


class Drift(nn.Module):
    infers = whole = True

    def __init__(self, encoder_width: int, right: float = 0.0):
        super().__init__()
        self.proj, self.right = nn.Linear(encoder_width, encoder_width), right

    def forward(self, seen: Tensor, mask: object, grid: object, condition: Evidence) -> Tensor:
        return self.proj(seen).unsqueeze(1)

    def flow(self, backbone: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        backbone(first), backbone(second)
        flow = torch.zeros(len(first), 2, *first.shape[-2:])
        flow[:, 0] = self.right
        return flow


@hookimpl
def jepakit_register(registrar) -> None:
    registrar.predictor("drift", Drift)
