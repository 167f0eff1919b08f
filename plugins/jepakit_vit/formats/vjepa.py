"""Meta's checkpoints of video models, V-JEPA and V-JEPA 2. Its descendants are recognised, and refused.

All are as I-JEPA's (see ``checkpoint``), but for a convolution over tubelets and a parameter for each mask token.
V-JEPA's positions are a table; V-JEPA 2's are none, though its released files hold tables that nobody reads.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from jepakit.protocols import Content
from jepakit.types import Weights
from jepakit_vit.formats import checkpoint
from jepakit_vit.formats.names import AROUND, ENCODER, SIMPLE, Scheme, State, refuse
from jepakit_vit.formats.settings import HEADS, backbone_settings, carried, heads_of, predictor_settings

PREFIXES = ("module.", "backbone.")
PLACES = {**checkpoint.PLACES, "ema_encoder": "target"}
TOKENS = {"predictor_embed.": "embed.", "mask_tokens.": "mask_token.", **AROUND}
TABLES = {**SIMPLE, "positions": ("sincos_3d",), "mlp": ("gelu",)}
TURNED = {**SIMPLE, "positions": ("rope_tiled",), "mlp": ("gelu", "swiglu")}
KINDS = 2
"""Mask tokens of V-JEPA, one for each kind of mask; V-JEPA 2 has more."""
STRIDE, FPS = 4, 4.0
"""Of the clips that V-JEPA, and V-JEPA 2, were trained on."""
ASSUMED = {"size": 256, "frames": 64}
"""Clips of V-JEPA 2's released models, but for one of 384 pixels: its files do not say it."""
PREDICTOR_HEADS = 12
"""Of V-JEPA 2; V-JEPA's predictor has as many as its encoder."""
HEADS_2 = {**HEADS, 1408: 22, 1664: 26}
FOREIGN = {
    "action_encoder.weight": "an action-conditioned predictor (V-JEPA 2-AC)",
    "patch_embed_img.proj.weight": "a tokenizer for pictures (V-JEPA 2.1)",
    "norms_block.0.weight": "norms of several layers (V-JEPA 2.1)",
    "video_mod_embed": "embeddings of modalities (V-JEPA 2.1)",
}
"""Parameters of V-JEPA 2's descendants, and what they are the sign of."""


def layout(title: str, holds: Mapping[str, tuple]) -> checkpoint.Layout:
    """A family of video models; names are prefixed by DistributedDataParallel and by a wrapper for several masks."""
    backbone = Scheme("backbone", ENCODER, holds, "pos_embed", sides=3)
    predictor = Scheme("predictor", TOKENS, holds, "predictor_pos_embed", tokens=True)
    return checkpoint.Layout(title, "".join(PREFIXES), backbone, predictor)


FIRST, SECOND = layout("Meta V-JEPA", TABLES), layout("Meta V-JEPA 2", TURNED)


class MetaVJepa:
    """Checkpoints of facebookresearch/jepa; what is written goes on in the released code."""

    title, parts, suffixes = FIRST.title, checkpoint.PARTS, checkpoint.SUFFIXES

    def recognise(self, content: Content) -> bool:
        return is_video(content) and not is_second(content)

    def summary(self, content: Content) -> dict[str, State]:
        return checkpoint.by_part(content, PREFIXES, PLACES)

    def read(self, content: Content) -> Weights:
        found = self.summary(content)
        config = carried(content).get("config") or first_settings(found, content.given)
        return checkpoint.read(content, found, config, FIRST)

    def write(self, weights: Weights, which: str, out: Path) -> None:
        checkpoint.write(weights, which, out, FIRST)


class MetaVJepa2:
    """Checkpoints of facebookresearch/vjepa2; what is written goes on in the released code."""

    title, parts, suffixes = SECOND.title, checkpoint.PARTS, checkpoint.SUFFIXES

    def recognise(self, content: Content) -> bool:
        return is_video(content) and is_second(content)

    def summary(self, content: Content) -> dict[str, State]:
        return checkpoint.by_part(content, PREFIXES, PLACES)

    def read(self, content: Content) -> Weights:
        found = self.summary(content)
        if signs := [sign for name, sign in FOREIGN.items() if any(name in state for state in found.values())]:
            raise ValueError(f"a model with {', '.join(signs)}, which cannot be imported")
        if {"target_encoder", "ema_encoder"} <= {name.split("/")[0] for name in content.tensors}:
            raise ValueError("it holds two target encoders, target_encoder and ema_encoder")
        config, assumed = carried(content).get("config"), {}
        if config is None:
            config, assumed = second_settings(found, content.given)
        weights = checkpoint.read(content, found, config, SECOND)
        return weights if not assumed else _assuming(weights, assumed)

    def write(self, weights: Weights, which: str, out: Path) -> None:
        checkpoint.write(weights, which, out, SECOND)


