"""Meta's I-JEPA checkpoints (.pth.tar), as the released training script writes and reads them.

    encoder, predictor, target_encoder   states, their names prefixed ``module.`` (DistributedDataParallel)
    opt, scaler                          states of AdamW and of the gradient scaler
    epoch, loss, batch_size, world_size, lr

AdamW numbers its parameters group by group: encoder, predictor, then what has no weight decay of encoder, of predictor.
The tables of positions are frozen parameters: they are counted, and have no moments.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jepakit.protocols import Content
from jepakit.types import Weights
from jepakit_vit.formats.names import (
    BACKBONE,
    PREDICTOR,
    TABLES,
    State,
    drifted,
    our_name,
    ours,
    refuse,
    shape_text,
    theirs,
    wanted,
)
from jepakit_vit.formats.settings import KEY, carried, carry, heads_of, predictor_settings, settings

PLACES = {"target_encoder": "target", "encoder": "online", "predictor": "predictor", "opt": "optimizer"}
"""Meta's keys, and the parts that they are here."""
SPOKEN = ("epoch", "loss", "batch_size", "world_size", "lr")
"""Plain values that a checkpoint has beside its states."""
PREFIX, GROUPS = "module.", "opt/param_groups/"
STEP = re.compile(r"opt/state/\d+/step")
"""Steps are plain numbers in files of older versions of torch."""
NUMBERED = re.compile(r"opt/state/|opt/param_groups/\d+/params")
"""What goes by the numbers of their parameters, and is not kept as it is."""


class MetaIJepa:
    """Checkpoints of facebookresearch/ijepa; what is written goes on in the released code."""

    title = "Meta I-JEPA"
    parts = ("target", "online", "predictor", "optimizer")
    suffixes = (".pth.tar", ".pth", ".pt")

    def recognise(self, content: Content) -> bool:
        embeds = [name for name in content.tensors if name.endswith("patch_embed.proj.weight")]
        images = [name for name in embeds if content.tensors[name].ndim == 4 and "backbone." not in name]
        return bool(images) and all(name.split("/")[0] in ("encoder", "target_encoder") for name in images)

    def summary(self, content: Content) -> dict[str, State]:
        found: dict[str, State] = {}
        for name, tensor in content.tensors.items():
            key, _, rest = name.partition("/")
            found.setdefault(PLACES.get(key, key), {})[rest.removeprefix(PREFIX)] = tensor
        order = [*PLACES.values(), *found]
        return {part: found[part] for part in sorted(found, key=order.index)}

    def read(self, content: Content) -> Weights:
        found, said = self.summary(content), carried(content)
        refuse(left_over=[f"{part}/{name}" for part in found.keys() - PLACES.values() for name in found[part]])
        config = said.get("config") or read_settings(found, content.given)
        backbones = {part: ours(found[part], BACKBONE, config) for part in ("target", "online") if part in found}
        predictor = ours(found["predictor"], PREDICTOR, config) if "predictor" in found else {}
        optimizer = moments(found.get("optimizer", {}), content.values, config)
        extra = {k: v for part in found for k, v in drifted(found[part], part, config).items()}
        values = {k: v for k, v in content.values.items() if k != KEY and not NUMBERED.match(k)}
        rest = {key: values.pop(key) for key in [*values] if key not in SPOKEN}
        about = {**values, **({"meta": rest} if rest else {}), **said.get("about", {}), "format": self.title}
        return Weights(config, backbones, predictor, optimizer, about, extra)

    def write(self, weights: Weights, which: str, out: Path) -> None:
        parts = {**weights.backbones, **({"predictor": weights.predictor} if weights.predictor else {})}
        found: dict[str, Any] = {}
        for key, part in PLACES.items():
            if part in parts:
                names, table = (PREDICTOR, "predictor_pos_embed") if part == "predictor" else (BACKBONE, "pos_embed")
                state = theirs(parts[part], names, weights.config, weights.extra.get(f"{part}/{table}"))
                found[key] = {PREFIX + name: tensor.contiguous() for name, tensor in state.items()}
        if weights.optimizer:
            found["opt"] = adamw(weights)
        torch.save(found | spoken(weights.about) | {KEY: carry(weights, which)}, out)


