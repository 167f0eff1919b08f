"""From a resolved configuration to a model, read top to bottom. What cannot work is refused here, with the reason."""

import inspect
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jepakit import seeds
from jepakit.compose import Together
from jepakit.distance import distance
from jepakit.errors import ConfigError
from jepakit.jepa import Backbone, Jepa
from jepakit.plugins import discover
from jepakit.protocols import Masker
from jepakit.testing import check_mask
from jepakit.types import Grid, Mask


class Built(NamedTuple):
    """A model, the masker that asks it questions, and the grid of tokens that its views are cut into."""

    jepa: Jepa
    masker: Masker
    grid: Grid


def build(config: Mapping[str, Any], steps: int = 1) -> Built:
    """Make every part, join them, and rehearse one step without computing anything.

    Args:
        config: resolved, as in a run's ``config.yaml``.
        steps: optimiser steps of the whole run, which a teacher's schedule depends on.

    Raises:
        ConfigError: where a part refuses its arguments, or parts do not fit together.
    """
    data = config["data"]
    channels, frames, size = len(data["mean"]), data.get("frames", 1), data["size"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.key(config["seed"], "init"))
        encoder = make("encoder", config["encoder"], channels=channels)
        width = encoder.width
        tokenizer = make("tokenizer", config["tokenizer"], channels=channels, encoder_width=width)
        grid = refuse(f"tokenizer {config['tokenizer']['name']!r}", tokenizer.grid, frames, size, size)
        predictor = make("predictor", config["predictor"], channels=channels, encoder_width=width, grid=grid)
        masker = make("masker", config["masker"], grid=grid)
        strategies = {name: make("anti_collapse", node) for name, node in config["anti_collapse"].items()}
        backbone, anti_collapse = Backbone(tokenizer, encoder), Together(strategies)
        anti_collapse.prepare(backbone, steps)
        jepa = Jepa(backbone, predictor, anti_collapse, distance(config["distance"]))
    built = Built(jepa, masker, grid)
    rehearse(built, config, (channels, frames, size, size))
    return built


def make(kind: str, node: Mapping[str, Any], **supplied: Any) -> Any:
    """A component from its node of the configuration, and from what it asks of ``supplied`` by name."""
    component = discover().get(kind, node["name"])
    factory = component.load()
    wanted = inspect.signature(factory).parameters
    given = {name: typed(factory, name, value) for name, value in node.items() if name != "name"}
    given |= {name: value for name, value in supplied.items() if name in wanted}
    return refuse(f"{kind} {node['name']!r}", factory, **given)


def typed(factory: Any, name: str, value: Any) -> Any:
    """A list of the configuration as the tuple that a constructor asks for."""
    hint = typing.get_type_hints(factory.__init__).get(name)
    options = typing.get_args(hint) if typing.get_origin(hint) is not tuple else (hint,)
    tuples = any(typing.get_origin(option) is tuple for option in options)
    return tuple(value) if tuples and isinstance(value, list) else value


def refuse(who: str, call: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a component; the reason it gives against its arguments becomes one clear line."""
    try:
        return call(*args, **kwargs)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{who}: {error}") from error


def rehearse(built: Built, config: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    """One step on tensors that have a shape and no content: costs nothing, and finds parts that do not fit."""
    batch = config["data"]["batch_size"]
    masks = draw(built.masker, config["masker"]["name"], built.grid, batch)
    views = range(1 + max(v for m in masks for v in _views(m)))
    weights = {name: value.to("meta") for name, value in built.jepa.state_dict(keep_vars=True).items()}
    pixels = [torch.empty(batch, *shape, device="meta") for _ in views]
    names = {kind: config[kind]["name"] for kind in ("tokenizer", "encoder", "masker", "predictor")}
    names["anti_collapse"] = "+".join(config["anti_collapse"])
    parts = ", ".join(f"{kind} {name!r}" for kind, name in names.items())
    try:
        torch.func.functional_call(built.jepa, weights, (pixels, [_meta(mask) for mask in masks]))
    except NotImplementedError:
        return  # an operation without a shape rule: the first real step will tell
    except (ValueError, RuntimeError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"these parts do not work together ({parts}): {reason}") from error


def draw(masker: Masker, name: str, grid: Grid, batch: int) -> list[Mask]:
    """Masks for a batch, held to the masker's contract."""
    masks = refuse(f"masker {name!r}", masker, grid, batch, seeds.generator("rehearsal"))
    try:
        for mask in masks:
            check_mask(mask, grid, batch, overlaps=getattr(masker, "overlaps", False))
    except AssertionError as error:
        raise ConfigError(f"masker {name!r} breaks its contract: {error}") from error
    return masks


def _views(mask: Mask) -> tuple[int, ...]:
    target = mask.target_view
    return (mask.context_view, *((target,) if isinstance(target, int) else target))


def _meta(mask: Mask) -> Mask:
    return Mask(*(part.to("meta") if isinstance(part, Tensor) else part for part in mask))


def parameters(module: nn.Module) -> int:
    """How many numbers are trained in a module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
