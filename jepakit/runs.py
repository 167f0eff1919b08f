"""The run folder: where a run keeps all that is needed to understand, continue and repeat it.

config.yaml       the resolved configuration        command.txt        each command line that trained here
plugins.json      plugins with their versions       environment.json   Python, platform, packages, cores
git.json          commit and changes of the code    finished           there once training has come to its end
"""

import importlib.metadata
import itertools
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

import jepakit
from jepakit import yamls
from jepakit.catalog import Catalog
from jepakit.errors import ConfigError, nearest
from jepakit.optionfiles import GROUPS
from jepakit.plugins import Plugins
from jepakit.strict import check, flatten

ROOT = Path("runs")
PACKAGES = ("torch", "torchvision", "timm", "numpy", "kornia", "lightly", "hydra-core", "omegaconf", "safetensors")
RECORDS = {"config.yaml", "command.txt", "plugins.json", "environment.json", "git.json", "lock"}
LENGTH = ("run", "published", "trainer.steps", "trainer.epochs")
"""Settings in which a run and its continuation may differ without a word being said against it."""
FIXED = (
    "seed",
    "recipe",
    "distance",
    "distance_weight",
    "data.name",
    "optim.name",
    "start.",
    *(f"{group}." for group in GROUPS if group != "data"),
)
"""Settings (or their beginnings) that make a run what it is."""


class Run(NamedTuple):
    """A run folder as it was found."""

    folder: Path
    config: dict[str, Any]
    plugins: list[dict[str, Any]]
    finished: bool


def create(config: Mapping[str, Any], plugins: Plugins, argv: Sequence[str], folder: Path | None = None) -> Path:
    """A new run folder: ``folder``, or ``runs/<recipe>-<time>``, made unique. Returns its path.

    Raises ConfigError where ``folder`` already holds something.
    """
    folder = _claim(folder) if folder else fresh(ROOT / (config.get("recipe") or "run").replace("/", "-"))
    config = dict(config) | {"run": str(folder)}
    _write(folder / "plugins.json", json.dumps(_plugins(plugins), indent=2))
    _write(folder / "environment.json", json.dumps(environment(), indent=2))
    _write(folder / "git.json", json.dumps(_git(), indent=2))
    note(folder, config, argv)
    return folder


def note(folder: Path, config: Mapping[str, Any], argv: Sequence[str]) -> None:
    """Write the configuration, add the command line to those before it, and take the mark of the end away."""
    (folder / "finished").unlink(missing_ok=True)
    file = folder / "command.txt"
    before = file.read_text("utf-8") if file.exists() else ""
    _write(file, f"{before}{shlex.join(['jepakit', *argv])}\n")
    _write(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))


def discard(folder: Path) -> None:
    """Take back a folder in which nothing but its own records has been written yet; leave any other as it is."""
    files = list(folder.iterdir())
    if {file.name for file in files} <= RECORDS:
        for file in files:
            file.unlink()
        folder.rmdir()


def fresh(stem: Path) -> Path:
    """Make ``<stem>-<time>``, or the next free name after it: no two processes get the same folder."""
    name = f"{stem.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count():
        folder = stem.with_name(f"{name}-{number}" if number else name)
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise AssertionError  # the loop has no end


