"""Where each value of a configuration comes from: a default, an option's file, a recipe, or the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from jepakit.branches import place
from jepakit.catalog import ROOT, Catalog
from jepakit.config import compose, loader, parse, prepare
from jepakit.optionfiles import GROUPS
from jepakit.strict import flatten


def origins(
    overrides: Sequence[str], files: Sequence[Path] = (), folders: Sequence[Path] = ()
) -> dict[str, tuple[Any, str]]:
    """Every setting by its dotted key: its value, and who gave it: default, an option's file, recipe, command line."""
    catalog, overrides = prepare(overrides, files, folders)
    config = compose(overrides, catalog, complete=False)
    given = dict.fromkeys(flatten(config), "default")
    with loader(catalog) as hydra:
        chosen = hydra.compute_defaults_list(ROOT, list(overrides), RunMode.RUN)
    for default in chosen.defaults:
        group, _, name = (default.config_path or "").partition("/")
        if (group, name) in catalog.options:
            given |= _given(catalog, group, name, default.package or group)
    by_recipe = _chosen_by_recipes(chosen.defaults, catalog)
    for there in (*GROUPS, *(place(name, group) for name in config["branches"] for group in GROUPS)):
        _name_origins(there, given, by_recipe.get(there, "default"))
    for each in parse(overrides, catalog):
        _command_line(each, given)
    return {key: (value, given[key]) for key, value in flatten(config).items()}


def _given(catalog: Catalog, group: str, name: str, package: str) -> dict[str, str]:
    """What a recipe sets in its body, or a variant that is laid at ``package``."""
    option = catalog.get(group, name)
    body: Any = OmegaConf.to_container(catalog.body(option))
    body = {key: value for key, value in body.items() if key not in ("defaults", "name")}
    if group == "recipe":
        return dict.fromkeys(flatten(body), f"recipe {name}")
    prefix = f"{package}.{catalog.component(group, name)}" if group == "anti_collapse" else package
    owner = f" of plugin {option.plugin}" if option.plugin else ""
    return dict.fromkeys(flatten(body, prefix), f"option {group}={name}{owner}")


def _chosen_by_recipes(defaults: Sequence[Any], catalog: Catalog) -> dict[str, str]:
    """Which recipe chose what, by its place; of several the outermost, which Hydra lists last."""
    found: dict[str, str] = {}
    for default in defaults:
        group, _, name = (default.config_path or "").partition("/")
        if group != "recipe":
            continue
        for each in catalog.body(catalog.get(group, name)).get("defaults", []):
            for key in each if isinstance(each, DictConfig) else []:
                chosen = str(key).removeprefix("override ").strip().lstrip("/")
                found[chosen.partition("@")[2] or chosen] = f"recipe {name}"
    return found


def _name_origins(place: str, given: dict[str, str], origin: str) -> None:
    for key in given:
        if key.startswith(f"{place}.") and key.endswith(".name"):
            given[key] = origin


def _command_line(override: Override, given: dict[str, str]) -> None:
    key = override.key_or_group
    if key in GROUPS:
        _name_origins(override.package or key, given, "command line")
    for each in given:
        if (each == key or each.startswith(f"{key}.")) and key not in GROUPS:
            given[each] = "command line"
