"""From a command line to one checked, plain configuration.

Hydra composes. Everything a person can get wrong is one line: keys and names are looked up here, before or after
Hydra has seen them, and what Hydra and OmegaConf have to say is put into the same words.
"""

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import initialize
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from jepakit.branches import chosen_part, place
from jepakit.catalog import ROOT, Catalog, Root, collect
from jepakit.errors import ConfigError, UserError
from jepakit.optionfiles import GROUPS, Node
from jepakit.options import BranchOptions, ViewOptions
from jepakit.strict import check, choose, unchosen, unknown
from jepakit.yamls import refuse_targets

HYDRA = ("hydra/launcher", "hydra/sweeper", "hydra.launcher.", "hydra.sweeper.", "hydra.sweep.")
"""What a command line may say of Hydra. It calls what its logging and its callbacks name, and sets variables."""
SECTIONS = {
    each.name: dataclasses.fields(each.default_factory)[0].name  # type: ignore[arg-type, misc]
    for each in dataclasses.fields(Root)
    if dataclasses.is_dataclass(each.default_factory)
}
"""The core's groups of settings, each with its first one."""


def resolve(
    overrides: Sequence[str], files: Sequence[Path] = (), folders: Sequence[Path] = (), complete: bool = True
) -> dict[str, Any]:
    """The configuration that a command line stands for, as plain data.

    ``overrides`` are as on the command line (``recipe=demo``, ``trainer.steps=2``), ``files`` are plugins by path,
    ``folders`` hold options and recipes of one's own. Raises ConfigError; without ``complete`` settings that have no
    value yet stay ``"???"``.
    """
    catalog, overrides = prepare(overrides, files, folders)
    return compose(overrides, catalog, complete)


def prepare(
    overrides: Sequence[str], files: Sequence[Path] = (), folders: Sequence[Path] = ()
) -> tuple[Catalog, list[str]]:
    """All that can be chosen, and the overrides; ``recipe=path/mine.yaml`` becomes a recipe named ``mine``."""
    found = [Path(each[7:]) for each in overrides if each.startswith("recipe=") and each.endswith((".yaml", ".yml"))]
    for path in found:
        if not path.is_file():
            raise ConfigError(f"recipe={path}: there is no such file")
    named = [f"recipe={path.stem}" if each == f"recipe={path}" else each for each in overrides for path in found]
    return collect(files, folders, found), named if found else list(overrides)


def compose(overrides: Sequence[str], catalog: Catalog, complete: bool = True) -> dict[str, Any]:
    """What Hydra composes of the overrides, checked (see ``resolve``)."""
    parsed = parse(overrides, catalog)
    for each in parsed:
        if each.is_sweep_override():
            raise ConfigError(f"{each.input_line} is several values: add -m to try each, or write [...] for a list")
    with plainly(catalog), loader(catalog) as hydra:
        cfg = hydra.load_configuration(ROOT, list(overrides), RunMode.RUN)
        if complete:
            _refuse_sweep(cfg, parsed)
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        return settle(own, cfg.hydra.runtime.choices, catalog, complete)


def _refuse_sweep(cfg: Node, parsed: Sequence[Override]) -> None:
    """A recipe that is a sweep stands for one run only where each of its keys has one value on the command line."""
    given = {each.key_or_group for each in parsed}
    for key, values in _swept(cfg).items():
        if key not in given:
            recipe = f"recipe={cfg.hydra.runtime.choices.get('recipe')}"
            raise ConfigError(f"{recipe} is a sweep, {key}={values}: add -m to train each, or choose {key}=VALUE")


def _swept(cfg: Node) -> dict[str, str]:
    """What a recipe sweeps over: its ``hydra.sweeper.params``, each key with its values."""
    return dict(cfg.hydra.sweeper.get("params") or {})


def settle(cfg: Node, choices: Mapping[str, Any], catalog: Catalog, complete: bool = True) -> dict[str, Any]:
    """The checked, plain configuration of what Hydra composed; ``choices`` is its record of options chosen."""
    with plainly(catalog):
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
    for group in GROUPS:
        _refuse_renamed(group, group, choices.get(group), plain.get(group), catalog)
        for name, branch in plain.get("branches", {}).items():
            there = place(name, group)
            _refuse_renamed(group, there, choices.get(f"{group}@{there}"), branch.get(group), catalog)
    return check(plain | {"recipe": choices.get("recipe")}, catalog, complete)