def is_video(content: Content) -> bool:
    """Whether it is a checkpoint of an encoder that cuts clips into tubelets."""
    names = [name for name in content.tensors if name.endswith("patch_embed.proj.weight")]
    return any("/" in name and content.tensors[name].ndim == 5 for name in names)


def is_second(content: Content) -> bool:
    """Whether it is of V-JEPA 2: rotary positions, more mask tokens, or parameters of its descendants.

    A table of positions says nothing: released files of V-JEPA 2 hold one that nobody reads.
    """
    if config := carried(content).get("config"):
        return config["encoder"].get("positions") not in TABLES["positions"]
    names = {name for state in checkpoint.by_part(content, PREFIXES).values() for name in state}
    tokens = sum(name.startswith("mask_tokens.") for name in names)
    tables = any(name.endswith("pos_embed") for name in names)
    return tokens > KINDS or not tables or not names.isdisjoint(FOREIGN)


def first_settings(found: Mapping[str, State], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a checkpoint of V-JEPA, read off its shapes and its table."""
    state = _encoder(found)
    refuse(missing={"pos_embed", "norm.weight"} - state.keys())
    heads = heads_of(len(state["norm.weight"]), given)
    config = backbone_settings(state, heads)
    if "predictor" in found:
        config["predictor"] = predictor_settings(found["predictor"], given.get("predictor_heads", heads))
        config["predictor"]["mask_tokens"] = _tokens(found["predictor"])
    frames, size = clip_of(state["pos_embed"], config["tokenizer"])
    config["data"] |= {"size": size, "frames": frames, "stride": STRIDE}
    return _placed(config, "sincos_3d")


def second_settings(found: Mapping[str, State], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a checkpoint of V-JEPA 2, read off its shapes, and those that are assumed."""
    state = _encoder(found)
    refuse(missing={"norm.weight"} - state.keys())
    config = backbone_settings(state, heads_of(len(state["norm.weight"]), given, HEADS_2))
    if "predictor" in found:
        heads = given.get("predictor_heads", PREDICTOR_HEADS)
        config["predictor"] = predictor_settings(found["predictor"], heads)
        config["predictor"] |= {"mask_tokens": _tokens(found["predictor"]), "share_mask_token": True}
    assumed = {key: value for key, value in ASSUMED.items() if key not in given}
    config["data"] |= {key: given.get(key, value) for key, value in ASSUMED.items()} | {"fps": FPS}
    return _placed(config, "rope_tiled"), assumed


def clip_of(table: Tensor, tokenizer: Mapping[str, Any]) -> tuple[int, int]:
    """Frames and size of the clips that a table of positions is made for.

    Its first channel is the sine of the tubelet's number: as many rows as are nought belong to the first tubelet.
    """
    first = int((table[0, :, 0].float().abs() < 0.5).long().cumprod(0).sum())
    side, tubelets = round(first**0.5), table.shape[1] // max(1, first)
    if not first or side * side != first or tubelets * first != table.shape[1]:
        raise ValueError(f"its positions are learned or of another kind: pos_embed of {table.shape[1]} tokens")
    return tubelets * tokenizer["tubelet"], side * tokenizer["patch"]


def _encoder(found: Mapping[str, State]) -> State:
    state = found.get("target") or found.get("online")
    if state is None:
        raise ValueError("it holds no encoder")
    return state


def _tokens(predictor: State) -> int:
    return max(1, sum(name.startswith("mask_tokens.") for name in predictor))


def _placed(config: dict[str, Any], positions: str) -> dict[str, Any]:
    for part in ("encoder", "predictor"):
        if part in config:
            config[part]["positions"] = positions
    return config


def _assuming(weights: Weights, assumed: Mapping[str, Any]) -> Weights:
    weights.about["assumed"] = dict(assumed)
    return weights
