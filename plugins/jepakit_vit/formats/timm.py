"""Vision transformers with timm's names: folders for ``timm.create_model("local-dir:FOLDER")``, and single files.

timm's ViT can be much that the encoder here is not (class token, registers, learned positions, ...): it is recognised
then, and refused with the reason.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from jepakit.protocols import Content
from jepakit.types import Weights
from jepakit_vit.formats.names import BACKBONE, State, one, ours, refuse
from jepakit_vit.formats.settings import KEY, carried, carry, heads_of, ratio, settings
from jepakit_vit.formats.tables import drifted

ARCHITECTURE = "vit_huge_patch14_gap_224"
"""timm's I-JEPA; its sizes are overridden."""
WRAPPERS = ("state_dict/", "state_dict_ema/", "model/", "module.")
"""What files put before all names."""
HEADS = ("head.", "fc_norm.")
FOREIGN = {
    "cls_token": "a class token",
    "dist_token": "a distillation token",
    "reg_token": "register tokens",
    "blocks.0.ls1.gamma": "layer scale",
    "blocks.0.attn.q_norm.weight": "norms of queries and keys",
    "norm_pre.weight": "a norm before the blocks",
    "fc_norm.weight": "a norm after pooling in place of the last one",
    "attn_pool.latent": "attention pooling",
}
"""Parameters of timm's ViT, and what they are the sign of."""
LAYERS = ("act_layer", "norm_layer", "mlp_layer", "attn_layer", "block_fn")
"""Arguments of timm's ViT that may make it another model without showing in its parameters' names."""


class TimmVit:
    """A ViT with timm's names."""

    title, parts, suffixes = "timm ViT", ("backbone",), ()

    def recognise(self, content: Content) -> bool:
        names = bare(content.tensors)
        embeds = names.get("patch_embed.proj.weight")
        return embeds is not None and embeds.ndim == 4 and "blocks.0.attn.qkv.weight" in names

    def summary(self, content: Content) -> dict[str, State]:
        found: dict[str, State] = {}
        main = carried(content).get("weights", "backbone")
        for name, tensor in bare(content.tensors).items():
            found.setdefault("head" if name.startswith(HEADS) else main, {})[name] = tensor
        return found

    def read(self, content: Content) -> Weights:
        said, state = carried(content), bare(content.tensors)
        if signs := [sign for name, sign in FOREIGN.items() if name in state]:
            raise ValueError(f"a ViT with {', '.join(signs)}; the encoder here has none")
        head = [name for name in state if name.startswith(HEADS)]
        state = {name: tensor for name, tensor in state.items() if name not in head}
        config = said.get("config") or read_settings(content, state)
        refuse_other(content.config, config)
        about = {**said.get("about", {}), "format": self.title, **({"left_out": head} if head else {})}
        main = said.get("weights", "target")
        backbones, extra = {main: ours(state, BACKBONE, config)}, drifted(state, main, config)
        return Weights(config, backbones, about=about, extra=extra)

    def write(self, weights: Weights, which: str, out: Path) -> None:
        state = {name: tensor.contiguous() for name, tensor in one(weights, which).items()}
        out.mkdir()
        save_file(state, out / "model.safetensors", {"format": "pt", KEY: carry(weights, which)})
        (out / "config.json").write_text(json.dumps(model_config(weights, which), indent=2) + "\n", "utf-8")


def bare(tensors: Mapping[str, Any]) -> State:
    """Tensors without what a file puts before all of their names."""
    for wrapper in WRAPPERS:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def read_settings(content: Content, state: State) -> dict[str, Any]:
    """The settings of someone else's model: its configuration's, and those that shapes show."""
    refuse(missing={"norm.weight"} - state.keys())
    said = content.config or {}
    heads = said.get("model_args", {}).get("num_heads") or heads_of(len(state["norm.weight"]), content.given)
    config, seen = settings(state, heads), said.get("pretrained_cfg", {})
    config["data"] |= {key: list(seen[key]) for key in ("mean", "std") if key in seen}
    return config


def refuse_other(said: Mapping[str, Any] | None, config: Mapping[str, Any]) -> None:
    """Raise ValueError where a model's arguments ask for something else than what the encoder here computes."""
    arguments = (said or {}).get("model_args", {})
    if other := [key for key in LAYERS if key in arguments]:
        raise ValueError(
            f"its config.json asks for {other[0]}={arguments[other[0]]}; the encoder here has timm's defaults"
        )
    if (found := arguments.get("num_heads", config["encoder"]["heads"])) != config["encoder"]["heads"]:
        raise ValueError(f"num_heads is {found} in its config.json; the encoder has {config['encoder']['heads']}")


def model_config(weights: Weights, which: str) -> dict[str, Any]:
    """``config.json``: architecture, arguments, and how pictures are prepared."""
    encoder, data = weights.config["encoder"], weights.config["data"]
    size, view = data["size"], weights.about.get("view", {})
    hidden = weights.backbones[which]["encoder.blocks.0.mlp.fc1.weight"].shape[0]
    arguments = {
        "img_size": size,
        "patch_size": weights.config["tokenizer"].get("patch", 16),
        "in_chans": len(data["mean"]),
        "embed_dim": encoder["width"],
        "depth": encoder["depth"],
        "num_heads": encoder["heads"],
        "mlp_ratio": ratio(encoder["width"], hidden),
        **{"class_token": False, "global_pool": "avg", "fc_norm": False},
    }
    shown = {
        "input_size": [len(data["mean"]), size, size],
        "mean": list(data["mean"]),
        "std": list(data["std"]),
        "interpolation": "bilinear",
        "crop_pct": size / view.get("resize", size),
        "crop_mode": "center",
        "fixed_input_size": True,
        **{"num_classes": 0, "first_conv": "patch_embed.proj", "classifier": "head"},
    }
    return {
        "architecture": ARCHITECTURE,
        "num_classes": 0,
        "num_features": encoder["width"],
        "global_pool": "avg",
        "model_args": arguments,
        "pretrained_cfg": shown,
        "weights": which,
    }
