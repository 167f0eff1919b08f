"""``jepakit bench recipe=NAME [against=OTHER ...]``: what a command line asks for. Nothing here needs torch."""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jepakit import runs
from jepakit.config import assignments, compose, prepare, take
from jepakit.errors import ConfigError, nearest
from jepakit.strict import check

OWN = ("against", "steps", "repeats", "clock", "fixed", "out", "profile", "roofline", "sweep", "plot")
"""Settings that are bench's own, written ``key=value`` or ``--key value``; all others are the configuration's."""
BARE = ("roofline",)
"""Those that need no value behind two dashes."""
STEPS, BATCHES, REPEATS = 10, 2, 9
"""Steps of a round, batches of one where data alone are timed, and rounds: nine give an interval that holds with more
than 95 %."""


SEPARATE = re.compile(r",(?![^\[]*\])")
"""Between values of a sweep: a comma that is not within brackets."""
PICTURES = (".svg", ".png", ".pdf")
"""What a plot can be written as."""


class Sweep(NamedTuple):
    """A setting and the configurations that its values make, by value."""

    key: str
    sides: list[tuple[str, dict[str, Any]]]


class Asked(NamedTuple):
    """What is timed: configurations by label, and files of others' steps; how often, by which clock, whether with
    ``fixed`` batches, whether beside the machine's limits, along which settings, and where results go."""

    sides: list[tuple[str, dict[str, Any] | Path]]
    steps: int
    repeats: int
    clock: str
    fixed: bool
    out: Path | None
    profile: Path | None
    roofline: bool
    sweeps: list[Sweep]
    plot: Path | None


def command(argv: Sequence[str], files: Sequence[Path] = ()) -> int:
    """Time the steps of a recipe, beside others where ``against=`` names some, or ``data`` alone; print and write it.

    Returns 0. Raises ConfigError for a command line that cannot be meant, and UserError as training would.
    """
    of_data = argv[:1] == ["data"]
    wanted = data(argv[1:], files) if of_data else asked(argv, files)
    if wanted.sweeps:  # said before torch is there: a profiler of memory tells of every block that it did not see made
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if of_data:
        from jepakit.bench import loading as what
    else:
        from jepakit.bench import timing as what

    found = what.timed(wanted)
    what.show(found)
    if wanted.out:
        wanted.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    for path in filter(None, (wanted.out, wanted.profile, wanted.plot)):
        print(f"written to {path}")
    return 0


def data(argv: Sequence[str], files: Sequence[Path]) -> Asked:
    """Read a command line of ``jepakit bench data``: pictures of a folder, where nothing else is chosen."""
    chosen = any(word.startswith(("data=", "recipe=", "run=")) for word in argv)
    found = asked(argv if chosen else ["data=folder", *argv], files, BATCHES)
    for key, given in (
        ("against", found.sides[1:]),
        ("profile", found.profile),
        ("fixed", found.fixed),
        ("roofline", found.roofline),
        ("sweep", found.sweeps),
    ):
        if given:
            raise ConfigError(f"bench data has no {key}: it times every decoder that there is")
    return found


def asked(argv: Sequence[str], files: Sequence[Path], steps: int = STEPS) -> Asked:
    """Read a command line that need not say how many ``steps``.

    Raises ConfigError for what has no place there, before anything is built.
    """
    words = _plain(argv)
    own = [word for word in words if word.partition("=")[0] in OWN]
    overrides = [word for word in words if word not in own]
    against = [word.partition("=")[2] for word in own if word.startswith("against=")]
    swept = [word.partition("=")[2] for word in own if word.startswith("sweep=")]
    given = assignments([word for word in own if not word.startswith(("against=", "sweep="))])
    steps, repeats = (_count(key, given.get(key, default)) for key, default in (("steps", steps), ("repeats", REPEATS)))
    if (clock := given.get("clock", "wall")) not in ("wall", "cpu"):
        raise ConfigError(f"clock={clock} is no choice: clock=wall, or clock=cpu for CPU time of the process")
    fixed = _flag("fixed", given, "takes the same batches again and again")
    roofline = _flag("roofline", given, "says of each part how near to the machine's limits it comes")
    out, profile = (_file(key, given.get(key)) for key in ("out", "profile"))
    plot = _file("plot", given.get("plot"), PICTURES)
    if plot and not swept:
        raise ConfigError(f"plot={plot}: it is sweeps that are drawn: add sweep=data.batch_size=8,16,32")
    _alone(swept, {"against": against, "profile": profile, "roofline": roofline})
    sides = [overrides, *(_other(each, overrides) for each in against)]
    sweeps = [_sweep(each, overrides, files) for each in swept]
    made = [_side(each, files) for each in sides]
    return Asked(made, steps, repeats, clock, fixed, out, profile, roofline, sweeps, plot)