def _refuse_renamed(group: str, there: str, chosen: Any, node: Any, catalog: Catalog) -> None:
    """A component's name is the group's choice (a strategy against collapse lies under its name: ``strict``)."""
    if not isinstance(chosen, str) or not isinstance(node, dict) or group == "anti_collapse":
        return
    if node.get("name") not in (None, catalog.component(group, chosen)):
        choice = group if there == group else f"{group}@{there}"
        raise ConfigError(f"{there}.name={node['name']} is no way to choose: write {choice}={node['name']}")


def parse(overrides: Sequence[str], catalog: Catalog) -> list[Override]:
    """Hydra's reading of each override. Raises ConfigError for one that cannot be meant, whatever else is said."""
    parsed = [_parse(each) for each in overrides]
    _refuse_twice(parsed)
    for each in parsed:
        _refuse_hydra(each)
        if "_target_" in each.key_or_group.split("."):
            refuse_targets({"_target_": ""}, str(each.input_line))
        if not each.is_sweep_override():
            refuse_targets(each.value(), str(each.input_line))
        if each.key_or_group in (*GROUPS, "recipe"):
            _check_choice(each, catalog)
        else:
            _check_key(each)
    return parsed


def _refuse_hydra(override: Override) -> None:
    key, package = override.key_or_group, override.package or ""
    if package.startswith("hydra") or (re.match(r"hydra\b", key) and not key.startswith((*HYDRA, "hydra.searchpath"))):
        ways = ", ".join(each + "*" * each.endswith(".") for each in HYDRA)
        raise ConfigError(f"{override.input_line} is refused; of Hydra a command line says: {ways}")


def _refuse_twice(parsed: Sequence[Override]) -> None:
    for key, count in Counter(map(_place, parsed)).items():
        if count > 1:
            given = " and ".join(str(each.input_line) for each in parsed if _place(each) == key)
            raise ConfigError(f"{key} is given twice: {given}")


def _place(override: Override) -> str:
    """Where an override belongs: ``masker@branches.image.masker`` is another place than ``masker``."""
    return f"{override.key_or_group}@{override.package}" if override.package else override.key_or_group


def _check_key(override: Override) -> None:
    *parents, last = override.key_or_group.split(".")
    if override.key_or_group == "hydra.searchpath":
        raise ConfigError(f"{override.input_line} is refused: add a folder of options with --config-dir FOLDER")
    if override.is_delete():
        raise ConfigError(f"{override.input_line} is refused: a setting can be changed, not taken away")
    if last == "name" and parents and parents[0] in GROUPS:
        raise ConfigError(f"{override.input_line} is no way to choose: write {parents[0]}=NAME")
    if part := chosen_part(override.key_or_group):
        raise ConfigError(f"{override.input_line} is no way to choose: write {part.rpartition('.')[2]}@{part}=NAME")
    if last in SECTIONS and not parents:
        raise ConfigError(f"{last} holds several settings: write {last}.{SECTIONS[last]}=VALUE, and the like")


def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        if "=" not in text:
            raise ConfigError(f"cannot read {text!r}: a setting is written key=value") from error
        hint = "a value with special characters is written in quotes, key='\"value\"'"
        raise ConfigError(f"cannot read {text!r}: {hint}") from error


def _check_choice(override: Override, catalog: Catalog) -> None:
    group = override.key_or_group
    if override.is_sweep_override():
        names = [str(each).strip("'\"") for each in override.sweep_string_iterator()]
        values: list[Any] = [name for each in names for name in each.strip("[]").split(",")]
    else:
        value = override.value()
        values = value if isinstance(value, list) else [value]
    if override.is_delete() or not values or None in values or isinstance(values[0], dict):
        raise choose(group, catalog, str(override.input_line))
    if len(values) > 1 and isinstance(override.value(), list) and group != "anti_collapse":
        raise ConfigError(f"{override.input_line}: only one {group} can be chosen; only anti_collapse composes")
    names = [catalog.get(group, str(name)).name for name in values]
    if group == "anti_collapse" and not override.is_sweep_override():
        catalog.refuse_twice(names, str(override.input_line))


