"""``jepakit health run=...``: the verdict on a run with its evidence, its likely cause, and what to type instead.

Reads config.yaml and log.jsonl, of runs that are finished or not, resumed, rolled back, old or damaged. Needs no torch.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jepakit import runs
from jepakit.branches import branches
from jepakit.config import assignments
from jepakit.errors import ConfigError, DataError, nearest
from jepakit.health.course import FROM, Line, current, lenient
from jepakit.health.meaning import evidence, stretches
from jepakit.health.verdict import Verdict, verdict
from jepakit.health.watch import Watch

OPTIONS = ("run", "out", "picture")
MOST = 300
"""Lines of a log after which it is judged once more, at most: they are taken at a fixed stride."""
WELL = ("healthy", "watch")
"""Verdicts for which the exit code is 0; for every other it is 1."""

GROUPS = ("anti_collapse", "masker", "predictor", "encoder", "tokenizer", "data")
"""A new choice of one of these takes settings of the old one away."""


class Examined(NamedTuple):
    """A run: the verdict on it, on its other branches where they have figures, what was said after each line as
    ``(step, word, kind)``, its lines, and ``remarks`` on what could not be read."""

    folder: Path
    verdict: Verdict
    branches: dict[str, Verdict]
    words: list[tuple[int, str, str]]
    lines: list[Line]
    remarks: list[str]


def command(argv: Sequence[str], files: Sequence[Path] = ()) -> int:
    """Print the verdict, draw ``health.png`` among the run's pictures, write JSON to ``out=``. Returns 0 for a run that
    is healthy or to be watched, else 1.

    ``picture=false`` leaves the picture out. Raises ConfigError for a word that has no place here, and where there is
    no run; DataError where it has no log.
    """
    given = assignments(list(argv))
    for key in given:
        if key not in OPTIONS:
            raise ConfigError(
                f"health knows no {key!r}{nearest(key, OPTIONS)}; known: run=FOLDER, out=FILE.json, picture=false"
            )
    if "run" not in given:
        raise ConfigError("health needs a run: jepakit health run=runs/...")
    out = Path(str(given["out"])) if "out" in given else None
    if out and out.suffix != ".json":
        raise ConfigError(f"out={out}: what is written is JSON, give it a name that ends in .json")
    folder = Path(str(given["run"]))
    config, remarks = _config(folder)
    found = examine(folder, config)
    found = found._replace(remarks=[*remarks, *found.remarks])
    said = told(found)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(as_json(found), indent=1))
        said.append(f"written to {out}")
    if given.get("picture", True):
        from jepakit.pictures.health import health  # torch comes with pictures: for those who want one

        said.append(f"picture: {health(found, folder / 'pictures' / 'health.png')}")
    print("\n".join(said))
    return 0 if found.verdict.word in WELL else 1


def examine(folder: Path, config: Mapping[str, Any]) -> Examined:
    """Judge a run by its log. Raises DataError where there is none, or nothing in it can be read."""
    lines, remarks = lenient(folder / "log.jsonl")
    if not lines:
        raise DataError(f"{folder}: its log.jsonl is not there, or holds no line: there is nothing to judge yet")
    lines += _broken(folder, lines)
    first, *others = branches(config).items()
    found = {name: verdict(own, each) for name, each in others if (own := _own(lines, name))}
    return Examined(folder, verdict(lines, first[1]), found, _words(lines, first[1]), lines, remarks)


def told(found: Examined) -> list[str]:
    """What there is to say, in lines."""
    said = [*found.remarks, f"run {found.folder}: {found.verdict.word}", f"  {found.verdict.reason}"]
    if found.verdict.cause:
        said += [f"likely cause: {found.verdict.kind}", f"  {found.verdict.cause}"]
        said += [f"  in this run: {key}={_written(value)}" for key, value in found.verdict.settings.items()]
    if typed := suggestion(found.folder, found.verdict):
        said += ["try:", f"  {typed}"]
    for name, each in found.branches.items():
        said += [f"branch {name}: {str(each).splitlines()[0]}"]
    said += ["what was said:", *(f"  {each}" for each in stretches(found.words))] if found.words else []
    rows = evidence(current(found.lines))
    wide = max((len(row["name"]) for row in rows), default=0)
    said += ["figures, at first and now:"] * bool(rows)
    return said + [f"  {row['name']:{wide}} {row['first']:9.4g} {row['now']:9.4g}  {row['means']}" for row in rows]


def as_json(found: Examined) -> dict[str, Any]:
    """The same for programs."""
    said = found.verdict
    about = {"run": str(found.folder), "word": said.word, "reason": said.reason, "cause": said.kind or None}
    about |= {"explained": said.cause, "settings": dict(said.settings), "change": list(said.change)}
    about |= {"command": suggestion(found.folder, said), "evidence": evidence(current(found.lines))}
    about |= {"branches": {name: {"word": each.word, "reason": each.reason} for name, each in found.branches.items()}}
    course = [{"step": step, "word": word, "cause": kind or None} for step, word, kind in found.words]
    return about | {"course": course, "remarks": found.remarks}


def suggestion(folder: Path, said: Verdict) -> str:
    """A command line to type: that of the run with its change, as a new run; empty where nothing is to be changed."""
    if not said.change:
        return ""
    keys = [word.partition("=")[0] for word in said.change]
    kept = [word for word in _typed(folder) if not _replaced(word.lstrip("+").partition("=")[0], keys)]
    return shlex.join(["jepakit", "train", *kept, *said.change])


def _typed(folder: Path) -> list[str]:
    """What the run was begun with, less where it was to lie."""
    file = folder / "command.txt"
    first = (file.read_text("utf-8", errors="replace").splitlines() or [""])[0] if file.is_file() else ""
    words = shlex.split(first)[2:] if first.startswith("jepakit train") else []
    return [
        word for word in words if word.partition("=")[0] not in ("run", "resume") and word not in ("-m", "--multirun")
    ]


def _replaced(key: str, keys: Sequence[str]) -> bool:
    """Whether a word of the command line gives way to a change: the same setting, or one of a part chosen anew."""
    return key in keys or any(group in keys and key.partition(".")[0] == group for group in GROUPS)


def _words(lines: Sequence[Line], config: Mapping[str, Any]) -> list[tuple[int, str, str]]:
    """What was to be said after each line, or after some of many, and after the last."""
    watch, words = Watch(config), []
    for number, line in enumerate(lines):
        if FROM in line:
            watch = Watch(config, lines[: number + 1])
        elif "rank" in line or line.get("loss", 0.0) is None:
            watch.add(line)
            if number % -(-len(lines) // MOST) == 0 or line is lines[-1]:
                said = watch.judge()
                words.append((line["step"], said.word, said.kind))
    return words


def _config(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """A run's configuration, empty with a remark where it is damaged. Raises ConfigError where there is no run."""
    try:
        return runs.open_run(folder).config, []
    except ConfigError as error:
        if not (folder / "config.yaml").is_file():
            raise
        return {}, [f"{folder / 'config.yaml'}: damaged, settings are not known: {error}"]


def _own(lines: Sequence[Line], name: str) -> list[dict[str, Any]]:
    """The figures of a branch that is not the first, by their plain names; nothing where it has none."""
    start, found = f"{name}/", []
    for line in current(lines):
        if f"{start}rank" not in line or f"{start}std" not in line or "grad_norm" not in line:
            continue
        own = [(key.removeprefix(start), value) for key, value in line.items() if key.startswith(start)]
        parts = sum(key.startswith(start) for key in list(line)[: list(line).index("grad_norm")])
        rates = {key: line[key] for key in ("grad_norm", "lr", "weight_decay") if key in line}
        found.append({"step": line["step"], "loss": None, **dict(own[:parts]), **rates, **dict(own[parts:])})
    return found


def _broken(folder: Path, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """A line for the last step that was skipped because it was not finite, if nothing was logged after it."""
    files = sorted(folder.glob("nonfinite-step-*.json"))
    steps = [int(step) for file in files if (step := file.stem.rpartition("-")[2]).isdigit()]
    last = max(line["step"] for line in current(lines))
    return [{"step": max(steps), "loss": None}] if steps and max(steps) >= last else []


def _written(value: Any) -> str:
    return "null" if value is None else str(value)
