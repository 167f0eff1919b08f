"""What the parity tests share: a tolerance that tells a right answer from a nearly right one, and a small I-JEPA."""

from typing import Any

import torch
from jepakit_ema.ema import Ema
from jepakit_vit.encoder import VitEncoder
from jepakit_vit.tokenizer import PatchTokenizer
from torch import Tensor, nn

from jepakit.build import Built, build
from jepakit.config import resolve
from jepakit.jepa import Backbone

TOLERANCE = 1e-12
"""In float64 two right answers differ by 1e-15 or so, a wrong one (eps, GELU, order of q and k) by 1e-8 or more."""

DEPTH, HEADS, WIDTH, PATCH = 2, 3, 24, 4
PREDICTOR_DEPTH, PREDICTOR_HEADS, PREDICTOR_WIDTH = 2, 2, 16
SMALL = (
    "tokenizer=patch",
    f"tokenizer.patch={PATCH}",
    "encoder=vit",
    f"encoder.width={WIDTH}",
    f"encoder.depth={DEPTH}",
    f"encoder.heads={HEADS}",
    "predictor=vit_predictor",
    f"predictor.width={PREDICTOR_WIDTH}",
    f"predictor.depth={PREDICTOR_DEPTH}",
    f"predictor.heads={PREDICTOR_HEADS}",
    "masker.min_keep=2",
    "data.size=24",
    "data.batch_size=3",
)


def small(*overrides: str, steps: int = 10) -> tuple[Built, dict[str, Any]]:
    """A small I-JEPA in float64, its weights far from where training starts: no bias is zero, no scale one."""
    config = resolve([*SMALL, *overrides])
    built = build(config, steps)
    return built._replace(jepa=shaken(built.jepa.double())), config


def shaken(module: nn.Module, by: float = 0.3, seed: int = 0) -> Any:
    """``module`` with noise on every weight, another one on each, so that no two networks agree by chance."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(by * torch.randn(p.shape, generator=rng, dtype=torch.float64))
    return module


def prepared(ema: Ema, steps: int) -> Ema:
    """Ready for a run of ``steps``, with the smallest of backbones."""
    ema.prepare(Backbone(PatchTokenizer(3, 4, patch=4), VitEncoder(4, 1, 1)), steps)
    return ema


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some(batch: int, of: int, count: int, seed: int = 0) -> Tensor:
    """``count`` tokens out of ``of`` for each sample, in no order, no token twice. ``batch count``."""
    rng = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(of, generator=rng)[:count] for _ in range(batch)])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
