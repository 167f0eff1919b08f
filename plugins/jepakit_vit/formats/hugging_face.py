"""I-JEPA as Hugging Face transformers keeps it: a folder that ``AutoModel.from_pretrained`` reads.

Tensors carry the names that transformers writes to disk, and those that it has in memory are read too. The folder
holds one backbone; what else there is lies in the companion that is written beside it.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from jepakit.protocols import Content
from jepakit.types import Weights
from jepakit_vit.block import NORM_EPS
from jepakit_vit.formats.names import BACKBONE, State, one, ours, refuse
from jepakit_vit.formats.settings import KEY, carried, carry, heads_of, settings
from jepakit_vit.formats.tables import drifted

PREFIX, HEAD = "ijepa.", "classifier."
MEMORY = (
    (r"layers\.(\d+)\.attention\.([qkv])_proj\.", r"encoder.layer.\1.attention.attention.\2."),
    (r"layers\.(\d+)\.attention\.o_proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"layers\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"layers\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
    (r"layers\.(\d+)\.(layernorm_\w+)\.", r"encoder.layer.\1.\2."),
    (r"\.attention\.attention\.q\.", ".attention.attention.query."),
    (r"\.attention\.attention\.k\.", ".attention.attention.key."),
    (r"\.attention\.attention\.v\.", ".attention.attention.value."),
)
"""From the names of transformers 5 in memory to those on disk, which older versions have in both places."""
DISK = {
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "embeddings.position_embeddings": "pos_embed",
    "layernorm.": "norm.",
    ".attention.output.dense.": ".attn.proj.",
    ".intermediate.dense.": ".mlp.fc1.",
    ".output.dense.": ".mlp.fc2.",
    ".layernorm_before.": ".norm1.",
    ".layernorm_after.": ".norm2.",
    "encoder.layer.": "blocks.",
}
"""Pieces of names: on disk, Meta's. Queries, keys and values are one tensor there (``SPLIT``)."""
SPLIT = ("query", "key", "value")
PATCHES = "embeddings.patch_embeddings.projection.weight"
FIXED = {"layer_norm_eps": NORM_EPS, "hidden_act": "gelu", "qkv_bias": True}
"""What the encoder here computes, and what transformers takes where a configuration does not say it (next line)."""
DEFAULTS = {"layer_norm_eps": 1e-12}
BILINEAR = 2
"""The number that Pillow and transformers have for it."""
JOINED, APART = re.compile(r"(blocks\.\d+\.)attn\.qkv\.(\w+)"), re.compile(r"(.+\.attention\.attention\.)query\.(\w+)")


class HuggingFaceIJepa:
    """A folder of ``IJepaModel``."""

    title, parts, suffixes = "Hugging Face IJepa", ("backbone",), ()

    def recognise(self, content: Content) -> bool:
        names = [name.removeprefix(PREFIX) for name in content.tensors]
        shape = next((content.tensors[n].ndim for n in content.tensors if n.endswith(PATCHES)), 0)
        kind = (content.config or {}).get("model_type", "ijepa")
        return kind == "ijepa" and shape == 4 and "embeddings.cls_token" not in names

    def summary(self, content: Content) -> dict[str, State]:
        found: dict[str, State] = {}
        main = carried(content).get("weights", "backbone")
        for name, tensor in content.tensors.items():
            part = "head" if name.startswith(HEAD) else main
            found.setdefault(part, {})[name.removeprefix(PREFIX)] = tensor
        return found

    def read(self, content: Content) -> Weights:
        said, found = carried(content), self.summary(content)
        state = to_meta(next(state for part, state in found.items() if part != "head"))
        config = said.get("config") or read_settings(content, state)
        refuse_other(content.config, config)
        left = {"left_out": [name for name in content.tensors if name.startswith(HEAD)]} if "head" in found else {}
        about = {**said.get("about", {}), "format": self.title, **left}
        main = said.get("weights", "target")
        backbones, extra = {main: ours(state, BACKBONE, config)}, drifted(state, main, config)
        return Weights(config, backbones, about=about, extra=extra)

    def write(self, weights: Weights, which: str, out: Path) -> None:
        state = one(weights, which)
        tensors = {name: tensor.contiguous() for name, tensor in from_meta(state).items()}
        out.mkdir()
        save_file(tensors, out / "model.safetensors", {"format": "pt", KEY: carry(weights, which)})
        dump(out / "config.json", model_config(weights.config, state))
        dump(out / "preprocessor_config.json", processor(weights))
        (out / "README.md").write_text(card(weights, which), "utf-8")


def to_meta(state: Mapping[str, Tensor]) -> State:
    """States of either scheme of names under Meta's names: queries, keys and values become one tensor."""
    disk: State = {}
    for name, tensor in state.items():
        for pattern, to in MEMORY:
            name = re.sub(pattern, to, name)
        disk[name] = tensor
    found: State = {}
    for name, tensor in disk.items():
        if match := APART.fullmatch(name):
            names = [f"{match[1]}{each}.{match[2]}" for each in SPLIT]
            refuse(missing=set(names) - disk.keys())
            name = f"{match[1].removesuffix('attention.attention.')}attn.qkv.{match[2]}"
            tensor = torch.cat([disk[each] for each in names])
        elif any(f".attention.attention.{each}." in name for each in SPLIT[1:]) and _query(name) in disk:
            continue
        for theirs, metas in DISK.items():
            name = name.replace(theirs, metas)
        found[name] = tensor
    return found


