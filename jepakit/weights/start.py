"""A new run that starts from weights in place of random ones: all that was asked for fits, or nothing is touched."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jepakit.errors import CheckpointError, ConfigError, nearest
from jepakit.jepa import Branched, Jepa
from jepakit.parallel import laid_out
from jepakit.types import Weights
from jepakit.weights.fill import native, refuse_misfit, skeleton

PARTS = ("backbone", "predictor", "optimizer")
NODES = {"backbone": ("tokenizer", "encoder"), "predictor": ("predictor",), "optimizer": ()}
"""The nodes of the configuration that each part is made from."""
TRAINING = ("drop_path", "init_std", "checkpoint_blocks", "depth_scaled", "zero_mask_tokens")
"""Settings that may differ from the file's: they belong to the training."""
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW keeps of a parameter."""


class Fill(NamedTuple):
    """A module, and the state that it is to hold."""

    who: str
    module: nn.Module
    state: Mapping[str, Tensor]


def begin(
    jepa: Jepa | Branched, optimizer: torch.optim.Optimizer, config: Mapping[str, Any], say: Callable[[str], Any]
) -> None:
    """Fill a new run's model with ``start.weights``, its ``start.parts``.

    The teacher is given the target weights and the backbone the online ones; where a file has but one of them, both
    are given that. A run that goes on is not begun: it has checkpoints of its own, and needs the file no more.

    Args:
        optimizer: the moments of an AdamW are taken where the file has them, for the parameters that are taken.
        say: is told what was taken, and what was not there.

    Raises:
        ConfigError: parts that there are not; settings that are not the file's, or another grid where no ``native`` one
            says how its places are numbered.
        CheckpointError: a part that the file lacks; keys or shapes that differ.
    """
    from jepakit.weights import read

    path, parts = config["start"]["weights"], parts_of(config["start"]["parts"])
    found, who = read(path), f"start.weights={path}"
    fills, said = filling(jepa, found, parts, who)
    notes = refuse_other(found.config, config, parts, who)
    like = isinstance(optimizer, torch.optim.AdamW)
    moments = moments_of(jepa, optimizer, found, parts) if "optimizer" in parts and like else {}
    for each in fills:
        refuse_misfit(each.module.state_dict(), each.state, f"{who}, {each.who}")
    _refuse_moments(moments, found, parts, who)
    for note in notes:  # nothing is refused from here on
        say(note)
    for each in fills:
        there = each.module.state_dict()
        each.module.load_state_dict({name: laid_out(value, there[name]) for name, value in each.state.items()})
    for name, parameter in moments.items():
        optimizer.state[parameter] = _state(name, parameter, found.optimizer)
    if "optimizer" in parts:
        none = "no moments of the optimizer, which are " + ("not there" if like else "AdamW's")
        said.append("moments of the optimizer" if moments else none)
    say(f"starts from {path}: {', '.join(said)}")


def parts_of(given: Sequence[str]) -> tuple[str, ...]:
    """The parts that are asked for. Raises ConfigError for one that there is not."""
    for part in given:
        if part not in PARTS:
            raise ConfigError(f"start.parts: no part {part!r}{nearest(part, PARTS)}; there are: {', '.join(PARTS)}")
    if not set(given) - {"optimizer"}:
        raise ConfigError(f"start.parts=[{','.join(given)}] takes no weights: name backbone or predictor")
    return tuple(part for part in PARTS if part in given)


def refuse_other(theirs: Mapping[str, Any], ours: Mapping[str, Any], parts: Sequence[str], who: str) -> list[str]:
    """Raise ConfigError, with the settings to go on with, where the file's model is not the recipe's.

    Returns notes on what differs and is no reason to refuse.
    """
    nodes = [node for part in parts for node in NODES[part]]
    wanted = [setting for node in nodes for setting in _differing(node, theirs[node], ours[node])]
    if wanted:
        raise ConfigError(f"{who} is of another model than the configuration: go on with {' '.join(wanted)}")
    grids = {node: (native(theirs, node), native(ours, node)) for node in nodes if node != "tokenizer"}
    other = {node: (there, here) for node, (there, here) in grids.items() if there and here and there != here}
    asked = [node for node in other if ours[node].get("native")]
    if unsaid := {node: pair for node, pair in other.items() if node not in asked}:
        ways = " ".join(f"{node}.native=[{rows},{columns}]" for node, ((rows, columns), _) in unsaid.items())
        there, here = next(iter(unsaid.values()))
        if not any(theirs[node].get("native") for node in unsaid):
            ways += f", or data.size={theirs['data']['size']}"
        raise ConfigError(f"{who} was trained on a grid of {_by(there)}, here it is {_by(here)}: go on with {ways}")
    anew = [
        f"{node}: the weights know a grid of {_by(other[node][0])}; places are those of its native" for node in asked
    ]
    return anew + _notes(theirs, ours, [node for node, (grid, _) in grids.items() if grid is None])


def filling(jepa: Jepa | Branched, found: Weights, parts: Sequence[str], who: str) -> tuple[list[Fill], list[str]]:
    """Which module is to hold what, and that in words. Raises CheckpointError for a part that the file lacks."""
    there = {"backbone": bool(found.backbones), "predictor": bool(found.predictor)}
    if lacking := [part for part in parts if not there.get(part, True)]:
        rest = [part for part in parts if part not in lacking and there.get(part, bool(found.optimizer))]
        way = f": leave it out with start.parts=[{','.join(rest)}]" if rest else ""
        raise CheckpointError(f"{who} has no {' and no '.join(lacking)}{way}")
    fills, said = [], []
    if "backbone" in parts:
        fills = [Fill("backbone", jepa.backbone, _one_of(found, "online"))]
        if (teacher := getattr(jepa.anti_collapse, "teacher", None)) is not None:
            fills.append(Fill("teacher", teacher, _one_of(found, "target")))
        said.append(_shared(found, teacher is not None))
    if "predictor" in parts and jepa.predictor is None:
        raise ConfigError(f"{who}: every branch has a predictor of its own: leave it out with start.parts=[backbone]")
    if "predictor" in parts:
        fills.append(Fill("predictor", jepa.predictor, found.predictor))
        said.append("predictor")
    return fills, said


def moments_of(
    jepa: Jepa | Branched, optimizer: torch.optim.Optimizer, found: Weights, parts: Sequence[str]
) -> dict[str, nn.Parameter]:
    """The trained parameters that are taken, by name, where the file has moments; else none."""
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    taken = {name: p for name, p in jepa.named_parameters() if id(p) in trained and name.split(".")[0] in parts}
    return taken if found.optimizer else {}


def _refuse_moments(moments: Mapping[str, nn.Parameter], found: Weights, parts: Sequence[str], who: str) -> None:
    if not moments:
        return
    number = torch.zeros(())
    wanted = {f"{name}/{key}": number if key == "step" else p for name, p in moments.items() for key in MOMENTS}
    there = {name: value for name, value in found.optimizer.items() if name.split(".")[0] in parts}
    there = {name: value.float() if name.endswith("/step") else value for name, value in there.items()}
    refuse_misfit(wanted, there, f"{who}, optimizer (leave it out with start.parts=[{','.join(parts[:-1])}])")


def _state(name: str, parameter: nn.Parameter, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a fused AdamW keeps of a parameter: copies, on its device, the step as float32."""
    first, second, step = (found[f"{name}/{key}"] for key in MOMENTS)
    state = {"step": step.to(parameter.device, torch.float32, copy=True)}
    for key, value in zip(MOMENTS, (first, second), strict=False):
        state[key] = torch.empty_like(parameter, requires_grad=False).copy_(laid_out(value, parameter))
    return state


