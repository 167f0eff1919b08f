"""AdamW as Meta's scripts keep it: parameters go by numbers, group by group.

The groups are encoder, predictor, then what has no weight decay of encoder, of predictor. Tables of positions are
frozen parameters: they are counted, and have no moments; and so it is with mask tokens that were never used.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jepakit.types import Weights
from jepakit_vit.formats.names import TOKEN, Scheme, State, our_name, refuse, theirs, wanted
from jepakit_vit.formats.tables import TABLES, shape_text

GROUPS = "opt/param_groups/"
STEP = re.compile(r"opt/state/\d+/step")
"""Steps are plain numbers in files of older versions of torch."""
NUMBERED = re.compile(r"opt/state/|opt/param_groups/\d+/params")
"""What goes by the numbers of their parameters, and is not kept as it is."""
TOKENS = f"predictor.{TOKEN}"


class Parameter(NamedTuple):
    """One of Meta's parameters: its name in the ``Jepa`` and in Meta's module, its shape here and there.

    Where mask tokens are a parameter each, they are ``predictor.mask_token.0`` and so on.
    """

    mine: str
    name: str
    here: tuple[int, ...]
    there: tuple[int, ...]

    @property
    def decays(self) -> bool:
        """Whether it has weight decay; a frozen table is counted as if it had."""
        return "bias" not in self.name and len(self.there) != 1


def parameters(
    config: Mapping[str, Any], schemes: Sequence[Scheme], extra: Mapping[str, Tensor] | None = None
) -> list[Parameter]:
    """Meta's parameters in the order in which their AdamW numbers them.

    ``extra`` may hold tables that the model has no use for, as in ``Weights``: they are counted too.
    """
    found = []
    for scheme in schemes:
        shapes = wanted(config, scheme) if scheme.part == "backbone" or scheme.part in config else {}
        state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        named = theirs(state, scheme, config, _table(scheme, extra or {})) if state else {}
        for name, tensor in named.items():
            mine, there = our_name(name, scheme, config), tuple(tensor.shape)
            found.append(Parameter(f"{scheme.part}.{mine}", name, shapes.get(mine, there), there))
    return sorted(found, key=lambda each: not each.decays)  # stable: encoder before predictor, each in its order


def moments(state: Mapping[str, Tensor], values: Mapping[str, Any], known: Sequence[Parameter]) -> State:
    """AdamW's moments by the names of our parameters. Raises ValueError where their number or shapes do not fit."""
    steps = {k.removeprefix("opt/"): torch.tensor(float(v)) for k, v in values.items() if STEP.fullmatch(k)}
    if not state:
        return {}
    found: State = {}
    counted = [n for k, v in values.items() if k.startswith(GROUPS) and k.endswith("/params") for n in v]
    if counted != list(range(len(known))):
        raise ValueError(f"its optimiser counts {len(counted)} parameters, the model has {len(known)}")
    for path, tensor in {**state, **steps}.items():
        _, number, key = path.split("/")
        each = known[int(number)]
        if each.name in TABLES or (tensor.ndim and tuple(tensor.shape) != each.there):
            raise ValueError(f"wrong shape: opt/{path} ({shape_text(tensor.shape)}), which belongs to {each.name}")
        found[f"{each.mine}/{key}"] = tensor.reshape(each.here) if tensor.ndim else tensor
    return _gathered(found, [each.mine for each in known if each.mine.startswith(f"{TOKENS}.")])


def adamw(weights: Weights, schemes: Sequence[Scheme]) -> dict[str, Any]:
    """The state of their AdamW: moments, and groups as they were, or with the settings of the configuration."""
    known, state = parameters(weights.config, schemes, weights.extra), {}
    held: dict[str, State] = {}
    for name, tensor in weights.optimizer.items():
        mine, _, key = name.rpartition("/")
        held.setdefault(mine, {})[key] = tensor
    held = _spread(held, [each.mine for each in known if each.mine.startswith(f"{TOKENS}.")])
    refuse(left_over=held.keys() - {each.mine for each in known})
    for number, each in enumerate(known):
        if each.mine in held:
            kept = sorted(held[each.mine].items(), key=lambda item: (item[0] != "step", item[0]))
            state[number] = {key: tensor.reshape(each.there) if tensor.ndim else tensor for key, tensor in kept}
    return {"state": state, "param_groups": groups(weights, known)}


def groups(weights: Weights, known: Sequence[Parameter]) -> list[dict[str, Any]]:
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


def _table(scheme: Scheme, extra: Mapping[str, Tensor]) -> Tensor | None:
    names = (f"{part}/{scheme.table}" for part in ("online", "target", "predictor"))
    return next((extra[name] for name in names if name in extra), None)


def _gathered(found: State, rows: list[str]) -> State:
    """Moments with those of the mask tokens as one tensor each, nought for tokens that have none."""
    used = [row for row in rows if f"{row}/step" in found]
    if not used:
        return found
    steps = [found.pop(f"{row}/step") for row in used]
    if any(not torch.equal(step, steps[0]) for step in steps if not step.is_meta):
        listed = ", ".join(f"{step:g}" for step in steps)
        raise ValueError(f"its mask tokens were trained for different numbers of steps ({listed}); one number is kept")
    for key in ("exp_avg", "exp_avg_sq"):
        refuse(missing=[f"opt: {row}/{key}" for row in used if f"{row}/{key}" not in found])
        like = found[f"{used[0]}/{key}"]
        each = [found.pop(f"{row}/{key}", torch.zeros_like(like)) for row in rows]
        found[f"{TOKENS}/{key}"] = torch.cat([tensor.flatten(0, -2) for tensor in each])
    return found | {f"{TOKENS}/step": steps[0]}


def _spread(held: dict[str, State], rows: list[str]) -> dict[str, State]:
    """The way back: a mask token whose moments are nought was never used, unless all are."""
    if not rows or TOKENS not in held:
        return held
    kept = held.pop(TOKENS)
    averages = [tensor for tensor in kept.values() if tensor.ndim]
    used = [n for n in range(len(rows)) if any(tensor[n].any() for tensor in averages)] or range(len(rows))
    for n in used:
        held[rows[n]] = {key: tensor[n].clone() if tensor.ndim else tensor for key, tensor in kept.items()}
    return held
