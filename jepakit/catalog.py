"""Everything that can be chosen by name, laid out where Hydra looks for it: its ConfigStore.

A component is an option of its group (``masker=multiblock``), and so is each variant, a YAML file
``<package>/configs/<group>/<variant>.yaml`` that names a component and some of its arguments. A recipe is a YAML
file ``<package>/recipes/<name>.yaml``. A file is read when it is chosen, and refused there if it holds a key or a type
that its component's signature does not. Two owners of one name are refused with both names.
"""

import copy
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jepakit.errors import ConfigError, nearest
from jepakit.optionfiles import GROUPS, PROTOCOL, Node, Option, in_folder, read, shipped
from jepakit.options import (
    BranchOptions,
    DataOptions,
    EvaluateOptions,
    HealthOptions,
    LoggerOptions,
    OptimOptions,
    Published,
    StartOptions,
    TrainerOptions,
    ViewOptions,
)
from jepakit.plugins import OWN, Plugins, discover

ROOT = "train"
"""Name of the configuration that everything starts from: ``configs/train.yaml``."""


@dataclass
class Root:
    """The keys of a configuration. Components are filled in by the option that is chosen for their group."""

    seed: int = 0
    run: str | None = None
    distance: str = "smooth_l1"
    distance_weight: float = 1.0
    distance_levels: list[float] | None = None
    data: Any = MISSING
    views: dict[str, ViewOptions] = field(default_factory=dict)
    tokenizer: Any = MISSING
    masker: Any = MISSING
    encoder: Any = MISSING
    predictor: Any = MISSING
    anti_collapse: Any = MISSING
    branches: dict[str, BranchOptions] = field(default_factory=dict)
    optim: OptimOptions = field(default_factory=OptimOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    start: StartOptions = field(default_factory=StartOptions)
    logger: LoggerOptions = field(default_factory=LoggerOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    health: HealthOptions = field(default_factory=HealthOptions)
    published: list[Published] = field(default_factory=list)


class _Lazy(ConfigNode):
    """A config node that is made when it is chosen, so that a broken one is an error only then."""

    def __init__(self, option: Option, package: str, make: Any) -> None:
        super().__init__(option.name, make, option.group, package, option.plugin)  # type: ignore[arg-type]

    @property
    def node(self) -> Node:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._node() if callable(self._node) else self._node

    @node.setter
    def node(self, value: Any) -> None:
        self._node = value


class Catalog:
    """All options of all groups. A name that two plugins or files claim is an error when it is chosen."""

    def __init__(self, plugins: Plugins, folders: Sequence[Path] = (), recipes: Sequence[Path] = ()) -> None:
        self.plugins = plugins
        self.options: dict[tuple[str, str], Option] = {}
        self.contested: dict[tuple[str, str], str] = {}
        for group, kind in GROUPS.items():
            self._claim(Option(group, name, plugins.components[kind, name].plugin) for name in plugins.names(kind))
        for package, plugin in plugins.packages:
            self._claim(shipped(package, plugin))
        for folder in folders:
            self._claim(in_folder(folder))
        self._claim(Option("recipe", path.stem, "", path) for path in recipes)

    def _claim(self, options: Iterable[Option]) -> None:
        for option in options:
            old = self.options.setdefault((option.group, option.name), option)
            if old is not option:
                owners = f"{option.group}={option.name} has two owners: {old.place} and {option.place}"
                self.contested[option.group, option.name] = f"{owners}; rename one, or disable one of the plugins"

    def names(self, group: str) -> list[str]:
        """What can be chosen in a group, sorted."""
        return sorted(name for of, name in self.options if of == group)

    def get(self, group: str, name: str) -> Option:
        """One option. Raises ConfigError that lists what there is, and the plugins that could not bring theirs."""
        if group in GROUPS and (GROUPS[group], name) in self.plugins.contested:
            raise ConfigError(self.plugins.contested[GROUPS[group], name])
        if (group, name) in self.contested:
            raise ConfigError(self.contested[group, name])
        if (group, name) in self.options:
            return self.options[group, name]
        names = self.names(group)
        lost = [f"{each} is {each.state}: {each.detail}" for each in self.plugins.statuses if each.state != "loaded"]
        lines = [f"no {group} {name!r}{nearest(name, names)}", f"there are: {', '.join(names) or 'none'}", *lost]
        raise ConfigError("; ".join(lines))

    def component(self, group: str, name: str) -> str:
        """The component that an option configures: itself, or what its file names."""
        option = self.get(group, name)
        return str(self.body(option)["name"]) if option.file else name

    def schema(self, group: str, component: str) -> type:
        """The dataclass of a component's configuration; for a source with the keys that all data has."""
        return _schema(self.plugins, group, component)

    def body(self, option: Option) -> Node:
        """What an option's file says, as it is written there."""
        if option.file is None:
            return OmegaConf.create()
        body = read(option)
        if option.group in GROUPS and not isinstance(body.get("name"), str):
            raise ConfigError(f"{option.place}: it needs a key 'name', the component that it is a variant of")
        return body

    def node(self, option: Option) -> Node:
        """What Hydra merges when the option is chosen. Raises ConfigError for a file that does not fit its schema."""
        if option.group == "recipe":
            return self._recipe(option)
        if option.file is None:
            return OmegaConf.structured(self.schema(option.group, option.name))
        body = self.body(option)
        schema = self.schema(option.group, body["name"])
        known = [each.name for each in dataclasses.fields(schema)]
        for key in body:
            if key not in known:
                hint = f"{nearest(str(key), known)}; known: {', '.join(known)}"
                raise ConfigError(f"{option.place}: unknown key {key!r}{hint}")
        try:
            return OmegaConf.merge(OmegaConf.structured(schema), body)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{option.place}: {error.full_key}: {str(error).splitlines()[0]}") from error

    def _recipe(self, option: Option) -> Node:
        body, overriding = self.body(option), False
        for entry in body.get("defaults", []):
            for key, value in entry.items() if isinstance(entry, DictConfig) else [(entry, None)]:
                if overriding and not str(key).startswith("override "):
                    raise ConfigError(f"{option.place}: {key} has to stand before the lines with 'override'")
                overriding = str(key).startswith("override ")
                if str(key).endswith("/anti_collapse") and isinstance(value, ListConfig):
                    self.refuse_twice(list(value), option.place)
        return body

    def refuse_twice(self, names: Sequence[str], place: str) -> None:
        """Strategies against collapse compose, but two variants of one would write over each other: ConfigError."""
        found: dict[str, str] = {}
        for name in names:
            strategy = self.component("anti_collapse", name)
            if strategy in found:
                raise ConfigError(f"{place}: {found[strategy]!r} and {name!r} are one strategy; choose either")
            found[strategy] = name

    def publish(self) -> None:
        """Lay everything out in Hydra's ConfigStore, in place of what an earlier catalog put there."""
        store = ConfigStore.instance()
        for group in (*GROUPS, "recipe"):
            store.repo.pop(group, None)
        store.store("options", Root, provider=OWN)
        store.store(ROOT, read(Option("", ROOT, OWN, _root_file())), provider=OWN)
        for option in (each for each in self.options.values() if each.group != PROTOCOL):
            *folders, name = (option.group, *option.name.split("/"))
            level = store.repo
            for folder in folders:
                level = level.setdefault(folder, {})
            package = "_global_" if option.group == "recipe" else option.group
            level[f"{name}.yaml"] = _Lazy(option, package, functools.partial(self._placed, option))

    def _placed(self, option: Option) -> Node:
        """Strategies against collapse compose: each lies under its own name."""
        node = self.node(self.get(option.group, option.name))
        return OmegaConf.create({node["name"]: node}) if option.group == "anti_collapse" else node


def collect(files: Sequence[Path] = (), folders: Sequence[Path] = (), recipes: Sequence[Path] = ()) -> Catalog:
    """What installed plugins and ``files`` bring, with the options in ``folders`` and single recipe files."""
    return Catalog(discover(files), folders, recipes)


@functools.cache
def _schema_of(component: Any, data: bool) -> type:
    from jepakit.signature import dataclass_of

    own = dataclass_of(component)
    if not data:
        return own
    taken = {each.name for each in dataclasses.fields(own)}
    shared = [each for each in dataclasses.fields(DataOptions) if each.name not in taken]
    spec = [(each.name, each.type, copy.copy(each)) for each in (*dataclasses.fields(own), *shared)]
    return dataclasses.make_dataclass(own.__name__, spec)


def _schema(plugins: Plugins, group: str, component: str) -> type:
    return _schema_of(plugins.get(GROUPS[group], component), group == "data")


def _root_file() -> Traversable:
    return resources.files("jepakit.configs") / f"{ROOT}.yaml"
