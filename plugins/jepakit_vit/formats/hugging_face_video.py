"""V-JEPA 2 as Hugging Face transformers keeps it: a folder that ``AutoModel.from_pretrained`` reads.

It holds one encoder and the predictor; what else there is lies in the companion that is written beside it. What
transformers computes is V-JEPA 2 at the size and with the positions of its released weights (``rope_tiled``). Of
several mask tokens its predictor takes the second one, which V-JEPA 2 never trained; of one it takes that.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from jepakit.protocols import Content
from jepakit.types import Weights
from jepakit_vit.block import NORM_EPS
from jepakit_vit.formats.hugging_face import SPLIT, card, dump, preprocessing
from jepakit_vit.formats.names import State, ours, refuse, theirs
from jepakit_vit.formats.settings import KEY, backbone_settings, carried, carry, predictor_settings, ratio
from jepakit_vit.formats.vjepa import FPS, TURNED, layout

PREFIX, HEADS = "vjepa2.", ("pooler.", "classifier.")
HOLDS = {**TURNED, "mlp": ("gelu",), "qkv_bias": (True, False)}
BACKBONE, PREDICTOR = layout("", HOLDS)[2:]
PIECES = {
    "embeddings.patch_embeddings.proj.": "patch_embed.proj.",
    "embeddings.predictor_embeddings.": "predictor_embed.",
    "layernorm.": "norm.",
    "layer.": "blocks.",
    ".attention.": ".attn.",
}
"""Pieces of names, theirs and Meta's. Queries, keys and values are one tensor there, mask tokens one here."""
TOKENS = "embeddings.mask_tokens"
DEFAULTS = {
    **{"crop_size": 256, "frames_per_clip": 64, "num_attention_heads": 16, "pred_num_attention_heads": 12},
    **{"layer_norm_eps": NORM_EPS, "hidden_act": "gelu"},
}
"""What transformers takes where a configuration does not say it."""


class HuggingFaceVJepa2:
    """A folder of ``VJEPA2Model``."""

    title, parts, suffixes = "Hugging Face VJEPA2", ("backbone", "predictor"), ()

    def recognise(self, content: Content) -> bool:
        embed = next((n for n in content.tensors if n.endswith("encoder.embeddings.patch_embeddings.proj.weight")), "")
        kind = (content.config or {}).get("model_type", "vjepa2")
        return bool(embed) and "/" not in embed and content.tensors[embed].ndim == 5 and kind == "vjepa2"

    def summary(self, content: Content) -> dict[str, State]:
        found: dict[str, State] = {}
        main = carried(content).get("weights", "backbone")
        for name, tensor in content.tensors.items():
            part, _, rest = name.removeprefix(PREFIX).partition(".")
            if name.startswith(HEADS):
                part, rest = "head", name
            found.setdefault(main if part == "encoder" else part, {})[rest] = tensor
        return found

    def read(self, content: Content) -> Weights:
        said, found = carried(content), self.summary(content)
        main = said.get("weights", "backbone")
        refuse(left_over=[f"{part}.{n}" for part in found.keys() - {main, "predictor", "head"} for n in found[part]])
        encoder, predictor = to_meta(found[main]), to_meta(found.get("predictor", {}), "predictor_")
        config = said.get("config") or read_settings(content, encoder, predictor)
        refuse_other(content.config, config)
        backbones = {said.get("weights", "target"): ours(encoder, BACKBONE, config)}
        left = {"left_out": sorted(found["head"])} if "head" in found else {}
        about = {**said.get("about", {}), "format": self.title, **left}
        return Weights(config, backbones, ours(predictor, PREDICTOR, config) if predictor else {}, about=about)

    def write(self, weights: Weights, which: str, out: Path) -> None:
        if not weights.predictor:
            raise ValueError("it has no predictor; a VJEPA2Model has one")
        encoder = theirs(weights.backbones[which], BACKBONE, weights.config)
        predictor = theirs(weights.predictor, PREDICTOR, weights.config)
        settings = model_config(weights.config, encoder, predictor)
        tensors = {f"encoder.{name}": tensor for name, tensor in from_meta(encoder).items()}
        tensors |= {f"predictor.{name}": tensor for name, tensor in from_meta(predictor, "predictor_").items()}
        out.mkdir()
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, out / "model.safetensors", {"format": "pt", KEY: carry(weights, which)})
        dump(out / "config.json", settings)
        dump(out / "video_preprocessor_config.json", processor(weights))
        (out / "README.md").write_text(card(weights, which, "V-JEPA 2", "VJEPA2Model", USE), "utf-8")


USE = """from transformers import AutoModel, AutoVideoProcessor

processor, model = AutoVideoProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder)
features = model(**processor(clips, return_tensors="pt"), skip_predictor=True).last_hidden_state  # B N D"""


def to_meta(state: Mapping[str, Tensor], prefix: str = "") -> State:
    """A part's state under Meta's names, which begin with ``prefix`` where it is the predictor's."""
    found: State = {}
    for name, tensor in state.items():
        if name == TOKENS:
            found |= {f"mask_tokens.{n}": row for n, row in enumerate(tensor)}
        elif ".attention.query." in name:
            names = [name.replace("query", each) for each in SPLIT]
            refuse(missing=set(names) - state.keys())
            found[_named(name.replace("query", "qkv"), prefix)] = torch.cat([state[each] for each in names])
        elif not any(f".attention.{each}." in name and _query(name) in state for each in SPLIT[1:]):
            found[_named(name, prefix)] = tensor
    return found