def _claim(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ConfigError(f"run={folder}: the folder is not empty, and holds no run; name another")
    try:
        (folder / "command.txt").touch(exist_ok=False)
    except FileExistsError as error:
        raise ConfigError(f"run={folder}: another process has just begun a run there") from error
    return folder


def finish(folder: Path) -> None:
    """Mark a run whose training came to its end."""
    (folder / "finished").touch()


def open_run(path: Path) -> Run:
    """Read a run folder back. Raises ConfigError, naming the nearest run, where there is none."""
    file = path / "config.yaml"
    if not file.is_file():
        runs = [str(each) for each in found(path.parent)] or [str(each) for each in found()]
        listed = f"; there are: {', '.join(runs)}" if runs else "; there are no runs yet"
        raise ConfigError(f"run={path}: there is no run{nearest(str(path), runs)}{listed}")
    plugins = path / "plugins.json"
    listed_plugins = json.loads(plugins.read_text("utf-8")) if plugins.is_file() else []
    return Run(path, yamls.resolved(file.read_bytes(), str(file)), listed_plugins, (path / "finished").exists())


def found(root: Path = ROOT) -> list[Path]:
    """Run folders, sweeps' included, newest first."""
    files = [*root.glob("*/config.yaml"), *root.glob("sweep-*/*/config.yaml")]
    return [file.parent for file in sorted(files, key=lambda file: (file.stat().st_mtime, file), reverse=True)]


def changes(
    old: Mapping[str, Any], new: Mapping[str, Any], but: Sequence[str] = ("run", "published")
) -> dict[str, tuple]:
    """Settings that differ, by dotted key: before and after."""
    before, after = flatten(old), flatten(new)
    keys = [key for key in dict.fromkeys([*before, *after]) if key not in but]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def joined(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Settings that the version which began a run did not have yet."""
    return sorted(flatten(new).keys() - flatten(old).keys())


def refuse_new(run: Run, changed: Mapping[str, Any]) -> None:
    """Raise ConfigError where a change would make it another run."""
    for key in changed:
        if re.sub(r"^branches\.\w+\.", "", key).startswith(FIXED):
            raise ConfigError(f"{key} cannot change within a run ({run.folder}): start a new run")


def amend(run: Run, overrides: Sequence[str], catalog: Catalog) -> tuple[dict[str, Any], dict[str, tuple]]:
    """A run's configuration with overrides on top, and what they changed. Raises ConfigError (see ``refuse_new``)."""
    from jepakit.config import parse, plainly

    config = check(run.config, catalog)
    typed = OmegaConf.create(config)
    for each in parse(overrides, catalog):
        key = each.key_or_group
        if key in (*GROUPS, "recipe"):
            raise ConfigError(f"{each.input_line} cannot change within a run ({run.folder}): start a new run")
        if each.is_sweep_override() or each.is_hydra_override():
            raise ConfigError(f"{each.input_line} has no place where a run is continued")
        with plainly(catalog):
            OmegaConf.update(typed, key, each.value(), merge=False)
    plain: Any = OmegaConf.to_container(typed, resolve=True)
    changed = changes(config, amended := check(plain, catalog))
    refuse_new(run, changed)
    return amended, changed


def differing_plugins(run: Run, plugins: Plugins) -> list[str]:
    """One line for each plugin that is not the one the run began with."""
    now = {each["name"]: each for each in _plugins(plugins)}
    lines = []
    for each in run.plugins:
        new = now.get(each["name"])
        if new is None or new["state"] != each["state"]:
            lines.append(f"plugin {each['name']!r} was {each['state']}, now {new['state'] if new else 'missing'}")
        elif new["version"] != each["version"]:
            lines.append(f"plugin {each['name']!r} was version {each['version']}, now {new['version']}")
    return lines


def _plugins(plugins: Plugins) -> list[dict[str, str]]:
    keys = ("name", "distribution", "version", "module", "state")
    return [{key: getattr(status, key) for key in keys} for status in plugins.statuses]


def environment() -> dict[str, Any]:
    """Python, platform, versions of the packages that numbers depend on (None: not installed), cores."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "jepakit": jepakit.__version__,
        "packages": {name: version(name) for name in PACKAGES},
        "cpus": os.cpu_count(),
        "executable": sys.executable,
    }


def version(distribution: str) -> str | None:
    """The installed version of a distribution; None if there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any]:
    """State of the repository that the command was given in, and of jepakit's own checkout where it runs from one."""
    here, own = _repository(Path.cwd()), _repository(Path(jepakit.__file__).parent)
    return {"working_directory": here, "jepakit": own}


def _repository(folder: Path) -> dict[str, Any] | None:
    top = _ask_git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        return None
    return {
        "folder": top,
        "commit": _ask_git(folder, "rev-parse", "--verify", "HEAD"),
        "dirty": bool(_ask_git(folder, "status", "--porcelain")),
        "changes": _ask_git(folder, "diff", "--stat", "HEAD"),
    }


def _ask_git(folder: Path, *arguments: str) -> str | None:
    """What git answers; None where there is no git, no repository or no commit."""
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _write(path: Path, text: str) -> None:
    """All of it or nothing: written beside its place, then renamed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, "utf-8")
    beside.replace(path)
