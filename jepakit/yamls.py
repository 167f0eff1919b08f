"""YAML that others wrote: data, of a bounded size, and nothing else.

OmegaConf reads YAML without tags that make objects. What is left to a file is what it says in settings: what to
instantiate (``_target_``), what Hydra is to do, references that stand for a billion values, and interpolations where a
configuration is said to be resolved. A recipe of a stranger has to be harmless, and so has a run's config.yaml.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jepakit.errors import ConfigError

MOST = 100_000
"""Values that a file may stand for, with what its references (``*name``) name written out."""
DEEP = 50
"""Levels of keys and lists in a file; what reads YAML takes longer the deeper it is."""
BROKEN = (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, ValueError, RecursionError)
"""What reading raises for a file that is no YAML, or not of keys and values."""
SWEEP = ("sweeper", "params")
"""The one thing that a file may say of Hydra: what is swept over."""
ROOT_TOO = (("output_subdir",), ("sweep", "subdir"))
"""What the file that everything starts from says of it as well."""


def read(content: bytes, place: str) -> Any:
    """Keys and values of a file, as OmegaConf's node. Raises ConfigError, of one line, for anything else."""
    try:
        text = content.decode()
        if (size := _size(text, place)) > MOST:
            raise ConfigError(f"{place} stands for {size:,} values or more, and more than {MOST:,} are refused")
        body = OmegaConf.create(text)
    except BROKEN as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{place} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(body, DictConfig):
        raise ConfigError(f"{place} holds no keys and values")
    refuse_targets(OmegaConf.to_container(body), place)
    return body


def resolved(content: bytes, place: str) -> dict[str, Any]:
    """A configuration that was written resolved, as plain data. Raises ConfigError where something is left to resolve,
    which could bring the environment of whoever reads it into what is written next."""
    plain: Any = OmegaConf.to_container(read(content, place))
    for key, value in _values(plain):
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"{place}: {key}={value} is refused: the configuration of a run holds no interpolations")
    return plain


def refuse_targets(value: Any, place: str) -> None:
    """Raise ConfigError for ``_target_`` anywhere in plain data: a configuration never says what code to run."""
    if isinstance(value, dict):
        if "_target_" in value:
            raise ConfigError(f"{place}: '_target_' is refused; a component is chosen by its registered name")
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            refuse_targets(each, place)


def refuse_hydra(body: Mapping[str, Any], place: str, root: bool = False) -> None:
    """Raise ConfigError where an option or recipe tells Hydra more than what is swept over.

    Hydra calls what its logging, its callbacks and its launcher name, and sets variables of the environment.
    """
    allowed = (SWEEP, *(ROOT_TOO if root else ()))
    for path, value in _paths(body.get("hydra"), ()):
        fits = any(path[: len(each)] == each for each in allowed)
        if not fits or (path == SWEEP and not isinstance(value, Mapping)):
            said = f"hydra.{'.'.join(path)}" if path else "hydra"
            raise ConfigError(f"{place}: {said} is refused; of Hydra a file says hydra.{'.'.join(SWEEP)} alone")
        for key in value if path == SWEEP else ():
            if "hydra" in str(key):
                raise ConfigError(f"{place}: {key} is refused: what is swept over are settings of jepakit's")
    chosen = body.get("defaults") or ()
    for key in (key for entry in chosen for key in (entry if isinstance(entry, Mapping) else [entry])):
        if "hydra" in str(key) and not root:
            raise ConfigError(f"{place}: {key} is refused; of Hydra a file says hydra.{'.'.join(SWEEP)} alone")


def _paths(node: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value by the keys above it; what is swept over is one value, and so is nothing."""
    if isinstance(node, Mapping) and node and above != SWEEP:
        for key, value in node.items():
            yield from _paths(value, (*above, str(key)))
    elif node is not None:
        yield above, node


def _values(node: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        name = f"{above}.{key}" if above else str(key)
        yield name, value
        yield from _values(value, name)


def _size(text: str, place: str) -> int:
    """How many values a text stands for; no more is counted once they are too many. ConfigError where it is deep."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, yaml.SafeLoader):
        size, anchor = 0, getattr(event, "anchor", None)
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            open_.append((anchor, 1))
            if len(open_) > DEEP:
                raise ConfigError(f"{place} is nested more than {DEEP} levels deep")
            continue
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            anchor, size = open_.pop()
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
        elif isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor, MOST + 1)  # one that is not closed yet names itself
        if anchor and not isinstance(event, yaml.AliasEvent):
            sizes[anchor] = size
        within, so_far = open_[-1]
        open_[-1] = (within, so_far + size)
        if so_far + size > MOST:
            return so_far + size
    return open_[0][1]