def from_meta(state: Mapping[str, Tensor], prefix: str = "") -> State:
    """The way back."""
    found, tokens = {}, []
    for name, tensor in state.items():
        if name.startswith("mask_tokens."):
            tokens.append(tensor)
            continue
        pieces = {name: tensor}
        if ".attn.qkv." in name:
            pieces = {name.replace("qkv", each): piece for each, piece in zip(SPLIT, tensor.chunk(3), strict=True)}
        for each, piece in pieces.items():
            each = each if each.startswith("predictor_embed.") else each.removeprefix(prefix)
            for theirs_, metas in PIECES.items():
                each = each.replace(metas, theirs_)
            found[each] = piece
    return found | ({TOKENS: torch.stack(tokens)} if tokens else {})


def read_settings(content: Content, encoder: State, predictor: State) -> dict[str, Any]:
    """The settings of someone else's folder: its configuration's, its preprocessor's, and those that shapes show."""
    said = DEFAULTS | dict(content.config or {})
    config = backbone_settings(encoder, content.given.get("heads", said["num_attention_heads"]))
    if predictor:
        heads = content.given.get("predictor_heads", said["pred_num_attention_heads"])
        tokens = sum(name.startswith("mask_tokens.") for name in predictor)
        config["predictor"] = predictor_settings(predictor, heads)
        config["predictor"] |= {"mask_tokens": max(1, tokens), "share_mask_token": True}
    for part, state, name in (("encoder", encoder, "blocks"), ("predictor", predictor, "predictor_blocks")):
        if part in config:
            config[part] |= {"positions": "rope_tiled", "qkv_bias": f"{name}.0.attn.qkv.bias" in state}
    data = {"size": said["crop_size"], "frames": said["frames_per_clip"], "fps": FPS}
    file = content.path / "video_preprocessor_config.json"
    seen = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    config["data"] |= data | {k: seen[f"image_{k}"] for k in ("mean", "std") if f"image_{k}" in seen}
    return config


def refuse_other(said: Mapping[str, Any] | None, config: Mapping[str, Any]) -> None:
    """Raise ValueError where a model's configuration asks for something else than what the encoder here computes."""
    if said is None:
        return
    wanted = {"layer_norm_eps": NORM_EPS, "hidden_act": "gelu", "num_attention_heads": config["encoder"]["heads"]}
    wanted |= {"crop_size": config["data"]["size"]}
    wanted |= {"pred_num_attention_heads": config["predictor"]["heads"]} if "predictor" in config else {}
    for key, value in wanted.items():
        if (found := said.get(key, DEFAULTS[key])) != value:
            raise ValueError(f"{key} is {found} in its config.json; the model has {value}")


def model_config(config: Mapping[str, Any], encoder: State, predictor: State) -> dict[str, Any]:
    """``config.json`` of a ``VJEPA2Model``. Raises ValueError for what is one setting there and two here."""
    biased = [
        f"{name}.0.attn.qkv.bias" in state for name, state in (("blocks", encoder), ("predictor_blocks", predictor))
    ]
    if biased[0] != biased[1]:
        raise ValueError("qkv_bias is another one in its encoder than in its predictor; this format holds one")
    widths = config["encoder"]["width"], len(predictor["predictor_embed.weight"])
    hidden = len(encoder["blocks.0.mlp.fc1.weight"]), len(predictor["predictor_blocks.0.mlp.fc1.weight"])
    weight = encoder["patch_embed.proj.weight"]
    channels, tubelet, patch, _ = weight.shape[1:]
    return {
        "architectures": ["VJEPA2Model"],
        "model_type": "vjepa2",
        **{"patch_size": patch, "tubelet_size": tubelet, "in_chans": channels},
        **{"crop_size": config["data"]["size"], "frames_per_clip": config["data"].get("frames", 1)},
        **{"hidden_size": widths[0], "num_attention_heads": config["encoder"]["heads"]},
        **{"num_hidden_layers": _depth(encoder, "blocks"), "mlp_ratio": ratio(widths[0], hidden[0])},
        **{"pred_hidden_size": widths[1], "pred_num_attention_heads": config["predictor"]["heads"]},
        **{
            "pred_num_hidden_layers": _depth(predictor, "predictor_blocks"),
            "pred_mlp_ratio": ratio(widths[1], hidden[1]),
        },
        "pred_num_mask_tokens": sum(name.startswith("mask_tokens.") for name in predictor),
        **{"layer_norm_eps": NORM_EPS, "hidden_act": "gelu", "qkv_bias": biased[0], "drop_path_rate": 0.0},
        **{"attention_dropout": 0.0, "attention_probs_dropout_prob": 0.0},
        "torch_dtype": str(weight.dtype).removeprefix("torch."),
    }


def processor(weights: Weights) -> dict[str, Any]:
    """``video_preprocessor_config.json``: all frames that it is given."""
    return {"video_processor_type": "VJEPA2VideoProcessor", "do_sample_frames": False, **preprocessing(weights)}


def _named(name: str, prefix: str) -> str:
    for theirs_, metas in PIECES.items():
        name = name.replace(theirs_, metas)
    return name if name.startswith(prefix) else prefix + name


def _query(name: str) -> str:
    return name.replace(".key.", ".query.").replace(".value.", ".query.")


def _depth(state: State, stem: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(f"{stem}.")})
