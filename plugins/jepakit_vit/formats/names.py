"""What every format of a ViT has to know: names and shapes, theirs and ours.

Meta's and timm's names differ from ours in their beginnings only, but for gated MLPs; formats with others translate
them first.
"""

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jepakit.types import Weights
from jepakit_vit.encoder import VitEncoder
from jepakit_vit.formats.tables import KINDS, check_table, computed, grid, shape_text
from jepakit_vit.positions import extent
from jepakit_vit.predictor import VitPredictor
from jepakit_vit.tokenizer import PatchTokenizer

GATED = {"mlp.fc1.": "mlp.fc1_g.", "mlp.fc2.": "mlp.fc1_x.", "mlp.fc3.": "mlp.fc2."}
"""A gated MLP's layers: Meta's, ours."""
PARTS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2", "mlp.fc3")
"""Meta's layers of a block, in their order."""
TOKEN = "mask_token"
COMPONENTS = {
    "tokenizer": ("patch", PatchTokenizer),
    "encoder": ("vit", VitEncoder),
    "predictor": ("vit_predictor", VitPredictor),
}
"""The components that there is a place for, with their registered names."""
LISTED = 6
"""Keys that a refusal names of each sort."""

State = dict[str, Tensor]


class Scheme(NamedTuple):
    """How a family keeps one of its two parts.

    ``names`` are the beginnings of names, theirs and ours, in the order of their module. ``holds`` are the settings in
    which ours could be another model, with the values that have a place there. ``table`` is their name of the table of
    positions; where positions are no table, files may hold one all the same that nobody reads. ``sides`` are those of
    the kernel that cuts pictures. ``tokens`` are mask tokens that are a parameter each.
    """

    part: str
    names: Mapping[str, str]
    holds: Mapping[str, tuple[Any, ...]]
    table: str
    sides: int = 2
    tokens: bool = False

    @property
    def computes(self) -> bool:
        """Whether positions are a table that has to be there."""
        return self.holds["positions"][0] in KINDS


SIMPLE = {"layers": (None,), "levels": (1,), "recalls": (False,), "modality": (False,), "qkv_bias": (True,)}
"""What no format here has room for otherwise."""
IMAGES = {**SIMPLE, "positions": ("sincos_2d",), "mlp": ("gelu",), "tubelet": (1,)}
ENCODER = {"patch_embed.proj.": "tokenizer.proj.", "blocks.": "encoder.blocks.", "norm.": "encoder.norm."}
AROUND = {"predictor_blocks.": "blocks.", "predictor_norm.": "norm.", "predictor_proj.": "proj."}
BACKBONE = Scheme("backbone", ENCODER, IMAGES, "pos_embed")
PREDICTOR = Scheme("predictor", {TOKEN: TOKEN, "predictor_embed.": "embed.", **AROUND}, IMAGES, "predictor_pos_embed")
"""I-JEPA's."""


def ours(state: Mapping[str, Tensor], scheme: Scheme, config: Mapping[str, Any]) -> State:
    """The state of a part under our names, without its table of positions, whose values are checked.

    Raises ValueError that lists the keys which are missing, left over, or of a wrong shape.
    """
    shapes = wanted(config, scheme)
    renamed = {our_name(name, scheme, config): tensor for name, tensor in state.items() if name != scheme.table}
    found = gathered(renamed) if scheme.tokens else renamed
    fitted = {name: _fit(tensor, shapes.get(name), scheme) for name, tensor in found.items()}
    lacks = scheme.computes and scheme.table not in state
    refuse_misfit(fitted, shapes, missing=(scheme.table,) if lacks else ())
    if scheme.computes:
        check_table(scheme.table, state[scheme.table], config)
    return {name: fitted[name] for name in shapes}


def theirs(
    state: Mapping[str, Tensor], scheme: Scheme, config: Mapping[str, Any], table: Tensor | None = None
) -> State:
    """The state of one of our parts under Meta's names, with its table, in the order of Meta's parameters.

    Raises ValueError where the state is not the one that the configuration asks for, or has no place there.
    """
    if scheme.part == "predictor" and not scheme.tokens and (count := config["predictor"].get("mask_tokens", 1)) != 1:
        raise ValueError(f"its predictor has {count} mask tokens; this format holds one")
    refuse_misfit(state, wanted(config, scheme))
    shaped = {name: _unfit(name, tensor, scheme, config) for name, tensor in state.items()}
    single = spread(shaped) if scheme.tokens else shaped
    found = {their_name(name, scheme, config): tensor for name, tensor in single.items()}
    if table is None and scheme.computes:
        table = computed(scheme.table, config, next(iter(state.values())).dtype)
    found |= {} if table is None else {scheme.table: table}
    return {name: found[name] for name in sorted(found, key=lambda name: _rank(name, [*scheme.names]))}


def gathered(state: Mapping[str, Tensor]) -> State:
    """A state whose mask tokens, ``mask_token.0`` and so on, are one tensor, n d."""
    rows = {name.removeprefix(f"{TOKEN}."): t for name, t in state.items() if name.startswith(f"{TOKEN}.")}
    numbers = [str(n) for n in range(max(1, len(rows)))]
    refuse(missing=[f"mask_tokens.{n}" for n in numbers if n not in rows])
    rest = {name: tensor for name, tensor in state.items() if not name.startswith(f"{TOKEN}.")}
    return {**rest, TOKEN: torch.cat([rows[n].flatten(0, -2) for n in numbers])}