def jobs(overrides: Sequence[str], catalog: Catalog) -> list[list[str]]:
    """The command lines of a sweep's jobs, as Hydra's own sweeper makes them.

    A recipe may bring the sweep (``_swept``); of a key that both name, the command line has the last word.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    given = parse(overrides, catalog)
    with plainly(catalog), loader(catalog) as hydra:
        swept = _swept(hydra.load_configuration(ROOT, list(overrides), RunMode.MULTIRUN))
    own = parse([f"{key}={values}" for key, values in swept.items()], catalog)
    return [list(job) for job in BasicSweeper.split_arguments([*own, *given], None)[0]]


def assignments(arguments: Sequence[str]) -> dict[str, Any]:
    """``key=value`` arguments of a verb that composes nothing, typed. Raises ConfigError for a key given twice."""
    parsed = [_parse(each) for each in arguments]
    _refuse_twice(parsed)
    for each in parsed:
        if each.is_add() or each.is_force_add() or each.is_delete() or each.is_sweep_override():
            raise ConfigError(f"{each.input_line} has no place here: write {each.key_or_group}=VALUE")
    return {each.key_or_group: each.value() for each in parsed}


def take(key: str, overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of a key that Hydra is not shown, and the other overrides. Raises ConfigError if it is given twice."""
    given = [each for each in overrides if each.startswith(f"{key}=")]
    if len(given) > 1:
        raise ConfigError(f"{key} is given twice: {' and '.join(given)}")
    value = given[0].partition("=")[2].strip("'\"") if given else None
    return None if value in ("", "null") else value, [each for each in overrides if each not in given]


@contextlib.contextmanager
def loader(catalog: Catalog) -> Iterator[ConfigLoader]:
    """Hydra's loader with the catalog laid out before it."""
    catalog.publish()
    with initialize(version_base="1.3", config_path=None):
        yield GlobalHydra.instance().config_loader()


# What Hydra says, in one line ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def plainly(catalog: Catalog) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into a ConfigError of one line."""
    try:
        yield
    except UserError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, catalog) from error


def _explain(error: BaseException, catalog: Catalog) -> ConfigError:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.partition("/")
        if group not in (*GROUPS, "recipe"):
            return ConfigError(" ".join(str(error).partition("Config search path")[0].split()))
        try:
            catalog.get(group, name)
        except ConfigError as found:
            return found
    where = next((f"recipe {name}: " for name in catalog.names("recipe") if f"In 'recipe/{name}'" in str(error)), "")
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, OmegaConfBaseException):
        inner = inner.__cause__ or inner.__context__
    if inner is None:
        return ConfigError(where + " ".join(str(error).split()))
    if f"subclass of {BranchOptions.__name__}" in str(inner) or re.fullmatch(r"branches\.[^.]+", inner.full_key or ""):
        return _no_branch((inner.full_key or "").removeprefix("branches."))
    if f"subclass of {ViewOptions.__name__}" in str(inner) or _first_view(inner):
        return _no_view((inner.full_key or "").removeprefix("views."))
    if isinstance(inner, (ConfigKeyError, ConfigAttributeError)) and inner.full_key:
        parent, (first, _, name) = inner.parent_node, inner.full_key.partition(".")
        if first == "anti_collapse" and "." not in name and parent is not None:
            return unchosen(name, list(map(str, parent)), catalog)
        return ConfigError(f"{where}{unknown(inner.full_key, [] if parent is None else list(map(str, parent)))}")
    place = f"{inner.full_key}: " if inner.full_key else ""
    return ConfigError(where + place + str(inner).splitlines()[0])


def _first_view(error: OmegaConfBaseException) -> bool:
    """Whether something was said of a view where there is none."""
    return (error.full_key or "").startswith("views.") and not error.parent_node


def _no_view(name: str) -> ConfigError:
    """On a command line, views come into being all at once."""
    way = "+views={global: {count: 2}, local: {count: 6, size: 96}}"
    return ConfigError(f"there is no view {name!r} yet: write all views in a recipe, or in one setting, like '{way}'")


def _no_branch(name: str) -> ConfigError:
    """On a command line, a branch comes into being with a part."""
    way = f"+data@branches.{name}.data=NAME, or +masker, +predictor, +anti_collapse"
    return ConfigError(f"there is no branch {name!r} yet: give it a part of its own, {way}; or write it in a recipe")
