"""Whose file is it? jepakit's own formats are asked, then those that plugins know."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jepakit.errors import CheckpointError, ConfigError, UserError, first_line, nearest
from jepakit.plugins import discover
from jepakit.protocols import Content, Format
from jepakit.types import Weights
from jepakit.weights import native
from jepakit.weights.content import open_content, top

OWN: dict[str, type] = {"run": native.RunFolder, "safetensors": native.Exported}
WRONG = (ValueError, LookupError, TypeError, AttributeError, RuntimeError)
"""What a format may raise against a file."""


def read(path: str | Path, given: Mapping[str, Any] | None = None) -> Weights:
    """The model in a run folder, or in a file or folder of any format that is known, with all its parts.

    Args:
        given: what the file does not say (``heads``, ``predictor_heads``, ``size``, ``frames``).

    Raises:
        CheckpointError: no such file, a damaged or foreign one, one whose keys or shapes do not fit together, or one
            that says something else than what is given.
    """
    return interpret(open_content(path, given))


def interpret(content: Content) -> Weights:
    """The model in what was opened (see ``read``)."""
    _, form = recognise(content)
    found = native.rejoin(content.path, ask(content.path, form.read, content))
    _refuse_given(content, found)
    return found


def formats() -> dict[str, Format]:
    """Every format by its name, jepakit's own first."""
    plugins = discover()
    others = {name: plugins.get("format", name) for name in plugins.names("format")}
    for name in OWN.keys() & others.keys():
        raise ConfigError(f"{others[name]} has a name that jepakit keeps for its own format")
    return {**{name: own() for name, own in OWN.items()}, **{name: each.load()() for name, each in others.items()}}


def recognise(content: Content) -> tuple[str, Format]:
    """The format of what was opened, and its name. Raises CheckpointError, saying what it holds, if none knows it."""
    known = formats()
    found = next((name for name, form in known.items() if form.recognise(content)), None)
    if found is None:
        words = top(content)
        held = ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")
        titles = ", ".join(form.title for form in known.values())
        raise CheckpointError(
            f"{content.path} is of no known format; at the top it holds: {held or 'nothing'}; known: {titles}"
        )
    return found, known[found]


def writer(name: str) -> Format:
    """The format that ``to=name`` asks for. Raises ConfigError where there is none that can be written."""
    able = writers()
    if name not in able:
        raise ConfigError(f"to={name}: no such format{nearest(name, able)}; there are: {', '.join(able)}")
    return able[name]


def writers() -> dict[str, Format]:
    """The formats that can be written, by name."""
    return {name: form for name, form in formats().items() if form.parts}


def ask(path: Path, call: Callable[..., Any], *args: Any) -> Any:
    """Call a format; the reason that it gives against a file becomes one clear line."""
    try:
        return call(*args)
    except UserError:
        raise
    except WRONG as error:
        raise CheckpointError(f"{path}: {first_line(error)}") from error


def _refuse_given(content: Content, found: Weights) -> None:
    """Raise CheckpointError where a file says something else than a person does."""
    said = {
        "frames": 1,
        **{key: found.config["data"][key] for key in ("size", "frames") if key in found.config["data"]},
    }
    for key, part in (("heads", "encoder"), ("predictor_heads", "predictor")):
        said[key] = (found.config.get(part) or {}).get("heads")
    for key, value in content.given.items():
        if key in said and said[key] not in (None, value):
            raise CheckpointError(f"{content.path}: {key}={value}, and the file says {said[key]}")
