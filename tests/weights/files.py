"""Files as others write them, and models that are unlike in every way that a format has to care about."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from jepakit.build import build
from jepakit.optim import adamw
from jepakit.types import Weights
from jepakit.weights import entry, native
from tests.weights import made

MODELS = {
    "plain": (),
    "patch14": ("tokenizer.patch=14", "data.size=56", "data.side=56", "encoder.mlp_ratio=4.363636363636363"),
    "uneven": ("encoder.depth=2", "encoder.heads=2", "encoder.drop_path=0.1", "predictor.heads=4", "predictor.depth=2"),
    "native": ("encoder.native=[2,2]", "predictor.native=[2,2]", "data.mean=[0.5,0.4,0.3]"),
}
EVERYTHING = ("safetensors", "meta", "hf", "timm")
SUFFIX = {"safetensors": ".safetensors", "meta": ".pth.tar", "hf": "", "timm": ""}
SUFFIX |= {"vjepa": ".pth.tar", "vjepa2": ".pt", "hf_vjepa2": ""}


def model(name: str = "plain") -> Weights:
    """Weights after two steps on gradients of noise, with all that a run has; not to be changed."""
    return trained(*MODELS[name])


@functools.cache
def trained(*settings: str) -> Weights:
    """As ``model``, of these settings."""
    config = made.config(*settings)
    built = build(config)
    optimizer = adamw(built.jepa, {**config["optim"], "lr": 1e-2})
    for step in range(2):
        for parameter in built.jepa.parameters():
            parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
        optimizer.step()
        built.jepa.anti_collapse.after_step(built.jepa.backbone, step)
    return made.weights(config, built, optimizer)


def written(folder: Path, weights: Weights | None = None) -> Path:
    """A jepakit file."""
    file = folder / "model.safetensors"
    file = file if not file.exists() else folder / "other.safetensors"
    native.save(weights or model(), "target", file)
    return file


def exported(source: Path, to: str, name: str = "", **more: Any) -> Path:
    """What ``jepakit export`` makes of a file, beside it."""
    out = source.parent / f"{name or to}{SUFFIX[to]}"
    assert entry.export([str(source), "--to", to, f"out={out}", *(f"{k}={v}" for k, v in more.items())], []) == 0
    return out


class Predictor(nn.Module):
    """The parameters of the released predictor, in their order; it is never called."""

    def __init__(self, width: int, depth: int, wide: int, side: int):
        super().__init__()
        self.predictor_embed = nn.Linear(wide, width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, width))
        self.predictor_pos_embed = nn.Parameter(table(side, width), requires_grad=False)
        self.predictor_blocks = nn.ModuleList(Block(width, 2, qkv_bias=True) for _ in range(depth))
        self.predictor_norm = nn.LayerNorm(width)
        self.predictor_proj = nn.Linear(width, wide)


def table(side: int, width: int) -> Tensor:
    """The released table of positions: numpy in float64, column first, then float32."""
    rate = 1.0 / 10000 ** (np.arange(width // 4) / (width / 4))
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    angles = [place.reshape(-1, 1) * rate for place in (columns, rows)]
    found = np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)
    return torch.from_numpy(found).float().unsqueeze(0)


@functools.cache
def released() -> tuple[nn.Module, nn.Module, torch.optim.AdamW]:
    """Encoder, predictor and optimiser as the released code makes them, of parts that are not jepakit's, after two
    steps on gradients of noise."""
    torch.manual_seed(0)
    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    sizes = {"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 48 / 11}
    plain = {"class_token": False, "global_pool": "", "num_classes": 0, "norm_layer": norm}
    encoder, predictor = VisionTransformer(**sizes, **plain), Predictor(12, 2, 24, 4)
    encoder.pos_embed = nn.Parameter(table(4, 24), requires_grad=False)
    parts = [list(part.named_parameters()) for part in (encoder, predictor)]

    def exempt(name: str, value: Tensor) -> bool:
        return "bias" in name or value.ndim == 1

    groups = [{"params": [p for n, p in part if not exempt(n, p)]} for part in parts]
    groups += [
        {"params": [p for n, p in part if exempt(n, p)], "WD_exclude": True, "weight_decay": 0} for part in parts
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    for _ in range(2):
        for _, p in (*parts[0], *parts[1]):
            p.grad = torch.randn_like(p) if p.requires_grad else None
        optimizer.step()
    return encoder, predictor, optimizer


def meta(folder: Path, **changes: Any) -> Path:
    """A checkpoint as the released code leaves it. ``changes`` are keys at its top; None leaves one out."""
    encoder, predictor, optimizer = released()
    target = {f"module.{name}": tensor * 0.5 for name, tensor in encoder.state_dict().items()}
    target["module.pos_embed"] = encoder.pos_embed.detach() * (1 + 1e-6)  # the moving average rounds the table too
    found = {
        "encoder": {f"module.{name}": tensor for name, tensor in encoder.state_dict().items()},
        "predictor": {f"module.{name}": tensor for name, tensor in predictor.state_dict().items()},
        "target_encoder": target,
        "opt": optimizer.state_dict(),
        "scaler": {"scale": 1024.0, "growth_factor": 2.0},
        **{"epoch": 7, "loss": 0.25, "batch_size": 4, "world_size": 1, "lr": 1e-3},
        **changes,
    }
    file = folder / "released.pth.tar"
    torch.save({key: value for key, value in found.items() if value is not None}, file)
    return file


def changed(file: Path, part: str, **tensors: Tensor | None) -> Path:
    """A part of a checkpoint with other tensors, dots in names written as two underscores; None takes one away."""
    found = torch.load(file, weights_only=True)
    for name, tensor in tensors.items():
        key = "module." + name.replace("__", ".")
        found[part].pop(key, None)
        if tensor is not None:
            found[part][key] = tensor
    torch.save(found, file)
    return file


def same(one: Weights, other: Weights, *parts: str) -> None:
    """The same tensors to the last bit, under the same names."""
    for part in parts or ("backbones", "predictor", "optimizer"):
        mine, theirs = (_flat(getattr(each, part)) for each in (one, other))
        assert mine.keys() == theirs.keys(), part
        for name, tensor in mine.items():
            assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), f"{part} {name}"


def same_checkpoint(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Two of the released training code: every tensor in its order, the numbers of the optimiser, every value."""
    assert before.keys() == after.keys()
    for part in ("encoder", "target_encoder", "predictor"):
        assert list(before[part]) == list(after[part])
        assert all(torch.equal(tensor, after[part][name]) for name, tensor in before[part].items())
    assert before["opt"]["state"].keys() == after["opt"]["state"].keys()
    for number, state in before["opt"]["state"].items():
        assert all(torch.equal(tensor, after["opt"]["state"][number][key]) for key, tensor in state.items())
    groups = [[{**g, "betas": list(g["betas"])} for g in each["opt"]["param_groups"]] for each in (before, after)]
    assert groups[0] == groups[1]
    rest = before.keys() - {"encoder", "target_encoder", "predictor", "opt"}
    assert {key: before[key] for key in rest} == {key: after[key] for key in rest}


def _flat(found: dict[str, Any]) -> dict[str, Tensor]:
    inner = {f"{k}/{name}": v for k, each in found.items() if isinstance(each, dict) for name, v in each.items()}
    return inner or found
