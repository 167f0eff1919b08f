"""Checkpoints (.pth.tar, .pt) as Meta's training scripts write and read them, images and clips alike.

encoder, predictor, target_encoder   states, their names behind a prefix
opt, scaler                          states of AdamW and of the gradient scaler
epoch, loss, batch_size, world_size, lr
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jepakit.protocols import Content
from jepakit.types import Weights
from jepakit_vit.formats.moments import NUMBERED, adamw, moments, parameters
from jepakit_vit.formats.names import Scheme, State, ours, refuse, theirs
from jepakit_vit.formats.settings import KEY, carried, carry
from jepakit_vit.formats.tables import drifted

PLACES = {"target_encoder": "target", "encoder": "online", "predictor": "predictor", "opt": "optimizer"}
"""Meta's keys, and the parts that they are here."""
PARTS = ("target", "online", "predictor", "optimizer")
SUFFIXES = (".pth.tar", ".pth", ".pt")
SPOKEN = ("epoch", "loss", "batch_size", "world_size", "lr")
"""Plain values that a checkpoint has beside its states."""


class Layout(NamedTuple):
    """A family's checkpoint: its title, what stands before all names, and its two parts."""

    title: str
    prefix: str
    backbone: Scheme
    predictor: Scheme

    def scheme(self, part: str) -> Scheme:
        """That of ``target``, ``online`` or ``predictor``."""
        return self.predictor if part == "predictor" else self.backbone


def by_part(content: Content, prefixes: Sequence[str], places: Mapping[str, str] = PLACES) -> dict[str, State]:
    """The tensors by part, without what stands before their names; parts that there are here come first."""
    found: dict[str, State] = {}
    for name, tensor in content.tensors.items():
        key, _, rest = name.partition("/")
        for prefix in prefixes:
            rest = rest.removeprefix(prefix)
        found.setdefault(places.get(key, key), {})[rest] = tensor
    order = [*PARTS, *found]
    return {part: found[part] for part in sorted(found, key=order.index)}


def read(content: Content, found: Mapping[str, State], config: dict[str, Any], layout: Layout) -> Weights:
    """All of a checkpoint. Raises ValueError, naming the keys, for what is missing, left over or of a wrong shape."""
    refuse(left_over=[f"{part}/{name}" for part in found.keys() - set(PARTS) for name in found[part]])
    states = {part: found[part] for part in PARTS[:3] if part in found}
    parts = {part: ours(state, layout.scheme(part), config) for part, state in states.items()}
    predictor = parts.pop("predictor", {})
    extra = {k: v for part, state in states.items() for k, v in drifted(state, part, config).items()}
    known = parameters(config, (layout.backbone, layout.predictor), extra)
    optimizer = moments(found.get("optimizer", {}), content.values, known)
    values = {k: v for k, v in content.values.items() if k != KEY and not NUMBERED.match(k)}
    rest = {key: values.pop(key) for key in [*values] if key not in SPOKEN}
    about = {**values, **({"meta": rest} if rest else {}), **carried(content).get("about", {}), "format": layout.title}
    return Weights(config, parts, predictor, optimizer, about, extra)


def write(weights: Weights, which: str, out: Path, layout: Layout) -> None:
    """Write a checkpoint that goes on in the released code. Raises ValueError for weights that it cannot hold."""
    parts = {**weights.backbones, **({"predictor": weights.predictor} if weights.predictor else {})}
    found: dict[str, Any] = {}
    for key, part in PLACES.items():
        if part in parts:
            scheme = layout.scheme(part)
            state = theirs(parts[part], scheme, weights.config, weights.extra.get(f"{part}/{scheme.table}"))
            found[key] = {layout.prefix + name: tensor.contiguous() for name, tensor in state.items()}
    if weights.optimizer:
        found["opt"] = adamw(weights, (layout.backbone, layout.predictor))
    torch.save(found | spoken(weights.about) | {KEY: carry(weights, which)}, out)


def spoken(about: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values: those that are known, and the two that the released code does not start without.

    Epoch 0 stands for unknown: schedules then begin anew. The scaler is a fresh one where there was none.
    """
    rest = about.get("meta", {})
    scaler = {k.removeprefix("scaler/"): v for k, v in rest.items() if k.startswith("scaler/")}
    fresh = None if "scaler" in rest else torch.amp.GradScaler("cpu").state_dict()
    return {k: about[k] for k in SPOKEN if k in about} | {
        "epoch": int(about.get("epoch", 0)),
        "scaler": scaler or fresh,
    }
