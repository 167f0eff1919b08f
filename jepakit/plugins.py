"""Find plugins, collect what they bring, refuse collisions.

A plugin is a module with a hook (``hookspecs``). It is found through an entry point of the group ``jepakit`` of any
installed distribution, jepakit's own included, or it is a file named by ``--plugin``. Each is loaded by itself, all
or nothing: one that fails is a line in ``jepakit plugins``, and an error only where something asks for what it would
have brought. Three variables of the environment steer this:

    JEPAKIT_DISABLE_PLUGINS=a,b   leave these out, by name of the plugin or of its distribution
    JEPAKIT_NO_PLUGINS=1          leave out all but jepakit's own distribution, files too
    JEPAKIT_PLUGIN_FILES          more files (separated like PATH), set by ``--plugin`` so that child processes agree
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from jepakit import hookspecs, signature
from jepakit.errors import ConfigError, nearest

GROUP = "jepakit"
OWN = "jepakit"
FILES = "JEPAKIT_PLUGIN_FILES"


@dataclass(frozen=True)
class Component:
    """One thing that can be chosen by name: ``target`` is a class, or ``"package.module:Class"``."""

    kind: str
    name: str
    target: type | str
    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of plugin {self.plugin!r} ({f'{self.distribution} {self.version}'.strip()})"

    def load(self) -> type:
        """The class, imported now if it was named by a string. Raises ConfigError where that cannot be."""
        if isinstance(self.target, type):
            return self.target
        module_name, _, name = self.target.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            missing = f"needs module {error.name!r}" if isinstance(error, ModuleNotFoundError) else "does not import"
            raise ConfigError(f"{self} {missing}: {error}") from error
        if not isinstance(getattr(module, name, None), type):
            raise ConfigError(f"{self}: module {module_name!r} has no class {name!r}{nearest(name, vars(module))}")
        return getattr(module, name)

    def arguments(self) -> tuple[signature.Argument, ...]:
        """What it can be configured with, read off its constructor without importing torch for a lazy component."""
        return signature.arguments(self)


@dataclass
class Status:
    """What became of one plugin. ``state`` is loaded, disabled, failed or incompatible; ``detail`` says why."""

    name: str
    distribution: str
    version: str
    module: str
    state: str = "loaded"
    detail: str = ""
    traceback: str = ""

    def __str__(self) -> str:
        return f"plugin {self.name!r} ({f'{self.distribution} {self.version}'.strip()})"


@dataclass
class Plugins:
    """All that was found. ``packages`` are ``(import package, plugin name)``: each may carry configs and recipes."""

    components: dict[tuple[str, str], Component] = field(default_factory=dict)
    statuses: list[Status] = field(default_factory=list)
    packages: list[tuple[str, str]] = field(default_factory=lambda: [("jepakit", OWN)])
    contested: dict[tuple[str, str], str] = field(default_factory=dict)
    """Names with two owners, and what to do about each."""

    def names(self, kind: str) -> list[str]:
        """The names registered for a kind, sorted."""
        return sorted(name for of, name in self.components if of == kind)

    def get(self, kind: str, name: str) -> Component:
        """The component of that name. Raises ConfigError where there is none, or where two plugins claim the name."""
        if (kind, name) in self.contested:
            raise ConfigError(self.contested[kind, name])
        if (kind, name) in self.components:
            return self.components[kind, name]
        names = self.names(kind)
        lost = [f"{each} is {each.state}: {each.detail}" for each in self.statuses if each.state != "loaded"]
        lines = [f"no {kind} is named {name!r}{nearest(name, names)}", f"there are: {', '.join(names) or 'none'}"]
        raise ConfigError("; ".join(lines + lost))


class Registrar:
    """What a plugin's hook is given: one method for each kind, ``registrar.masker("checkerboard", Checkerboard)``."""

    def __init__(self, status: Status) -> None:
        self.status = status
        self.staged: dict[tuple[str, str], Component] = {}

    def __getattr__(self, kind: str) -> Callable[[str, type | str], None]:
        if kind not in hookspecs.KINDS:
            raise AttributeError(f"registrar knows no kind {kind!r}{nearest(kind, hookspecs.KINDS)}")
        return functools.partial(self.add, kind)

    def add(self, kind: str, name: Any, target: Any) -> None:
        """Stage one component, a class or ``"package.module:Class"``. Raises ConfigError for what cannot be."""
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            raise ConfigError(f"{kind} {name!r}: a name is letters, digits and _, and begins with a letter")
        if not isinstance(target, type) and not (isinstance(target, str) and re.fullmatch(r"\w+(\.\w+)*:\w+", target)):
            raise ConfigError(f"{kind} {name!r}: {target!r} is neither a class nor a string 'package.module:Class'")
        if (kind, name) in self.staged:
            raise ConfigError(f"{kind} {name!r} is registered twice by the same plugin")
        owner = self.status
        self.staged[kind, name] = Component(kind, name, target, owner.name, owner.distribution, owner.version)


