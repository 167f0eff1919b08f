"""Tables of positions, which released files hold and nothing here does: they are computed, compared, written."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jepakit.types import Grid
from jepakit_vit.positions import sincos_2d, sincos_3d

TABLES = {"pos_embed": "encoder", "predictor_pos_embed": "predictor"}
DRIFT = 2e-3
"""How far a stored table of positions may be from the computed one.

Released target encoders are off by rounding: the moving average runs over the frozen tables too. Its arithmetic over
the schedule of 300 epochs leaves 1.4e-4. Learned tables, or those of another kind, are off by far more.
"""
KINDS = {"sincos_2d": sincos_2d, "sincos_3d": sincos_3d}
"""Positions that are tables."""


def grid(config: Mapping[str, Any]) -> Grid:
    """The grid of tokens of a picture or clip."""
    data, tokenizer = config["data"], config["tokenizer"]
    frames, tubelet = data.get("frames", 1), tokenizer.get("tubelet", 1)
    side, rest = divmod(data["size"], tokenizer.get("patch", 16))
    if rest:
        raise ValueError(f"pictures of {data['size']} pixels cannot be cut into its patches")
    if frames > 1 and frames % tubelet:
        raise ValueError(f"clips of {frames} frames cannot be cut into its tubelets of {tubelet}")
    return Grid(max(1, frames // tubelet), side, side)


def computed(table: str, config: Mapping[str, Any], dtype: torch.dtype) -> Tensor:
    """A table as it is stored, 1 N D: computed in float64, rounded to float32, then to the file's type."""
    node = config[TABLES[table]]
    native = node.get("native")
    kind = KINDS[node.get("positions", "sincos_2d")]
    found = kind(grid(config), node["width"], tuple(native) if native else None)
    return found.float().to(dtype).unsqueeze(0)


def check_table(name: str, table: Tensor, config: Mapping[str, Any]) -> None:
    """Raise ValueError where a stored table of positions is not the computed one, but for rounding."""
    expected = computed(name, config, table.dtype)
    if table.shape != expected.shape:
        raise ValueError(f"wrong shape: {name} ({shape_text(table.shape)}, not {shape_text(expected.shape)})")
    if not table.is_meta and (gap := (table.float() - expected.float()).abs().max()) > DRIFT:
        raise ValueError(f"its positions are learned or of another kind: {name} is up to {gap:.2g} off sine and cosine")


def drifted(state: Mapping[str, Tensor], part: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """A table that is not the computed one to the last bit, or is one that the model does not use, as
    ``<part>/<name>``: to be written back as it was."""
    tables = {name: tensor for name, tensor in state.items() if name in TABLES and not tensor.is_meta}
    return {f"{part}/{name}": table for name, table in tables.items() if not _is_computed(name, table, config)}


def _is_computed(name: str, table: Tensor, config: Mapping[str, Any]) -> bool:
    if config[TABLES[name]].get("positions", "sincos_2d") not in KINDS:
        return False
    return torch.equal(table, computed(name, config, table.dtype))


def shape_text(shape: Any) -> str:
    """A shape as people write it: ``24 x 3 x 4 x 4``."""
    return " x ".join(map(str, shape)) or "a number"
