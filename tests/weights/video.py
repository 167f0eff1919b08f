"""Video models: some of jepakit's, and files of the released code as it leaves them."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from jepakit.types import Weights
from tests.weights import files

CLIPS = (
    *("masker=tubes", "masker.blocks=[1]", "masker.scales=[0.5]", "masker.min_keep=", "data.frames=4"),
    *("data.length=8", "tokenizer.tubelet=2", "predictor.zero_mask_tokens=true"),
)
"""Clips of 4 x 32 x 32 as 2 x 4 x 4 tokens."""
TABLES = ("encoder.positions=sincos_3d", "predictor.positions=sincos_3d", "predictor.mask_tokens=2")
TURNED = (
    *("encoder.positions=rope_tiled", "predictor.positions=rope_tiled", "predictor.share_mask_token=true"),
    *("encoder.heads=2", "predictor.heads=1"),
)
MODELS = {
    "vjepa": TABLES,
    "vjepa native": (*TABLES, "encoder.native=[3,2,2]", "predictor.native=[3,3]", "encoder.depth=2"),
    "vjepa2": TURNED,
    "vjepa2 tokens": (*TURNED, "predictor.mask_tokens=3", "encoder.mlp_ratio=3.9", "encoder.native=[4,4]"),
    "vjepa2 gated": (*TURNED, "encoder.mlp=swiglu", "predictor.mlp=swiglu", "encoder.depth=2"),
    "vjepa2 bare": (*TURNED, "encoder.qkv_bias=false", "predictor.qkv_bias=false"),
}
FIRST, SECOND, HUGGING_FACE = ("safetensors", "vjepa"), ("safetensors", "vjepa2"), ("safetensors", "hf_vjepa2")
HOLD = {
    **{"vjepa": FIRST, "vjepa native": FIRST, "vjepa2 gated": SECOND, "vjepa2 bare": HUGGING_FACE},
    **dict.fromkeys(("vjepa2", "vjepa2 tokens"), (*SECOND, "hf_vjepa2")),
}
"""The formats that have room for a model."""
GIVEN = {"heads": 2, "predictor_heads": 1}
"""Which no file of a small model says."""
FRAMES, SIZE, PATCH, TUBELET = 4, 32, 8, 2
DEPTH, WIDTH, NARROW = 2, 24, 12


def model(name: str) -> Weights:
    """Weights with all that a run has; not to be changed."""
    return files.trained(*CLIPS, *MODELS[name])


def written(folder: Path, name: str) -> Path:
    """A jepakit file with them."""
    return files.written(folder, model(name))


class Gated(nn.Module):
    """The parameters of the released gated MLP, in their order."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)


def blocks(width: int, heads: int, gated: bool) -> nn.ModuleList:
    made = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(DEPTH))
    for block in made if gated else ():
        block.mlp = Gated(width, int(4 * width * 2 / 3))
    return made


class Encoder(nn.Module):
    """The parameters of the released encoder, in their order; it is never called."""

    def __init__(self, tables: bool, gated: bool):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv3d(3, WIDTH, (TUBELET, PATCH, PATCH))
        if tables:
            self.pos_embed = nn.Parameter(table(WIDTH), requires_grad=False)
        self.blocks, self.norm = blocks(WIDTH, 2, gated), nn.LayerNorm(WIDTH)


class Predictor(nn.Module):
    """The parameters of the released predictor, in their order; it is never called."""

    def __init__(self, tables: bool, tokens: int):
        super().__init__()
        self.predictor_embed = nn.Linear(WIDTH, NARROW)
        self.mask_tokens = nn.ParameterList(torch.randn(1, 1, NARROW) for _ in range(tokens))
        if tables:
            self.predictor_pos_embed = nn.Parameter(table(NARROW), requires_grad=False)
        self.predictor_blocks = blocks(NARROW, 1, False)
        self.predictor_norm, self.predictor_proj = nn.LayerNorm(NARROW), nn.Linear(NARROW, WIDTH)


def table(width: int, frames: int = FRAMES, size: int = SIZE) -> Tensor:
    """The released table of positions: numpy in float64, axis by axis of the same width, then float32."""
    channels = math.ceil(width / 6)
    rate = 1.0 / 10000 ** (np.arange(channels) / channels)
    axes = [np.arange(count) for count in (frames // TUBELET, size // PATCH, size // PATCH)]
    angles = [place.reshape(-1, 1) * rate for place in np.meshgrid(*axes, indexing="ij")]
    found = np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)
    return torch.from_numpy(found[:, :width]).float().unsqueeze(0)


@functools.cache
def released(tables: bool = True, tokens: int = 2, gated: bool = False) -> tuple[nn.Module, nn.Module, Any]:
    """Encoder, predictor and optimiser as the released code makes them, of parts that are not jepakit's, after two
    steps on gradients of noise. Of more than two mask tokens the first one alone is used."""
    torch.manual_seed(0)
    encoder, predictor = Encoder(tables, gated), Predictor(tables, tokens)
    parts = [list(part.named_parameters()) for part in (encoder, predictor)]

    def exempt(name: str, value: Tensor) -> bool:
        return "bias" in name or value.ndim == 1

    groups: list[Any] = [{"params": [p for n, p in part if not exempt(n, p)]} for part in parts]
    groups += [
        {"params": [p for n, p in part if exempt(n, p)], "WD_exclude": True, "weight_decay": 0} for part in parts
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    unused = {id(token) for token in predictor.mask_tokens[1:]} if tokens > 2 else set()
    for _ in range(2):
        for _, p in (*parts[0], *parts[1]):
            p.grad = torch.randn_like(p) if p.requires_grad and id(p) not in unused else None
        optimizer.step()
    return encoder, predictor, optimizer


def checkpoint(folder: Path, *, tables: bool = True, tokens: int = 2, gated: bool = False, **changes: Any) -> Path:
    """A checkpoint as the released code leaves it. ``changes`` are keys at its top; None leaves one out."""
    encoder, predictor, optimizer = released(tables, tokens, gated)
    states = [{f"module.backbone.{k}": v for k, v in part.state_dict().items()} for part in (encoder, predictor)]
    found = {
        **{"encoder": states[0], "predictor": states[1]},
        "opt": optimizer.state_dict(),
        "scaler": {"scale": 1024.0, "growth_factor": 2.0},
        "target_encoder": {k: v * (1 + 1e-6 if "pos_embed" in k else 0.5) for k, v in states[0].items()},
        **{"epoch": 7, "loss": 0.25, "batch_size": 4, "world_size": 1, "lr": 1e-3},
        **changes,
    }
    file = folder / "released.pt"
    torch.save({key: value for key, value in found.items() if value is not None}, file)
    return file