def discover(files: Sequence[Path] = ()) -> Plugins:
    """Every plugin, loaded once for each process. ``files`` are plugins by path, and stay known to child processes.

    Raises ConfigError where a file is missing. jepakit's own plugins come first, then those of other distributions by
    name, then files, so that who is called second owner of a name does not depend on the order of installation.
    """
    known = [Path(file) for file in os.environ.get(FILES, "").split(os.pathsep) if file]
    paths = tuple(dict.fromkeys(Path(file).absolute() for file in [*known, *files]))
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"--plugin {path}: there is no such file")
    if paths:
        os.environ[FILES] = os.pathsep.join(map(str, paths))
    only_own = os.environ.get("JEPAKIT_NO_PLUGINS", "0") not in ("", "0")
    off = os.environ.get("JEPAKIT_DISABLE_PLUGINS", "").replace(",", " ").split()
    return _discover(paths, frozenset(map(_normal, off)), only_own)


@functools.cache
def _discover(files: tuple[Path, ...], off: frozenset[str], only_own: bool) -> Plugins:
    manager = pluggy.PluginManager("jepakit")
    manager.add_hookspecs(hookspecs)
    found, known = Plugins(), set()
    for status, load in (*_installed(), *_named(files)):
        found.statuses.append(status)
        names = {_normal(status.name), _normal(status.distribution)}
        known |= names
        if names & off:
            status.state, status.detail = "disabled", "by JEPAKIT_DISABLE_PLUGINS"
        elif only_own and _normal(status.distribution) != OWN:
            status.state, status.detail = "disabled", "by JEPAKIT_NO_PLUGINS"
        else:
            _admit(found, manager, status, load)
    for name in sorted(off - known):
        warnings.warn(f"JEPAKIT_DISABLE_PLUGINS names {name!r}, which is no plugin{nearest(name, known)}", stacklevel=3)
    return found


def forget() -> None:
    """Look again at the next ``discover``: for tests, and after something was installed while running."""
    _discover.cache_clear()


Found = tuple[Status, Callable[[], Any]]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed() -> list[Found]:
    """Entry points, jepakit's own first; ``entry_points`` shows each distribution once, the first on the path."""
    found = []
    for point in importlib.metadata.entry_points(group=GROUP):
        name, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "")
        found.append((Status(point.name, name, version, point.module), point.load))
    return sorted(found, key=lambda f: (_normal(f[0].distribution) != OWN, _normal(f[0].distribution), f[0].name))


def _named(files: Iterable[Path]) -> Iterator[Found]:
    for path in files:
        yield Status(path.stem, str(path), "", path.stem), functools.partial(_load_file, path)


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"jepakit_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _admit(found: Plugins, manager: pluggy.PluginManager, status: Status, load: Callable[[], Any]) -> None:
    """Load one plugin, all of it or nothing; whatever it raises becomes its status."""
    registrar = Registrar(status)
    try:
        module = load()
        wanted = getattr(module, "JEPAKIT_API", hookspecs.API)
        if wanted[0] != hookspecs.API[0] or wanted[1] > hookspecs.API[1]:
            status.state, status.detail = "incompatible", f"it wants plugin API {wanted}, this is {hookspecs.API}"
            return
        _call(manager, module, registrar)
        packages = _packages(status)
        if not registrar.staged and not any(_carries(package) for package, _ in packages):
            raise ConfigError("it brings nothing: no jepakit_register with @jepakit.hookimpl, no configs, no recipes")
        _claim(found, registrar)
    except Exception as error:  # a plugin may raise anything; it must not take the others with it
        status.state, status.traceback = "failed", traceback.format_exc()
        status.detail = " ".join(f"{type(error).__name__}: {error}".split())
        return
    found.components |= registrar.staged
    found.packages += [entry for entry in packages if entry not in found.packages]


def _call(manager: pluggy.PluginManager, module: Any, registrar: Registrar) -> None:
    """Register with pluggy, refuse hooks that do not exist, and call this plugin's hook alone."""
    manager.register(module, name=str(registrar.status))
    try:
        hooks = [name for name in vars(hookspecs) if name.startswith("jepakit_")]
        for caller in manager.get_hookcallers(module) or ():
            if caller.name not in hooks:
                raise ConfigError(f"unknown hook {caller.name!r}{nearest(caller.name, hooks)}")
        others = manager.get_plugins() - {module}
        manager.subset_hook_caller("jepakit_register", others)(registrar=registrar)
    except Exception:
        manager.unregister(module)
        raise


def _packages(status: Status) -> list[tuple[str, str]]:
    """The package that a plugin's module is, or lies in; none for a single module."""
    module = sys.modules.get(status.module)
    package = status.module if hasattr(module, "__path__") else status.module.rpartition(".")[0]
    return [(package, status.name)] if package else []


def _carries(package: str) -> bool:
    return any(importlib.util.find_spec(f"{package}.{part}") for part in ("configs", "recipes"))


def _claim(found: Plugins, registrar: Registrar) -> None:
    """Refuse names that another plugin has. Neither is then used: the person has to say which is meant."""
    for key, new in registrar.staged.items():
        if key not in found.components:
            continue
        old = found.components[key]
        # Of jepakit's own plugins one is left out by its own name: the distribution's name stands for all of them.
        ways = [each.plugin if each.distribution == OWN else each.distribution for each in (old, new)]
        found.contested[key] = (
            f"{new} has two owners: the other is plugin {old.plugin!r} ({old.distribution} {old.version}); "
            f"choose with JEPAKIT_DISABLE_PLUGINS={ways[0]} or JEPAKIT_DISABLE_PLUGINS={ways[1]}"
        )
        raise ConfigError(found.contested[key])
