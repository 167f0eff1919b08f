"""Video models of the family: recognised and listed. They cannot be imported yet."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from jepakit.protocols import Content
from jepakit.types import Weights

State = dict[str, Tensor]
PLACES = {"target_encoder": "target", "ema_encoder": "target", "encoder": "online", "opt": "optimizer"}
"""Meta's keys, and the parts that they are here."""
PREFIXES = ("module.", "backbone.")
KINDS = 2
"""Mask tokens of V-JEPA, one for each kind of mask; V-JEPA 2 has more."""


class MetaVJepa:
    """Checkpoints of facebookresearch/jepa."""

    title, parts, suffixes = "Meta V-JEPA", (), ()

    def recognise(self, content: Content) -> bool:
        return _is_meta(content) and not is_second(by_part(content))

    def summary(self, content: Content) -> dict[str, State]:
        return by_part(content)

    def read(self, content: Content) -> Weights:
        raise _unready(self.title)

    def write(self, weights: Weights, which: str, out: Path) -> None:
        raise _unready(self.title)


class MetaVJepa2:
    """Checkpoints of facebookresearch/vjepa2, action-conditioned ones among them."""

    title, parts, suffixes = "Meta V-JEPA 2", (), ()

    def recognise(self, content: Content) -> bool:
        return _is_meta(content) and is_second(by_part(content))

    def summary(self, content: Content) -> dict[str, State]:
        return by_part(content)

    def read(self, content: Content) -> Weights:
        raise _unready(self.title)

    def write(self, weights: Weights, which: str, out: Path) -> None:
        raise _unready(self.title)


class HuggingFaceVJepa2:
    """A folder of ``VJEPA2Model``."""

    title, parts, suffixes = "Hugging Face VJEPA2", (), ()

    def recognise(self, content: Content) -> bool:
        return any("/" not in name and _is_video(name, tensor) for name, tensor in content.tensors.items())

    def summary(self, content: Content) -> dict[str, State]:
        found: dict[str, State] = {}
        for name, tensor in content.tensors.items():
            part, _, rest = name.removeprefix("vjepa2.").partition(".")
            found.setdefault("backbone" if part == "encoder" else part, {})[rest] = tensor
        return found

    def read(self, content: Content) -> Weights:
        raise _unready(self.title)

    def write(self, weights: Weights, which: str, out: Path) -> None:
        raise _unready(self.title)


def by_part(content: Content) -> dict[str, State]:
    """Meta's tensors by part, without what their wrappers put before the names."""
    found: dict[str, State] = {}
    for name, tensor in content.tensors.items():
        key, _, rest = name.partition("/")
        for prefix in PREFIXES:
            rest = rest.removeprefix(prefix)
        found.setdefault(PLACES.get(key, key), {})[rest] = tensor
    order = [*dict.fromkeys(PLACES.values()), *found]
    return {part: found[part] for part in sorted(found, key=order.index)}


def is_second(found: Mapping[str, State]) -> bool:
    """Whether it is of V-JEPA 2: rotary positions, more mask tokens, or (V-JEPA 2-AC) actions.

    A table of positions says nothing: released files of V-JEPA 2 hold one that nobody reads.
    """
    predictor = found.get("predictor", {})
    tokens = sum(name.startswith("mask_tokens.") for name in predictor)
    tables = any("pos_embed" in name for state in found.values() for name in state)
    return tokens > KINDS or not tables or any(name.startswith("action_encoder.") for name in predictor)


def _is_meta(content: Content) -> bool:
    return any("/" in name and _is_video(name, tensor) for name, tensor in content.tensors.items())


def _is_video(name: str, tensor: Tensor) -> bool:
    return name.endswith(("patch_embed.proj.weight", "patch_embeddings.proj.weight")) and tensor.ndim == 5


def _unready(title: str) -> ValueError:
    return ValueError(f"{title} is a video model, which cannot be imported yet")