def _differing(kind: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """The settings of one node that would have to be the file's, as on the command line."""
    if theirs["name"] != ours["name"]:
        return [f"{kind}={theirs['name']}"]
    known = {key: value for key, value in theirs.items() if key not in (*TRAINING, "native", "name")}
    return [f"{kind}.{key}={value}" for key, value in known.items() if not _equal(value, ours.get(key))]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, (int, float)):
        return math.isclose(a, b)
    return a == b


def _notes(theirs: Mapping[str, Any], ours: Mapping[str, Any], own: list[str]) -> list[str]:
    grids = [tuple(skeleton(each)[1]) for each in (theirs, ours)]
    notes = [
        f"the weights were trained on {_by(grids[0])} tokens, here there are {_by(grids[1])}: how {node} "
        f"{ours[node]['name']!r} takes that is its own affair"
        for node in own
        if grids[0] != grids[1]
    ]
    for key in ("mean", "std"):
        if list(theirs["data"][key]) != list(ours["data"][key]):
            notes.append(f"the weights were trained with data.{key}={theirs['data'][key]}, here {ours['data'][key]}")
    return notes


def _one_of(found: Weights, which: str) -> dict[str, Tensor]:
    """One backbone, or the only one that there is."""
    return found.backbones.get(which) or next(iter(found.backbones.values()))


def _shared(found: Weights, teacher: bool) -> str:
    if len(found.backbones) == 1:
        (only,) = found.backbones
        return f"{only} weights, the only ones there, to the backbone{' and the teacher' * teacher}"
    return "online weights to the backbone" + ", target weights to the teacher" * teacher


def _by(grid: Sequence[int]) -> str:
    return " x ".join(map(str, grid))
