"""What every format of a ViT has to know: names, shapes, and tables of positions.

Meta's and timm's names differ from ours in their beginnings only; formats with others translate them first.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jepakit.types import Grid, Weights
from jepakit_vit.encoder import VitEncoder
from jepakit_vit.positions import sincos_2d
from jepakit_vit.predictor import VitPredictor
from jepakit_vit.tokenizer import PatchTokenizer

BACKBONE = {"patch_embed.proj.": "tokenizer.proj.", "blocks.": "encoder.blocks.", "norm.": "encoder.norm."}
PREDICTOR = {
    "mask_token": "mask_token",
    "predictor_embed.": "embed.",
    "predictor_blocks.": "blocks.",
    "predictor_norm.": "norm.",
    "predictor_proj.": "proj.",
}
"""Beginnings of names: Meta's, ours. Their order is that of the parameters in Meta's modules."""
PLAIN = {"positions": "sincos_2d", "mlp": "gelu", "qkv_bias": True, "tubelet": 1}
"""Settings in which I-JEPA's parts could be others, and then have no place in these formats."""
TABLES = {"pos_embed": "encoder", "predictor_pos_embed": "predictor"}
DRIFT = 2e-3
"""How far a stored table of positions may be from the computed one.

Released target encoders are off by rounding: the moving average runs over the frozen tables too. Its arithmetic over
the schedule of 300 epochs leaves 1.4e-4. Learned tables, or those of another kind, are off by far more.
"""
LISTED = 6
"""Keys that a refusal names of each sort."""

State = dict[str, Tensor]


def ours(state: Mapping[str, Tensor], names: Mapping[str, str], config: Mapping[str, Any]) -> State:
    """The state of a part under our names, without its table of positions, whose values are checked.

    Raises ValueError that lists the keys which are missing, left over, or of a wrong shape.
    """
    shapes = wanted(config, names)
    table = _table(names)
    found = {our_name(name, names): tensor for name, tensor in state.items() if name != table}
    fitted = {name: _fit(tensor, shapes.get(name)) for name, tensor in found.items()}
    refuse_misfit(fitted, shapes, missing=() if table in state else (table,))
    check_table(table, state[table], config)
    return {name: fitted[name] for name in shapes}


def drifted(state: Mapping[str, Tensor], part: str, config: Mapping[str, Any]) -> State:
    """A table that is not the computed one to the last bit, as ``<part>/<name>``: to be written back as it was."""
    tables = {name: tensor for name, tensor in state.items() if name in TABLES and not tensor.is_meta}
    return {f"{part}/{k}": v for k, v in tables.items() if not torch.equal(v, computed(k, config, v.dtype))}


def theirs(
    state: Mapping[str, Tensor], names: Mapping[str, str], config: Mapping[str, Any], table: Tensor | None = None
) -> State:
    """The state of one of our parts under Meta's names, with its table, in the order of Meta's parameters.

    Raises ValueError where the state is not the one that the configuration asks for, or has no place there.
    """
    if names is PREDICTOR and config["predictor"].get("mask_tokens", 1) != 1:
        raise ValueError(f"its predictor has {config['predictor']['mask_tokens']} mask tokens; this format holds one")
    refuse_misfit(state, wanted(config, names))
    back = {mine: other for other, mine in names.items()}
    found = {our_name(name, back): _unfit(name, tensor, config) for name, tensor in state.items()}
    dtype = next(iter(state.values())).dtype
    found[_table(names)] = computed(_table(names), config, dtype) if table is None else table
    order = ["mask_token", _table(names), *names]
    return {name: found[name] for name in sorted(found, key=lambda name: _rank(name, order))}


def our_name(name: str, names: Mapping[str, str]) -> str:
    """A parameter's name with its beginning exchanged; one that is not known stays, and is left over."""
    return next((mine + name.removeprefix(other) for other, mine in names.items() if name.startswith(other)), name)


