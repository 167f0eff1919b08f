"""The settings of a ViT: what its shapes show, what they do not, and what a file written here says of itself."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from jepakit.protocols import Content
from jepakit.types import Weights
from jepakit_vit.block import ALIGNED
from jepakit_vit.formats.names import refuse

KEY = "jepakit_config"
"""Under it, files that are written here carry what they would not say otherwise: a JSON text."""
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
"""Attention heads of the released sizes by width; a predictor has as many as its encoder."""
RATIOS = (4.0, 48 / 11, 64 / 13)
"""MLP ratios of released sizes."""


def settings(state: Mapping[str, Tensor], heads: int, size: int | None = None) -> dict[str, Any]:
    """The nodes ``tokenizer``, ``encoder`` and ``data`` that a backbone's shapes (Meta's names) stand for."""
    refuse(missing={"pos_embed"} - state.keys())
    found = backbone_settings(state, heads)
    tokens, patch = state["pos_embed"].shape[1], found["tokenizer"]["patch"]
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"{tokens} tokens: only squares of square patches are known")
    found["data"] = {"size": size or side * patch, **found["data"]}
    return found


def backbone_settings(state: Mapping[str, Tensor], heads: int) -> dict[str, Any]:
    """As ``settings``, without ``data.size``; of clips too."""
    refuse(missing={"patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "norm.weight"} - state.keys())
    width, channels, *tubelet, patch, other = state["patch_embed.proj.weight"].shape
    if patch != other:
        raise ValueError(f"patches of {patch} x {other} pixels: only squares of square patches are known")
    if channels != len(IMAGENET_DEFAULT_MEAN):
        raise ValueError(f"it reads {channels} channels, and does not say with which mean and deviation")
    return {
        "tokenizer": {"name": "patch", "patch": patch, **({"tubelet": tubelet[0]} if tubelet else {})},
        "encoder": {"name": "vit", "width": width, "heads": heads, **_stack(state, "blocks", width)},
        "data": {"mean": [*IMAGENET_DEFAULT_MEAN], "std": [*IMAGENET_DEFAULT_STD]},
    }


def predictor_settings(state: Mapping[str, Tensor], heads: int) -> dict[str, Any]:
    """The node ``predictor`` that a predictor's shapes (Meta's names) stand for."""
    refuse(missing={"predictor_embed.weight", "predictor_blocks.0.mlp.fc1.weight"} - state.keys())
    width = state["predictor_embed.weight"].shape[0]
    return {"name": "vit_predictor", "width": width, "heads": heads, **_stack(state, "predictor_blocks", width)}


def ratio(width: int, hidden: int) -> float:
    """The MLP ratio that gives ``hidden`` units where the product is cut off."""
    found = hidden / width
    while int(width * found) < hidden:  # the quotient was rounded down
        found = math.nextafter(found, math.inf)
    return found


def gated_ratio(width: int, hidden: int) -> float:
    """The MLP ratio that gives a gated MLP ``hidden`` units, a released one where it does."""
    fits = (each for each in RATIOS if -(-int(2 * int(width * each) / 3) // ALIGNED) * ALIGNED == hidden)
    return next(fits, ratio(width, hidden * 3 // 2))


def heads_of(width: int, given: Mapping[str, Any], known: Mapping[int, int] = HEADS) -> int:
    """Attention heads, which no shape shows: as given, else those of the released size of that width."""
    heads = given.get("heads", known.get(width))
    if heads is None:
        sizes = ", ".join(map(str, known))
        raise ValueError(f"a width of {width} is no released size ({sizes}), and no shape shows the heads: add heads=N")
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise ValueError(f"heads={heads} do not divide a width of {width}")
    return heads


def carried(content: Content) -> dict[str, Any]:
    """What a file that was written here says of itself: ``config``, ``weights`` and ``about``; empty for others."""
    return json.loads(content.values[KEY]) if KEY in content.values else {}


def carry(weights: Weights, which: str) -> str:
    """What a file that is written here says of itself."""
    return json.dumps({"config": weights.config, "weights": which, "about": weights.about})


def _stack(state: Mapping[str, Tensor], stem: str, width: int) -> dict[str, Any]:
    """Depth and MLP of a stack of blocks."""
    numbers = [int(match[1]) for name in state if (match := re.match(rf"{stem}\.(\d+)\.", name))]
    hidden, depth = state[f"{stem}.0.mlp.fc1.weight"].shape[0], max(numbers) + 1
    if f"{stem}.0.mlp.fc3.weight" in state:
        return {"depth": depth, "mlp_ratio": gated_ratio(width, hidden), "mlp": "swiglu"}
    return {"depth": depth, "mlp_ratio": ratio(width, hidden)}