def from_meta(state: Mapping[str, Tensor]) -> State:
    """A state with Meta's names under those that transformers writes to disk."""
    found: State = {}
    for name, tensor in state.items():
        pieces = {name: tensor}
        if match := JOINED.fullmatch(name):
            names = [f"{match[1]}attention.attention.{each}.{match[2]}" for each in SPLIT]
            pieces = dict(zip(names, tensor.chunk(3), strict=True))
        for each, piece in pieces.items():
            for theirs, metas in DISK.items():
                each = each.replace(metas, theirs)
            found[each] = piece
    return found


def read_settings(content: Content, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of someone else's folder: its configuration's, its preprocessor's, and those that shapes show."""
    refuse(missing={"norm.weight"} - state.keys())
    said = content.config or {}
    size = said.get("image_size")
    size = size[0] if isinstance(size, list) and len(set(size)) == 1 else size
    if not isinstance(size, int | None):
        raise ValueError(f"its pictures are {size} pixels; only squares are known")
    heads = said.get("num_attention_heads") or heads_of(len(state["norm.weight"]), content.given)
    config = settings(state, heads, size)
    file = content.path / "preprocessor_config.json"
    seen = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    config["data"] |= {k: seen[f"image_{k}"] for k in ("mean", "std") if f"image_{k}" in seen}
    return config


def refuse_other(said: Mapping[str, Any] | None, config: Mapping[str, Any]) -> None:
    """Raise ValueError where a model's configuration asks for something else than what the encoder here computes."""
    wanted = {**FIXED, "num_attention_heads": config["encoder"]["heads"]}
    for key, value in wanted.items():
        if said is not None and (found := said.get(key, DEFAULTS.get(key, value))) != value:
            raise ValueError(f"{key} is {found} in its config.json; the encoder here has {value}")


def model_config(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """``config.json`` of an ``IJepaModel``."""
    encoder, weight = config["encoder"], state["blocks.0.mlp.fc1.weight"]
    return {
        "architectures": ["IJepaModel"],
        "model_type": "ijepa",
        "hidden_size": encoder["width"],
        "num_hidden_layers": encoder["depth"],
        "num_attention_heads": encoder["heads"],
        "intermediate_size": weight.shape[0],
        **FIXED,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "image_size": config["data"]["size"],
        "patch_size": state["patch_embed.proj.weight"].shape[-1],
        "num_channels": len(config["data"]["mean"]),
        "torch_dtype": str(weight.dtype).removeprefix("torch."),
    }


def processor(weights: Weights) -> dict[str, Any]:
    """``preprocessor_config.json``."""
    return {"image_processor_type": "ViTImageProcessor", **preprocessing(weights)}


def preprocessing(weights: Weights) -> dict[str, Any]:
    """Of a picture or frame: resized by the short side, centre cropped, as evaluations here see it.

    One that has the size already is resized and cropped all the same, unlike here.
    """
    data, view = weights.config["data"], weights.about.get("view", {})
    return {
        "do_resize": True,
        "size": {"shortest_edge": view.get("resize", data["size"])},
        "resample": BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": data["size"], "width": data["size"]},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(data["mean"]),
        "image_std": list(data["std"]),
    }


USE = """from transformers import AutoImageProcessor, AutoModel

processor, model = AutoImageProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder)
features = model(**processor(images, return_tensors="pt")).last_hidden_state  # B N D"""


def card(weights: Weights, which: str, family: str = "I-JEPA", model: str = "IJepaModel", use: str = USE) -> str:
    """The folder's README.md."""
    config, about = weights.config, weights.about
    said = {"weights": which, "recipe": config.get("recipe"), "step": about.get("step"), "epoch": about.get("epoch")}
    lines = [f"* {key}: {value}" for key, value in said.items() if value is not None]
    encoder, data = config["encoder"], config["data"]
    sides = [data["frames"], data["size"], data["size"]] if data.get("frames", 1) > 1 else [data["size"]] * 2
    return f"""---
library_name: transformers
pipeline_tag: {"feature-extraction" if len(sides) == 3 else "image-feature-extraction"}
tags: [{family.lower().replace(" ", "")}, jepakit]
---
# {family} encoder, {encoder["width"]} wide, {encoder["depth"]} blocks

Written by jepakit as a Hugging Face `{model}`, for {" x ".join(map(str, sides))} pixels.

{chr(10).join(lines)}

```python
{use}
```

`jepakit.safetensors`, where it is there, holds the other parts of the model and its whole configuration; `jepakit
import` reads both. Licence: to be stated by whoever publishes these weights.
"""


def _query(name: str) -> str:
    return re.sub(r"(\.attention\.attention\.)(key|value)\.", r"\1query.", name)


def dump(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