def wanted(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Our names and shapes of the parameters of a backbone or a predictor that a configuration asks for.

    Raises ValueError for other parts than patches, ViT and its predictor.
    """
    channels, width = len(config["data"]["mean"]), config["encoder"]["width"]
    with torch.device("meta"):
        if names is PREDICTOR:
            module: Any = VitPredictor(width, **_arguments(config, "predictor", "vit_predictor"))
        else:
            tokenizer = PatchTokenizer(channels, width, **_arguments(config, "tokenizer", "patch"))
            encoder = VitEncoder(**_arguments(config, "encoder", "vit"))
            module = nn.ModuleDict({"tokenizer": tokenizer, "encoder": encoder})
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def one(weights: Weights, which: str) -> State:
    """The one backbone that a format has room for, under Meta's names."""
    return theirs(weights.backbones[which], BACKBONE, weights.config, weights.extra.get(f"{which}/pos_embed"))


def grid(config: Mapping[str, Any]) -> Grid:
    """The grid of tokens of a picture."""
    side, rest = divmod(config["data"]["size"], config["tokenizer"].get("patch", 16))
    if rest:
        raise ValueError(f"pictures of {config['data']['size']} pixels cannot be cut into its patches")
    return Grid(1, side, side)


def positions(part: str, config: Mapping[str, Any]) -> Tensor:
    """The table of positions of ``encoder`` or ``predictor``, N D in float64."""
    native = config[part].get("native")
    return sincos_2d(grid(config), config[part]["width"], tuple(native) if native else None)


def computed(table: str, config: Mapping[str, Any], dtype: torch.dtype) -> Tensor:
    """A table as it is stored, 1 N D: computed in float64, rounded to float32, then to the file's type."""
    return positions(TABLES[table], config).float().to(dtype).unsqueeze(0)


def check_table(name: str, table: Tensor, config: Mapping[str, Any]) -> None:
    """Raise ValueError where a stored table of positions is not the computed one, but for rounding."""
    expected = computed(name, config, table.dtype)
    if table.shape != expected.shape:
        raise ValueError(f"wrong shape: {name} ({shape_text(table.shape)}, not {shape_text(expected.shape)})")
    if not table.is_meta and (gap := (table.float() - expected.float()).abs().max()) > DRIFT:
        raise ValueError(f"its positions are learned or of another kind: {name} is up to {gap:.2g} off sine and cosine")


def refuse_misfit(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], missing: Iterable[str] = ()
) -> None:
    """Raise ValueError that lists the keys of a state which are missing, left over, or of a wrong shape."""
    wrong = [
        f"{name} ({shape_text(tensor.shape)}, not {shape_text(shapes[name])})"
        for name, tensor in state.items()
        if name in shapes and tuple(tensor.shape) != shapes[name]
    ]
    lacking = (shapes.keys() - state.keys()) | set(missing)
    refuse(missing=lacking, left_over=state.keys() - shapes.keys(), wrong_shape=wrong)


def refuse(**found: Iterable[str]) -> None:
    """Raise ValueError that lists the keys of each sort (``missing``, ``left_over``, ...), if there are any."""
    sorts = {sort.replace("_", " "): sorted(names, key=_natural) for sort, names in found.items()}
    said = [
        f"{sort}: {', '.join(names[:LISTED])}" + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
        for sort, names in sorts.items()
        if names
    ]
    if said:
        raise ValueError("; ".join(said))


def _fit(tensor: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    """Meta's convolution as a flat map, Meta's mask token as a row: the same numbers in the same order."""
    if shape is None or tuple(tensor.shape) == shape:
        return tensor
    if tensor.ndim == 4 and len(shape) == 2:
        return tensor.flatten(1)
    return tensor[0] if tensor.ndim == 3 and len(tensor) == 1 and len(shape) == 2 else tensor


def _unfit(name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
    """The way back (see ``_fit``); other tensors as they are."""
    if name == "tokenizer.proj.weight":
        patch = config["tokenizer"].get("patch", 16)
        return tensor.unflatten(1, (-1, patch, patch))
    return tensor.unsqueeze(0) if name == "mask_token" else tensor


def _rank(name: str, order: list[str]) -> tuple[int, list]:
    place = next((i for i, start in enumerate(order) if name.startswith(start)), len(order))
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    number = re.search(r"blocks\.(\d+)\.(.+)\.(weight|bias)$", name)
    inside = [int(number[1]), parts.index(number[2])] if number else []
    return place, [*inside, name.endswith("bias")]


def _natural(name: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _arguments(config: Mapping[str, Any], part: str, name: str) -> dict[str, Any]:
    if config[part]["name"] != name:
        raise ValueError(f"its {part} is {config[part]['name']!r}; this format holds {name!r}")
    for key, value in PLAIN.items():
        if (found := config[part].get(key, value)) != value:
            raise ValueError(f"its {part} has {key}={found}; this format holds {value} only")
    lists = {key: tuple(value) for key, value in config[part].items() if isinstance(value, list)}
    return {key: value for key, value in {**config[part], **lists}.items() if key != "name"}


def _table(names: Mapping[str, str]) -> str:
    return "predictor_pos_embed" if names is PREDICTOR else "pos_embed"


def shape_text(shape: Iterable[int]) -> str:
    """A shape as people write it: ``24 x 3 x 4 x 4``."""
    return " x ".join(map(str, shape)) or "a number"
