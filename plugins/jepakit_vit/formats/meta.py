"""Meta's I-JEPA checkpoints, as the released training script writes and reads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepakit.protocols import Content
from jepakit.types import Weights
from jepakit_vit.formats import checkpoint
from jepakit_vit.formats.names import BACKBONE, PREDICTOR, State, refuse
from jepakit_vit.formats.settings import carried, heads_of, predictor_settings, settings

LAYOUT = checkpoint.Layout("Meta I-JEPA", "module.", BACKBONE, PREDICTOR)
"""Names are prefixed by DistributedDataParallel."""


class MetaIJepa:
    """Checkpoints of facebookresearch/ijepa; what is written goes on in the released code."""

    title, parts, suffixes = LAYOUT.title, checkpoint.PARTS, checkpoint.SUFFIXES

    def recognise(self, content: Content) -> bool:
        embeds = [name for name in content.tensors if name.endswith("patch_embed.proj.weight")]
        images = [name for name in embeds if content.tensors[name].ndim == 4 and "backbone." not in name]
        return bool(images) and all(name.split("/")[0] in ("encoder", "target_encoder") for name in images)

    def summary(self, content: Content) -> dict[str, State]:
        return checkpoint.by_part(content, (LAYOUT.prefix,))

    def read(self, content: Content) -> Weights:
        found = self.summary(content)
        config = carried(content).get("config") or read_settings(found, content.given)
        return checkpoint.read(content, found, config, LAYOUT)

    def write(self, weights: Weights, which: str, out: Path) -> None:
        checkpoint.write(weights, which, out, LAYOUT)


def read_settings(found: Mapping[str, State], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a released checkpoint, read off its shapes."""
    state = found.get("target") or found["online"]
    refuse(missing={"norm.weight"} - state.keys())
    heads = heads_of(len(state["norm.weight"]), given)
    config = settings(state, heads)
    if "predictor" in found:
        config["predictor"] = predictor_settings(found["predictor"], given.get("predictor_heads", heads))
    return config