def read_settings(found: Mapping[str, State], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a released checkpoint, read off its shapes."""
    state = found.get("target") or found["online"]
    refuse(missing={"norm.weight"} - state.keys())
    heads = heads_of(len(state["norm.weight"]), given)
    config = settings(state, heads)
    if "predictor" in found:
        config["predictor"] = predictor_settings(found["predictor"], given.get("predictor_heads", heads))
    return config


class Parameter(NamedTuple):
    """One of Meta's parameters: its name in the ``Jepa`` and in Meta's module, its shape here and there."""

    mine: str
    name: str
    here: tuple[int, ...]
    there: tuple[int, ...]

    @property
    def decays(self) -> bool:
        """Whether it has weight decay; a frozen table is counted as if it had."""
        return "bias" not in self.name and len(self.there) != 1


def parameters(config: Mapping[str, Any]) -> list[Parameter]:
    """Meta's parameters in the order in which their AdamW numbers them."""
    found = []
    for part, names in (("backbone", BACKBONE), ("predictor", PREDICTOR)):
        shapes = wanted(config, names) if part == "backbone" or part in config else {}
        state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        for name, tensor in (theirs(state, names, config) if state else {}).items():
            mine, there = our_name(name, names), tuple(tensor.shape)
            found.append(Parameter(f"{part}.{mine}", name, shapes.get(mine, there), there))
    return sorted(found, key=lambda each: not each.decays)  # stable: encoder before predictor, each in its order


def moments(state: Mapping[str, Tensor], values: Mapping[str, Any], config: Mapping[str, Any]) -> State:
    """AdamW's moments by the names of our parameters. Raises ValueError where their number or shapes do not fit."""
    steps = {k.removeprefix("opt/"): torch.tensor(float(v)) for k, v in values.items() if STEP.fullmatch(k)}
    if not state:
        return {}
    known, found = parameters(config), {}
    counted = [n for k, v in values.items() if k.startswith(GROUPS) and k.endswith("/params") for n in v]
    if counted != list(range(len(known))):
        raise ValueError(f"its optimiser counts {len(counted)} parameters, the model has {len(known)}")
    for path, tensor in {**state, **steps}.items():
        _, number, key = path.split("/")
        each = known[int(number)]
        if each.name in TABLES or (tensor.ndim and tuple(tensor.shape) != each.there):
            raise ValueError(f"wrong shape: opt/{path} ({shape_text(tensor.shape)}), which belongs to {each.name}")
        found[f"{each.mine}/{key}"] = tensor.reshape(each.here) if tensor.ndim else tensor
    return found


def adamw(weights: Weights) -> dict[str, Any]:
    """The state of their AdamW: moments, and groups as they were, or with the settings of the configuration."""
    known, state = parameters(weights.config), {}
    held: dict[str, State] = {}
    for name, tensor in weights.optimizer.items():
        mine, _, key = name.rpartition("/")
        held.setdefault(mine, {})[key] = tensor
    refuse(left_over=held.keys() - {each.mine for each in known})
    for number, each in enumerate(known):
        if each.mine in held:
            kept = sorted(held[each.mine].items(), key=lambda item: (item[0] != "step", item[0]))
            state[number] = {key: tensor.reshape(each.there) if tensor.ndim else tensor for key, tensor in kept}
    return {"state": state, "param_groups": groups(weights, known)}


def groups(weights: Weights, known: list[Parameter]) -> list[dict[str, Any]]:
    """The four groups of their AdamW; learning rate and weight decay are set by the schedules at every step."""
    optim = {k: v for k, v in weights.config.get("optim", {}).items() if k in ("lr", "betas", "eps")}
    default = {**torch.optim.AdamW([torch.zeros(1)]).state_dict()["param_groups"][0], **optim}
    found: list[dict[str, Any]] = []
    for decays in (True, False):
        for part in ("backbone.", "predictor."):
            numbers = [n for n, each in enumerate(known) if each.decays is decays and each.mine.startswith(part)]
            stem = f"{GROUPS}{len(found)}/"
            said = {k.removeprefix(stem): v for k, v in weights.about.get("meta", {}).items() if k.startswith(stem)}
            plain = {} if decays else {"WD_exclude": True, "weight_decay": 0}
            found.append({**default, **plain, **said, "params": numbers})
    return found


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
