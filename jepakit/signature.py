"""A component's configuration is its constructor's signature: names, types and defaults are read here.

A class is asked by ``inspect``. A lazy ``"package.module:Class"`` is read from its source and nothing is imported:
composing a configuration and tab completion stay free of torch.
"""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING
from typing import TYPE_CHECKING, Any, Literal

from jepakit.errors import ConfigError
from jepakit.hookspecs import SUPPLIED
from jepakit.static import PLAIN, read, variadic
from jepakit.static import Argument as Argument

if TYPE_CHECKING:
    from jepakit.plugins import Component


@functools.cache
def arguments(component: "Component") -> tuple[Argument, ...]:
    """What ``component`` can be configured with, in order.

    Raises ConfigError where its constructor is no configuration: it has ``*args`` or ``**kwargs``, an argument called
    ``name``, or a default that is not plain data.
    """
    try:
        found = _of_class(component.target) if isinstance(component.target, type) else read(component.target)
        found = tuple(argument for argument in found if argument.name not in SUPPLIED)
        for argument in found:
            _check(argument)
    except ConfigError as error:
        raise ConfigError(f"{component}: {error}") from error
    return found


@functools.cache
def dataclass_of(component: "Component") -> type:
    """A dataclass for OmegaConf's structured configs: ``name``, then the arguments with their types and defaults."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    fields: list[Any] = [("name", str, dataclasses.field(default=component.name))]
    for argument in arguments(component):
        default = "???" if argument.default is MISSING else _plain(argument.default)
        factory = functools.partial(_plain, default)
        fields.append((argument.name, config_type(argument.annotation), dataclasses.field(default_factory=factory)))
    made = dataclasses.make_dataclass(f"{component.kind}_{component.name}", fields)
    try:
        OmegaConf.structured(made)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{component}: a default does not fit its type: {str(error).splitlines()[0]}") from error
    return made


def literals(component: "Component") -> dict[str, tuple[Any, ...]]:
    """The allowed values of every argument annotated ``Literal[...]``, by name; ``None`` is among them if it may be."""
    found = {argument.name: _literal(argument.annotation) for argument in arguments(component)}
    return {name: values for name, values in found.items() if values}


def config_type(annotation: Any) -> Any:
    """The type that OmegaConf holds the annotation's values in; Any where it has none. Tuples become lists."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in PLAIN:
        return annotation
    if annotation in (list, tuple, dict):
        return {list: list[Any], tuple: list[Any], dict: dict[str, Any]}[annotation]
    if origin is Literal:
        return _common([type(value) for value in inner])
    if origin in (list, tuple):
        return list[_common([config_type(each) for each in inner if each is not Ellipsis])]  # type: ignore[misc]
    if origin is dict:
        return dict[str, config_type(inner[1])]  # type: ignore[misc]
    if origin in (typing.Union, types.UnionType):
        if all(each in (*PLAIN, type(None)) for each in inner):
            return annotation
        held = _common([config_type(each) for each in inner if each is not type(None)])
        return held | None if type(None) in inner and held is not Any else held
    return Any


def _common(held: list[Any]) -> Any:
    """The one type of all, else Any."""
    return held[0] if held and all(each == held[0] for each in held) else Any


def _literal(annotation: Any) -> tuple[Any, ...]:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return inner
    if origin in (typing.Union, types.UnionType) and any(map(_literal, inner)):
        if all(each is type(None) or _literal(each) for each in inner):
            return tuple(value for each in inner for value in (_literal(each) or (None,)))
    return ()


def _check(argument: Argument) -> None:
    if argument.name == "name":
        raise ConfigError("its constructor has an argument 'name', which is the key that chooses the component")
    if argument.default is not MISSING and not _is_plain(argument.default):
        kind = type(argument.default).__name__
        raise ConfigError(f"the default of {argument.name!r} is a {kind}; plain data (numbers, texts, lists) is needed")


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    return value is None or type(value) in PLAIN


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down: a copy."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _of_class(target: type) -> tuple[Argument, ...]:
    owner = next(base for base in target.__mro__ if "__init__" in vars(base))
    if owner.__module__.partition(".")[0] in ("builtins", "typing", "torch") or vars(owner).get("_is_protocol"):
        return ()
    try:
        parameters = inspect.signature(target, eval_str=True).parameters.values()
    except NameError:  # an annotation that exists for type checkers only
        parameters = inspect.signature(target).parameters.values()
    return tuple(map(_of_parameter, parameters))


def _of_parameter(parameter: inspect.Parameter) -> Argument:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise variadic(str(parameter))
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise ConfigError(f"its argument {parameter.name!r} is positional only")
    annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
    return Argument(parameter.name, annotation, MISSING if parameter.default is parameter.empty else parameter.default)


def given(component: "Component", values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the configuration as a constructor asks for them: a list becomes a tuple where its hint says so."""
    hints = {each.name: each.annotation for each in component.arguments()}
    return {name: _as_hinted(hints.get(name), value) for name, value in values.items()}


def _as_hinted(hint: Any, value: Any) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) is not tuple else (hint,)
    tuples = any(typing.get_origin(option) is tuple for option in options)
    return tuple(value) if tuples and isinstance(value, list) else value
