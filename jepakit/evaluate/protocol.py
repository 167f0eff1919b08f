"""What a score means: protocols as versioned files, ``configs/protocol/<name>.yaml``.

A file names a ``kind``, the code that scores, and says all that its numbers depend on. ``like`` takes what is not said
from another file. What is stamped into a result is the file as it was used: a number without it cannot be compared.
Change the version of a file with whatever changes its numbers.
"""

import dataclasses
import importlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from omegaconf import OmegaConf

from jepakit.catalog import Catalog
from jepakit.errors import ConfigError, nearest
from jepakit.optionfiles import PROTOCOL, Option


class Kind(NamedTuple):
    """Code that scores: module of this package, its dataclass of settings, its function, and what that is given."""

    module: str
    settings: str
    function: str
    reads: str

    def get(self, name: str) -> Any:
        """One of its names, imported now."""
        return getattr(importlib.import_module(f"jepakit.evaluate.{self.module}"), name)


LAYERS, TOKENS, MAPS, PIXELS, PAIRS = "layers", "tokens", "maps", "pixels", "pairs"
"""What a kind is given: pooled layers, all tokens of the last, tokens and maps, the data itself, pairs of frames."""

KINDS = {
    "knn": Kind("frozen", "Knn", "score_knn", LAYERS),
    "ridge": Kind("frozen", "Ridge", "score_ridge", LAYERS),
    "logistic": Kind("frozen", "Logistic", "score_logistic", LAYERS),
    "linear": Kind("linear", "Settings", "linear", LAYERS),
    "attentive": Kind("attentive", "Settings", "attentive", TOKENS),
    "lowshot": Kind("lowshot", "Settings", "lowshot", LAYERS),
    "finetune": Kind("finetune", "Settings", "finetune", PIXELS),
    "segment": Kind("segment", "Segment", "segment", MAPS),
    "depth": Kind("depth", "Depth", "depth", MAPS),
    "flow": Kind("flow_entry", "Settings", "result", PAIRS),
}

SETS = {"all": ("knn", "ridge")}
"""Words for several protocols: ``all`` are those that take no time."""


class Protocol(NamedTuple):
    """One protocol as it is used: its file's settings, some of them perhaps ``changed`` by the command line."""

    name: str
    kind: str
    version: int
    settings: Any
    label: str | None = None
    changed: tuple[str, ...] = ()

    @property
    def reads(self) -> str:
        """What it is given: one of the names above."""
        return KINDS[self.kind].reads

    @property
    def score(self) -> Callable[..., dict[str, Any]]:
        """From fit and test features, the number of classes, settings and a device to a cell of a table."""
        return KINDS[self.kind].get(KINDS[self.kind].function)

    def stamp(self) -> dict[str, Any]:
        """What is written beside each of its numbers."""
        about = {"protocol": self.name, "kind": self.kind, "version": self.version}
        own = {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(self.settings).items()}
        return (
            about
            | getattr(self.settings, "FACTS", {})
            | own
            | ({"changed": list(self.changed)} if self.changed else {})
        )


def chosen(catalog: Catalog, words: Any, given: Mapping[str, Any], common: Sequence[str] = ()) -> list[Protocol]:
    """The protocols that ``words`` name (names, paths of files, sets, with commas between), with ``given`` settings.

    Raises ConfigError for a name that there is not, a file that is not whole, and a setting that none of them has; it
    names those that are ``common`` to all evaluations too.
    """
    found = [load(catalog, name) for name in names(catalog, words)]
    own = list(dict.fromkeys(key for each in found for key in keys(each)))
    for key in given:
        if key not in own:
            asked = ", ".join(each.name for each in found)
            more = ", ".join(each for each in own if each not in common) or "none"
            raise ConfigError(
                f"unknown option {key!r}{nearest(key, [*common, *own])}; known: {', '.join([*common, 'data.<key>'])}; "
                f"for protocol={asked} also: {more}"
            )
    return [_changed(each, {key: value for key, value in given.items() if key in keys(each)}) for each in found]


def names(catalog: Catalog, words: Any) -> list[str]:
    """Those of single protocols. Raises ConfigError where there is none."""
    found = [name for word in listed(words) for name in SETS.get(word, (word,))]
    if not found:
        raise ConfigError(f"protocol= needs a name: {', '.join(catalog.names(PROTOCOL))}, or all")
    return list(dict.fromkeys(found))


def kinds(catalog: Catalog, words: Any) -> set[str]:
    """Which code scores the protocols that ``words`` name; it is not imported. Raises as ``chosen``."""
    return {str(_body(catalog, _option(catalog, name), ()).get("kind")) for name in names(catalog, words)}


def listed(words: Any) -> list[str]:
    """``knn,linear`` or ``[knn, linear]`` as a list."""
    each = words.strip("[]").split(",") if isinstance(words, str) else words or ()
    return [str(word).strip() for word in each if str(word).strip()]


def keys(protocol: Protocol) -> list[str]:
    """The settings that a protocol has."""
    return [field.name for field in dataclasses.fields(protocol.settings)]


