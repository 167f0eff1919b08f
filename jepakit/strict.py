"""The check after composition: every key known, every type right, every value in its range.

Hydra lets ``+key=value`` past a schema, and a sweep reports its bad job last. So each composed configuration is held
against the schemas once more, on every path, and what comes out is plain data in one order.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jepakit.branches import PARTS, branches, place, told
from jepakit.catalog import Catalog, Root
from jepakit.errors import ConfigError, nearest
from jepakit.optionfiles import GROUPS
from jepakit.options import BranchOptions, ViewOptions
from jepakit.scaling import RULES
from jepakit.signature import literals
from jepakit.yamls import refuse_targets

CHOICES: dict[str, tuple[str | bool, ...]] = {
    "distance": ("smooth_l1", "l2", "l1"),
    "optim.name": ("adamw", "lars"),
    "optim.decay": ("cosine", "linear"),
    "trainer.precision": ("bf16", "fp32"),
    "trainer.compile": ("auto", True, False),
    "trainer.cuda_graphs": ("auto", True, False),
    "trainer.strategy": ("auto", "ddp", "fsdp2", "hsdp"),
    "trainer.scaling": tuple(RULES),
    "trainer.verify": ("full", "size", "off"),
    "health.on_collapse": ("warn", "stop", "rollback"),
}
AT_LEAST = {
    0: "distance_weight data.workers data.max_bad optim.lr optim.start_lr optim.final_lr optim.warmup optim.clip_after "
    "optim.momentum trainer.max_skips trainer.restarts evaluate.every "
    "health.rollbacks",
    1: "data.batch_size data.size trainer.devices trainer.shard trainer.steps trainer.epoch_steps trainer.accumulate "
    "trainer.global_batch "
    "trainer.threads trainer.log_every trainer.checkpoint_every trainer.keep evaluate.samples evaluate.k",
}
ABOVE_ZERO = (
    "data.timeout optim.stretch optim.eps optim.clip trainer.epochs trainer.timeout evaluate.temperature health.factor"
)
SPANS = {"data.crop_scale": 1.0, "data.crop_ratio": math.inf}
"""Pairs, low then high, above zero and at most this."""
PAIRS = "optim.weight_decay optim.betas"
BRANCH = re.compile(r"[a-z][a-z0-9_]*")
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def check(config: Mapping[str, Any], catalog: Catalog, complete: bool = True) -> dict[str, Any]:
    """The plain, typed configuration. Raises ConfigError; with ``complete`` also for a value that is still missing."""
    refuse_targets(dict(config), "configuration")
    known = [each.name for each in dataclasses.fields(Root)]
    for key in config:
        if key not in (*known, "recipe"):
            raise unknown(key, known)
    for name, branch in (config.get("branches") or {}).items():
        _refuse_keys(BranchOptions, branch, f"branches.{name}")
        _refuse_view_keys(branch.get("views"), f"branches.{name}.views")
    _refuse_view_keys(config.get("views"), "views")
    root = _typed(Root, {key: value for key, value in config.items() if key not in (*GROUPS, "recipe")})
    result: dict[str, Any] = {"seed": root["seed"], "recipe": config.get("recipe")}
    for key in known:
        result[key] = _component(key, key, config.get(key), catalog) if key in GROUPS else root[key]
    for name, branch in result["branches"].items():
        _check_branch(name, branch, catalog)
    for name, view in result["views"].items():
        _check_view(f"views.{name}", view)
    if complete:
        _refuse_missing(result)
    _refuse_values(result)
    for name, branch in result["branches"].items():
        _check_like(name, branch["like"], result["branches"])
        if branch["lr"] is not None and not result["optim"]["lr"]:
            raise ConfigError(
                f"branches.{name}.lr={branch['lr']:g} has no effect beside optim.lr=0: it is a share of it"
            )
    for name, each in branches(result).items():
        with told(name):
            _refuse_values(each)
    return result


def _check_branch(name: str, branch: dict[str, Any], catalog: Catalog) -> None:
    """What a branch has for itself, checked and typed in place."""
    if not BRANCH.fullmatch(name):
        raise ConfigError(f"branches.{name}: a branch's name is small letters, digits and _, and begins with a letter")
    for part in PARTS:
        if branch[part] is not None:
            branch[part] = _component(part, place(name, part), branch[part], catalog)
    _require(f"branches.{name}.weight", branch["weight"], 0 < branch["weight"] < math.inf, "above 0, and finite")
    _require(f"branches.{name}.start", branch["start"], 0 <= branch["start"] < math.inf, "at least 0, and finite")
    own, weight = branch["predictor"] or branch["anti_collapse"], branch["distance_weight"]
    for key in ("lr", "clip"):
        there, value = f"branches.{name}.{key}", branch[key]
        _require(there, value, value is None or 0 < value < math.inf, "above 0")
        _require(there, value, own or value is None, "null: all that it trains is shared")
    _require(f"branches.{name}.distance_weight", weight, weight is None or weight >= 0, "at least 0")
    for view, options in branch["views"].items():
        _check_view(f"branches.{name}.views.{view}", options)
    distance = branch["distance"]
    if distance is not None and distance not in CHOICES["distance"]:
        raise _not_among(f"branches.{name}.distance", distance, CHOICES["distance"])


def _check_like(name: str, like: str | None, known: dict[str, Any]) -> None:
    """Another branch, which is like no other itself."""
    if like is None:
        return
    if like not in known:
        raise _not_among(f"branches.{name}.like", like, tuple(each for each in known if each != name))
    if like == name or known[like]["like"] is not None:
        raise ConfigError(f"branches.{name}.like={like}: it has to be another branch, which is like none itself")


def _check_view(there: str, view: dict[str, Any]) -> None:
    """The values of an entry of ``views``."""
    if not BRANCH.fullmatch(there.rpartition(".")[2]):
        raise ConfigError(f"{there}: a view's name is small letters, digits and _, and begins with a letter")
    for key, low in {"count": 1, "size": 1, "clip": 0, "frame": 0}.items():
        _require(f"{there}.{key}", view[key], view[key] is None or view[key] >= low, f"at least {low}")
    for key, high in {"crop_scale": 1.0, "crop_ratio": math.inf, "blur_sigma": math.inf}.items():
        if view[key] is not None:
            _refuse_span(f"{there}.{key}", view[key], high)
    for key in ("jitter_p", "grey", "blur", "solarize"):
        _require(f"{there}.{key}", view[key], 0 <= view[key] <= 1, "within 0 and 1")
    jitter = view["jitter"]
    fits = len(jitter) == 4 and all(0 <= each < math.inf for each in jitter) and jitter[3] <= 0.5
    _require(f"{there}.jitter", jitter, fits, "[brightness, contrast, saturation, hue], at least 0, hue at most 0.5")
    if view["interpolation"] not in (known := ("bilinear", "bicubic")):
        raise _not_among(f"{there}.interpolation", view["interpolation"], known)


def _refuse_view_keys(views: Any, there: str) -> None:
    for name, view in (views or {}).items():
        _refuse_keys(ViewOptions, view, f"{there}.{name}")


def refuse_data_keys(data: Mapping[str, Any], source: str, catalog: Catalog) -> None:
    """Raise ConfigError for a key that a source does not know, or a source that there is not."""
    fields = [each.name for each in dataclasses.fields(catalog.schema("data", catalog.component("data", source)))]
    for key in data:
        if key not in fields:
            raise unknown(f"data.{key}", fields)


def unknown(path: str, known: list[str]) -> ConfigError:
    """The error for a key that nothing reads."""
    known = [key for key in known if key not in ("name", "hydra")] + ["recipe"] * ("." not in path)
    return ConfigError(f"unknown key {path!r}{nearest(path.rpartition('.')[2], known)}; known: {', '.join(known)}")


def choose(group: str, catalog: Catalog, given: str = "") -> ConfigError:
    """The error for a group that has nothing chosen."""
    names = ", ".join(catalog.names(group))
    return ConfigError(f"{given or group} chooses nothing: write {group}=NAME with one of: {names}")


def unchosen(name: str, chosen: list[str], catalog: Catalog) -> ConfigError:
    """The error for settings of a strategy against collapse that the run does not use."""
    if ("anti_collapse", name) not in catalog.options:
        return unknown(f"anti_collapse.{name}", chosen)
    both = ",".join([*chosen, name])
    return ConfigError(f"anti_collapse.{name} is not part of this run: choose it, anti_collapse=[{both}]")


def _component(group: str, path: str, node: Any, catalog: Catalog) -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        raise choose(group, catalog)
    if group != "anti_collapse":
        return _one(group, path, node, catalog)
    chosen = {name: each for name, each in node.items() if isinstance(each, dict) and each.get("name") == name}
    for name in node:
        if name not in chosen:
            raise unchosen(name, list(chosen), catalog)
    return {name: _one(group, f"{path}.{name}", each, catalog) for name, each in chosen.items()}


def _one(group: str, path: str, node: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    if "name" not in node:
        raise choose(group, catalog)
    component = catalog.plugins.get(GROUPS[group], str(node["name"]))
    result = _typed(catalog.schema(group, component.name), node, path)
    for key, allowed in literals(component).items():
        if result[key] not in (*allowed, "???"):
            raise _not_among(f"{path}.{key}", result[key], allowed)
    return result


def _typed(schema: type, node: dict[str, Any], path: str = "") -> dict[str, Any]:
    """A node with nothing but the keys of its schema, all of them, in order and of their types.

    A key that is not there takes its default: it is new since the run whose configuration this is began.
    """
    _refuse_keys(schema, node, path)
    try:
        return OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(schema), node))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{_join(path, error.full_key)}: {str(error).splitlines()[0]}") from error


def _refuse_keys(schema: type, node: dict[str, Any], path: str) -> None:
    fields = {each.name: each for each in dataclasses.fields(schema)}
    skipped = (*GROUPS,) if schema is Root else ()
    for key, value in node.items():
        if key not in fields:
            raise unknown(_join(path, key), [name for name in fields if name not in skipped])
        nested = fields[key].type
        if dataclasses.is_dataclass(nested) and isinstance(nested, type):
            if not isinstance(value, dict):
                raise ConfigError(f"{_join(path, key)}={value} is no value: it holds the keys of {nested.__name__}")
            _refuse_keys(nested, value, _join(path, key))


def _refuse_missing(config: dict[str, Any]) -> None:
    for path, value in flatten(config).items():
        if value == "???":
            *branch, group = path.split(".")[: 3 if path.startswith("branches.") else 1]
            name = _name((config["branches"][branch[1]] if branch else config)[group])
            raise ConfigError(f"{path} is not set, and {group}={name} has no default: add {path}=VALUE")


def _name(node: Any) -> str:
    return node.get("name") or "+".join(node)


def _refuse_values(config: dict[str, Any]) -> None:
    values = flatten(config)
    for path, allowed in CHOICES.items():
        if values[path] not in allowed:
            raise _not_among(path, values[path], allowed)
    for low, paths in AT_LEAST.items():
        for path in paths.split():
            _require(path, values[path], values[path] is None or values[path] >= low, f"at least {low}")
    for path in ABOVE_ZERO.split():
        _require(path, values[path], values[path] is None or 0 < values[path] < math.inf, "above 0, and finite")
    for path, high in SPANS.items():
        _refuse_span(path, values[path], high)
    shares = values.get("distance_levels")
    fine = shares is None or (shares and min(shares) >= 0)
    _require("distance_levels", shares, fine, "a number for each level, at least 0")
    for path in PAIRS.split():
        _require(path, values[path], len(values[path]) == 2 and min(values[path]) >= 0, "two numbers, at least 0")
    _require("optim.betas", values["optim.betas"], max(values["optim.betas"]) < 1, "below 1")
    _require("optim.momentum", values["optim.momentum"], values["optim.momentum"] < 1, "below 1")
    same = len(values["data.mean"]) == len(values["data.std"]) and min(values["data.std"], default=0) > 0
    _require("data.std", values["data.std"], same, "above 0, one for each number in data.mean")
    device = values["trainer.device"]
    _require("trainer.device", device, DEVICE.fullmatch(device), "auto, cpu, cuda or cuda:N")


def _refuse_span(path: str, value: Any, high: float) -> None:
    fits = len(value) == 2 and 0 < value[0] <= value[1] <= high and value[1] < math.inf
    _require(path, value, fits, f"[low, high] with 0 < low <= high{f' <= {high:g}' * (high < math.inf)}")


def _require(path: str, value: Any, holds: object, what: str) -> None:
    if value != "???" and not holds:
        raise ConfigError(f"{path}={value} is out of range: it has to be {what}")


def _not_among(path: str, value: Any, allowed: tuple[Any, ...]) -> ConfigError:
    words = ["null" if each is None else str(each).lower() if isinstance(each, bool) else str(each) for each in allowed]
    return ConfigError(f"{path}={value} is no choice{nearest(str(value), words)}; there are: {', '.join(words)}")


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def flatten(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Every setting by its dotted key; a list is one value, and so is an empty mapping."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, _join(path, key)) if isinstance(value, Mapping) and value else {_join(path, key): value}
    return flat