def _alone(swept: Sequence[str], others: Mapping[str, Any]) -> None:
    """Raise ConfigError for what is of one step, or of two, beside a sweep."""
    for key, given in others.items():
        if swept and given:
            raise ConfigError(f"{key} has no place beside sweep={swept[0]}: time it by itself")


def _sweep(said: str, overrides: Sequence[str], files: Sequence[Path]) -> Sweep:
    """Configurations with ``KEY=ONE,OTHER``. Raises ConfigError for fewer than two values, or no key of a recipe."""
    key, sign, rest = said.partition("=")
    values = [value for value in SEPARATE.split(rest) if value]
    if not (key and sign and len(values) > 1):
        raise ConfigError(f"sweep={said} names no values to compare: write sweep=data.batch_size=8,16,32")
    if len(set(values)) < len(values):
        raise ConfigError(f"sweep={said} names a value twice")
    if taken := [word for word in (key, *map(_key, overrides)) if word in ("run", *OWN)]:
        raise ConfigError(f"sweep={said}: {taken[0]}= has no place beside it, a sweep is of settings of a recipe")
    others = [word for word in overrides if _key(word) != key.lstrip("+")]
    sides = [_side([*others, f"{key}={value}"], files) for value in values]
    return Sweep(key.lstrip("+"), [(value, config) for value, (_, config) in zip(values, sides, strict=True)])


def _plain(argv: Sequence[str]) -> list[str]:
    """With ``--key value`` written as ``key=value``."""
    found, words = [], iter(argv)
    for word in words:
        if not word.startswith("-"):
            found.append(word)
            continue
        key, sign, value = word.removeprefix("--").partition("=")
        if key not in OWN:
            hint = nearest(key, OWN)
            raise ConfigError(f"bench knows no {word!r}{hint}; there are: {', '.join(f'--{each}' for each in OWN)}")
        if not sign and key in BARE:
            value = "true"
        elif not sign and (value := next(words, "")) == "":
            raise ConfigError(f"{word} needs a value: {word} VALUE")
        found.append(f"{key}={value}")
    return found


def _side(said: list[str] | Path, files: Sequence[Path]) -> tuple[str, dict[str, Any] | Path]:
    """What it is called, and its configuration: that of ``run=FOLDER``, or what is composed. A file stays a file."""
    if isinstance(said, Path):
        return str(said), said
    run, rest = take("run", said)
    if run is not None and rest:
        raise ConfigError(f"{rest[0]} has no place beside run={run}, which has its own configuration")
    catalog, rest = prepare(rest, files)
    config = compose(rest, catalog) if run is None else check(runs.open_run(Path(run)).config, catalog)
    return " ".join(said) or "the defaults", config


def _other(said: str, overrides: Sequence[str]) -> list[str] | Path:
    """What is timed beside it: a run folder, a Python file, other settings, or another recipe."""
    if not said:
        raise ConfigError("against= what? a recipe, a run folder, 'key=value ...', or a Python file")
    if said.endswith(".py"):
        if not Path(said).is_file():
            raise ConfigError(f"against={said}: there is no such file")
        return Path(said)
    if (Path(said) / "config.yaml").is_file():
        return [f"run={said}"]
    if said.startswith(("/", ".")) and Path(said).suffix != ".yaml":
        raise ConfigError(f"against={said}: it is no run's folder, no Python file (.py) and no recipe (.yaml)")
    words = shlex.split(said) if "=" in said else [f"recipe={said}"]
    if taken := [word for word in words if word.partition("=")[0].lstrip("+") in ("run", *OWN)]:
        raise ConfigError(f"against={said!r}: {taken[0]} has no place in it")
    keys = {_key(word) for word in words}
    keys |= {"run"} if "recipe" in keys else set()  # another recipe is not that run any more
    return [*(word for word in overrides if _key(word) not in keys), *words]


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _count(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{key}={value} is no number of {key}: write {key}=1 or more")
    return value


def _flag(key: str, given: Mapping[str, Any], does: str) -> bool:
    if not isinstance(value := given.get(key, False), bool):
        raise ConfigError(f"{key}={value} is no choice: {key}=true {does}")
    return value


def _file(key: str, value: Any, endings: Sequence[str] = (".json",)) -> Path | None:
    """Where something is written, in place of what may be there."""
    if value is None:
        return None
    path = Path(str(value))
    if path.suffix not in endings:
        raise ConfigError(f"{key}={path}: write a file that ends in {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{key}={path}: there is no folder {path.parent}")
    return path