def load(catalog: Catalog, name: str) -> Protocol:
    """A protocol as its file says. Raises ConfigError for one that there is not or that is not whole."""
    option = _option(catalog, name)
    body = _body(catalog, option, ())
    kind, version, label = (body.pop(key, None) for key in ("kind", "version", "label"))
    if kind not in KINDS:
        raise ConfigError(f"{option.place}: kind={kind}{nearest(str(kind), KINDS)}; there are: {', '.join(KINDS)}")
    if not isinstance(version, int):
        raise ConfigError(f"{option.place}: it needs a version, a whole number, which is stamped into its results")
    return Protocol(option.name, kind, version, _settings(kind, body, option.place), label)


def _option(catalog: Catalog, name: str) -> Option:
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"protocol={name}: there is no such file")
        return Option(PROTOCOL, path.stem, "", path)
    if (PROTOCOL, name) not in catalog.options and name in SETS:
        raise ConfigError(f"protocol={name} is a word for {', '.join(SETS[name])}")
    return catalog.get(PROTOCOL, name)


def _body(catalog: Catalog, option: Option, seen: tuple[str, ...]) -> dict[str, Any]:
    """What a file says, and what it is ``like``; its version and label are its own."""
    body: Any = OmegaConf.to_container(catalog.body(option))
    like = body.pop("like", None)
    if like is None:
        return body
    if like in seen:
        raise ConfigError(f"{option.place}: like={like} leads back to itself")
    above = _body(catalog, _option(catalog, str(like)), (*seen, str(like)))
    return {key: value for key, value in above.items() if key != "version"} | body


def _settings(kind: str, body: Mapping[str, Any], place: str) -> Any:
    schema = KINDS[kind].get(KINDS[kind].settings)
    wanted = {field.name: hint for field, hint in zip(dataclasses.fields(schema), _hints(schema), strict=True)}
    for key in body:
        if key not in wanted:
            raise ConfigError(f"{place}: unknown key {key!r}{nearest(key, wanted)}; known: {', '.join(wanted)}")
    if missing := [key for key in wanted if key not in body]:
        raise ConfigError(f"{place}: it does not say {', '.join(missing)}; like=NAME takes it from another protocol")
    return made(schema, {key: typed(key, value, wanted[key]) for key, value in body.items()}, place)


def _changed(protocol: Protocol, given: Mapping[str, Any]) -> Protocol:
    if not given:
        return protocol
    schema = type(protocol.settings)
    hints = dict(zip(keys(protocol), _hints(schema), strict=True))
    values = {key: typed(key, value, hints[key]) for key, value in given.items()}
    own = {key: getattr(protocol.settings, key) for key in keys(protocol)}
    differ = tuple(key for key, value in values.items() if value != own[key])
    return protocol._replace(settings=made(schema, own | values, f"protocol={protocol.name}"), changed=differ)


def made(schema: type, values: Mapping[str, Any], place: str) -> Any:
    """Settings. Raises ConfigError for what they refuse."""
    try:
        return schema(**values)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from error


def _hints(schema: type) -> list[Any]:
    found = typing.get_type_hints(schema)
    return [found[field.name] for field in dataclasses.fields(schema)]


def typed(key: str, value: Any, wanted: Any) -> Any:
    """A value of the type that is wanted; words of the command line become numbers, switches and lists.

    Raises ConfigError for one that cannot be.
    """
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        if value in (None, "null", "none") and type(None) in inner:
            return None
        return typed(key, value, next(each for each in inner if each is not type(None)))
    if origin is tuple:
        words = value.strip("[]()").split(",") if isinstance(value, str) else value
        words = words if isinstance(words, list | tuple) and (words or inner[0] is str) else [words]
        return tuple(typed(key, word.strip() if isinstance(word, str) else word, inner[0]) for word in words)
    if origin is Literal:
        if value not in inner:
            raise ConfigError(
                f"{key}={value}{nearest(str(value), map(str, inner))}: one of {', '.join(map(str, inner))}"
            )
        return value
    return _plain(key, value, wanted)


def _plain(key: str, value: Any, kind: type) -> Any:
    if kind is bool:
        if str(value).lower() not in ("true", "false"):
            raise ConfigError(f"{key}={value}: it must be true or false")
        return str(value).lower() == "true"
    try:
        if kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError
        return kind(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{key}={value}: it must be a {'whole ' if kind is int else ''}number") from None


def positive(settings: Any, *names: str) -> None:
    """Raise ValueError for a setting, or an entry of one, that is not above 0; for use by settings themselves."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and min(value if isinstance(value, tuple) else (value,)) <= 0:
            raise ValueError(f"{name}={_said(value)}: it must be above 0")


def not_negative(settings: Any, *names: str) -> None:
    """The same for one that is below 0."""
    for name in names:
        value = getattr(settings, name)
        if min(value if isinstance(value, tuple) else (value,)) < 0:
            raise ValueError(f"{name}={_said(value)}: it must not be below 0")


def _said(value: Any) -> str:
    return f"[{', '.join(f'{each:g}' for each in value)}]" if isinstance(value, tuple) else f"{value:g}"
