"""``jepakit inspect``, ``import`` and ``export``: what a file is, and the way in and out."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from jepakit.config import assignments, take
from jepakit.data.views import RESIZE_FOR
from jepakit.errors import CheckpointError, ConfigError, UserError, first_line, nearest
from jepakit.plugins import discover
from jepakit.protocols import Format
from jepakit.types import Weights
from jepakit.weights import native
from jepakit.weights.content import COMPANION
from jepakit.weights.fill import chosen
from jepakit.weights.formats import OWN, read, writer, writers
from jepakit.weights.report import report

ASKED = ("heads", "predictor_heads", "size", "frames")
"""What some files do not say, and a person may."""
PLACES = ("run=", "file=")
FLAGS = {"--verbose": "all=true", "-v": "all=true"}


def inspect(argv: Sequence[str], files: Sequence[Path]) -> int:
    """``jepakit inspect FILE [recipe=NAME] [all=true]``: prints what it is; 1 where the recipe's model is another.

    Raises UserError for a file that cannot be read or is of no known format.
    """
    place, words = _place("inspect", argv)
    recipe, rest = take("recipe", words)
    given = _options("inspect", rest, ("all", *ASKED))
    discover(files)
    everything = _switch("all", given.pop("all", False))
    return report(place, given, recipe, files, everything)


def import_(argv: Sequence[str], files: Sequence[Path]) -> int:
    """``jepakit import FILE out=X.safetensors [heads=N size=N frames=N]``: writes jepakit's own file, with all that the
    other holds."""
    place, words = _place("import", argv)
    given = _options("import", words, ("out", *ASKED))
    discover(files)
    form = OWN["safetensors"]()
    out = _free("import", given.pop("out", None), form)
    weights = read(place, given)
    which = pick(weights, None, place)
    put(out, lambda path: _write(form, weights, which, path, place))
    _say(out, form, weights, which)
    return 0


def export(argv: Sequence[str], files: Sequence[Path]) -> int:
    """``jepakit export run=FOLDER|FILE to=FORMAT out=PATH [weights=target|online]``.

    ``companion=false`` leaves out the file with what a format has no place for.
    """
    place, words = _place("export", argv)
    given = _options("export", words, ("to", "out", "weights", "companion", *ASKED))
    discover(files)
    named = {key: given.pop(key, None) for key in ("to", "out", "weights")}
    beside = _switch("companion", given.pop("companion", True))
    if named["to"] is None:
        raise ConfigError(f"export to what? add --to {', '.join(writers())}")
    form = writer(str(named["to"]))
    out = _free("export", named["out"], form)
    weights = read(place, given)
    which = pick(weights, named["weights"], place)
    size = weights.config["data"]["size"]
    weights.about["view"] = {"resize": int(size * RESIZE_FOR), "crop": size}

    def write(path: Path) -> None:
        _write(form, weights, which, path, place)
        if path.is_dir() and beside:
            native.save(weights, which, path / COMPANION, which, [part for part in form.parts if part != "backbone"])

    put(out, write)
    _say(out, form, weights, which, beside)
    return 0


def pick(weights: Weights, which: Any, place: str | Path) -> str:
    """The name of the backbone that is meant: as given, else the target, else the one there is."""
    if which is None:
        return "target" if "target" in weights.backbones else next(iter(weights.backbones))
    chosen(weights, str(which), str(place))
    return str(which)


def put(out: Path, write: Callable[[Path], Any]) -> None:
    """Write a file or folder beside its place, sync it and rename it: it is whole or it is not there."""
    beside = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    try:
        write(beside)
        for each in (*(beside.rglob("*") if beside.is_dir() else ()), beside):
            _settle(each)
        if out.exists():
            raise CheckpointError(f"{out} is there by now; nothing was written")
        beside.rename(out)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap a full disk in their own
        reason = getattr(error, "strerror", None) or first_line(error)
        raise CheckpointError(f"{out} could not be written: {reason}") from error
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)


def _write(form: Format, weights: Weights, which: str, path: Path, place: Path) -> None:
    """Let a format write; the reason that it gives against the model of ``place`` becomes one clear line."""
    try:
        form.write(weights, which, path)
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{place}: {first_line(error)}") from error


def _switch(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key}={value}: it is true or false")
    return value


def _place(verb: str, argv: Sequence[str]) -> tuple[Path, list[str]]:
    """The one thing that is looked at, and the other words as ``key=value``; ``--to hf`` becomes ``to=hf``."""
    words, waiting = [], list(argv)
    while waiting:
        word = waiting.pop(0)
        if word in FLAGS:
            word = FLAGS[word]
        elif word.startswith("--"):
            name, _, value = word.removeprefix("--").partition("=")
            if not value and not waiting:
                raise ConfigError(f"{word} needs a value: {name}=VALUE")
            word = f"{name}={value or waiting.pop(0)}"
        words.append(word)
    named = [word for word in words if "=" not in word or word.startswith(PLACES)]
    places = [word.partition("=")[2] or word for word in named]
    if len(places) != 1:
        found = f", not {len(places)}: {', '.join(places)}" if places else ""
        raise ConfigError(f"{verb} takes one file or folder with weights{found}")
    return Path(places[0]), [word for word in words if word not in named]


def _options(verb: str, words: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    given = assignments(words)
    for key in given:
        if key not in known:
            raise ConfigError(f"{verb} knows no {key!r}{nearest(key, known)}; there are: {', '.join(known)}")
    return given


def _free(verb: str, out: Any, form: Format) -> Path:
    """The place to write to. Raises ConfigError where there is something already, or its suffix is another format's."""
    if not out:
        shape = f"FILE{form.suffixes[0]}" if form.suffixes else "FOLDER"
        raise ConfigError(f"{verb} where to? add out={shape}")
    path = Path(str(out))
    if form.suffixes and not path.name.endswith(form.suffixes):
        raise ConfigError(f"out={path}: a {form.title} ends in {' or '.join(form.suffixes)}")
    if not form.suffixes and path.suffix in (".safetensors", ".pth", ".pt", ".tar", ".bin"):
        raise ConfigError(f"out={path}: {form.title} is a folder, not a file")
    if path.exists():
        raise ConfigError(f"out={path} is there already, and is not overwritten")
    if not path.parent.is_dir():
        raise ConfigError(f"out={path}: there is no folder {path.parent}")
    return path


def _say(out: Path, form: Format, weights: Weights, which: str, beside: bool = True) -> None:
    """What was written, and what was not."""
    parts = {**weights.backbones, "predictor": weights.predictor, "optimizer": weights.optimizer}
    held = [part for part, state in parts.items() if state]
    own = [part for part in held if part in form.parts or (part == which and "backbone" in form.parts)]
    rest = [part for part in held if part not in own]
    print(f"{out}: {form.title}, {', '.join(own)}; evaluations take: {which}")
    if rest and beside:
        print(f"{out / COMPANION}: {', '.join(rest)}")
    elif rest:
        print(f"not written: {', '.join(rest)}")
    for name in weights.extra:
        print(f"{name} is not what is computed here, or is not used; it is kept, and written back as it was")
    if assumed := weights.about.get("assumed"):
        print(
            f"assumed, since the file does not say it: {' '.join(f'{key}={value}' for key, value in assumed.items())}"
        )
    if left := weights.about.get("left_out"):
        print(f"left out, no part of the model: {', '.join(left)}")


def _settle(path: Path) -> None:
    """Give a file the rights that files have (safetensors keeps them to the owner), and bring it to disk."""
    if path.is_file():
        os.umask(mask := os.umask(0))
        path.chmod(0o666 & ~mask)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
