"""Options and recipes as they lie in files: which there are, and what each says."""

import copy
import functools
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from jepakit import yamls
from jepakit.errors import ConfigError, nearest

GROUPS = {kind: kind for kind in ("tokenizer", "masker", "encoder", "predictor", "anti_collapse")} | {"data": "source"}
"""Config groups of components, and the kind that each chooses from."""

PROTOCOL = "protocol"
"""Group of the files that say how a run is scored; they are no part of its configuration."""

Node = Any
"""A DictConfig of OmegaConf, whose generic base the run-time type checker of the tests complains about."""


class Option(NamedTuple):
    """One choice in a group. ``file`` is the YAML it is read from; None for a component as it is registered.

    ``plugin`` is empty for a file that the command line names.
    """

    group: str
    name: str
    plugin: str
    file: Traversable | None = None

    @property
    def place(self) -> str:
        """Where it comes from, for people."""
        owner = f"plugin {self.plugin!r}"
        return f"{self.file}{f' of {owner}' * bool(self.plugin)}" if self.file else owner


def read(option: Option) -> Node:
    """What an option's file says. Raises ConfigError for a file that is no YAML of keys and values."""
    assert option.file is not None
    return copy.deepcopy(_parsed(option.file.read_bytes(), option.place, root=not option.group))


@functools.lru_cache(1024)
def _parsed(content: bytes, place: str, root: bool) -> Node:
    """Once for each content: a sweep, or who compares recipes, reads the same files again and again."""
    body = yamls.read(content, place)
    plain: Any = OmegaConf.to_container(body)
    yamls.refuse_hydra(plain, place, root)
    return body


def shipped(package: str, plugin: str) -> Iterator[Option]:
    """The files that an import package brings in its ``configs`` and ``recipes``."""
    for part, group in (("configs", None), ("recipes", "recipe")):
        try:
            root = resources.files(f"{package}.{part}")
        except ModuleNotFoundError:
            continue
        yield from _walk(root, plugin, group)


def in_folder(folder: Path) -> Iterator[Option]:
    """The files of ``--config-dir``: ``<folder>/<group>/<option>.yaml``. Raises ConfigError where there is none."""
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {folder}: there is no such folder")
    yield from _walk(folder, "")


def _walk(root: Traversable, plugin: str, group: str | None = None) -> Iterator[Option]:
    """The YAML files below a folder. The first folder is the group, unless that is given; the rest are the name."""
    for parts, file in _yaml(root):
        option = Option(group or parts[0], "/".join(parts if group else parts[1:]), plugin, file)
        if not option.name:
            continue  # configs/train.yaml: what the core starts from
        known = (*GROUPS, "recipe", PROTOCOL)
        if option.group not in known:
            hint = nearest(option.group, known)
            raise ConfigError(f"{option.place}: no config group {option.group!r}{hint}; known: {', '.join(known)}")
        yield option


def _yaml(folder: Traversable, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Traversable]]:
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        if file.is_dir():
            yield from _yaml(file, (*above, file.name))
        elif file.name.endswith(".yaml"):
            yield (*above, file.name.removesuffix(".yaml")), file