def spread(state: Mapping[str, Tensor]) -> State:
    """The way back: each of the mask tokens as it is there, 1 1 d."""
    rows = {f"{TOKEN}.{n}": row[None, None] for n, row in enumerate(state[TOKEN])} if TOKEN in state else {}
    return {name: tensor for name, tensor in state.items() if name != TOKEN} | rows


def our_name(name: str, scheme: Scheme, config: Mapping[str, Any]) -> str:
    """A parameter's name with its beginning exchanged; one that is not known stays, and is left over."""
    if _is_gated(scheme, config):
        name = _swapped(name, GATED)
    return next((mine + name.removeprefix(it) for it, mine in scheme.names.items() if name.startswith(it)), name)


def their_name(name: str, scheme: Scheme, config: Mapping[str, Any]) -> str:
    """The way back."""
    if _is_gated(scheme, config):
        name = _swapped(name, {mine: it for it, mine in GATED.items()})
    return next((it + name.removeprefix(mine) for it, mine in scheme.names.items() if name.startswith(mine)), name)


def wanted(config: Mapping[str, Any], scheme: Scheme) -> dict[str, tuple[int, ...]]:
    """Our names and shapes of the parameters of a backbone or a predictor that a configuration asks for.

    Raises ValueError for other parts than patches, ViT and its predictor.
    """
    channels, width = len(config["data"]["mean"]), config["encoder"]["width"]
    with torch.device("meta"):
        if scheme.part == "predictor":
            module: Any = VitPredictor(width, **_arguments(config, "predictor", scheme))
        else:
            tokenizer = PatchTokenizer(channels, width, **_arguments(config, "tokenizer", scheme))
            encoder = VitEncoder(**_arguments(config, "encoder", scheme))
            module = nn.ModuleDict({"tokenizer": tokenizer, "encoder": encoder})
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def one(weights: Weights, which: str, scheme: Scheme = BACKBONE) -> State:
    """The one backbone that a format has room for, under Meta's names."""
    return theirs(weights.backbones[which], scheme, weights.config, weights.extra.get(f"{which}/{scheme.table}"))


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


def _is_gated(scheme: Scheme, config: Mapping[str, Any]) -> bool:
    return config["predictor" if scheme.part == "predictor" else "encoder"].get("mlp") == "swiglu"


def _swapped(name: str, pieces: Mapping[str, str]) -> str:
    return next((name.replace(piece, other) for piece, other in pieces.items() if piece in name), name)


def _fit(tensor: Tensor, shape: tuple[int, ...] | None, scheme: Scheme) -> Tensor:
    """Meta's convolution as a flat map, I-JEPA's mask token as a row: the same numbers in the same order."""
    if shape is None or tuple(tensor.shape) == shape:
        return tensor
    if tensor.ndim == 2 + scheme.sides and len(shape) == 2:
        return tensor.flatten(1)
    return tensor[0] if tensor.ndim == 3 and len(tensor) == 1 and len(shape) == 2 else tensor


def _unfit(name: str, tensor: Tensor, scheme: Scheme, config: Mapping[str, Any]) -> Tensor:
    """The way back (see ``_fit``); other tensors as they are."""
    if name == "tokenizer.proj.weight":
        patch, tubelet = config["tokenizer"].get("patch", 16), config["tokenizer"].get("tubelet", 1)
        return tensor.unflatten(1, (-1, *(tubelet, patch, patch)[-scheme.sides :]))
    return tensor.unsqueeze(0) if name == TOKEN and not scheme.tokens else tensor


def _rank(name: str, order: list[str]) -> tuple[bool, int, list]:
    """Parameters come in the order of torch: a module's own ones, then those of its parts."""
    place = next((i for i, start in enumerate(order) if name.startswith(start)), len(order))
    number = re.search(r"blocks\.(\d+)\.(.+)\.(weight|bias)$", name)
    inside = [int(number[1]), PARTS.index(number[2])] if number else [int(n) for n in re.findall(r"\.(\d+)$", name)]
    return "." in name, place, [*inside, name.endswith("bias")]


def _natural(name: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _arguments(config: Mapping[str, Any], part: str, scheme: Scheme) -> dict[str, Any]:
    """A node's settings, as arguments. Raises ValueError for those that make it a model with no place there."""
    node, (name, component) = config[part], COMPONENTS[part]
    if node["name"] != name:
        raise ValueError(f"its {part} is {node['name']!r}; this format holds {name!r}")
    known = inspect.signature(component).parameters
    for key, values in scheme.holds.items():
        if key in known and (value := node.get(key, known[key].default)) not in values:
            raise ValueError(f"its {part} has {key}={value}; this format holds {_either(values)} only")
    if node.get("positions", "sincos_2d") not in KINDS:
        _refuse_scaled(part, node, config)
    lists = {key: tuple(value) for key, value in node.items() if isinstance(value, list)}
    return {key: value for key, value in {**node, **lists}.items() if key != "name"}


def _refuse_scaled(part: str, node: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValueError where rotary places are scaled, which no format says."""
    here = grid(config)
    if node.get("native") and (known := extent(here, tuple(node["native"]))) != here:
        raise ValueError(
            f"the places of its {part} are scaled to {shape_text(known)} from {shape_text(here)}; this format has no "
            "word for that"
        )


def _either(values: tuple[Any, ...]) -> str:
    return " or ".join("none" if value is None else str(value) for value in values)
