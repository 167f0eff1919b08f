"""What a run folder says of itself, for its report: reads files only."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jepakit import runs
from jepakit.errors import DataError, UserError
from jepakit.evaluate.recorded import Recorded, read
from jepakit.evaluate.sheet import text
from jepakit.health.course import current
from jepakit.health.entry import Examined, examine, suggestion
from jepakit.health.meaning import evidence
from jepakit.log import TEXT
from jepakit.strict import flatten

PER_STEP = " samples a step, "
"""What the line of log.txt has in it that says how long the run is."""


KINDS = {"healthy": "good", "watch": "watch", "not learning": "watch"}
"""How a verdict's word is set off; all others are bad."""


class Verdict(NamedTuple):
    """The word, the kind of it (good, watch, bad), the lines that follow, what to type instead (empty: nothing), and
    the figures behind it: name, at first, now, what it means."""

    word: str
    kind: str
    lines: list[str]
    command: str = ""
    figures: list[list[str]] = []


def examined(config: Mapping[str, Any], folder: Path) -> Examined:
    """The health of a run by its log. Raises DataError where it has no line yet."""
    return examine(folder, config)


def verdict(config: Mapping[str, Any], folder: Path) -> Verdict:
    """What there is to say of it, in words."""
    try:
        found = examined(config, folder)
    except DataError:
        return Verdict("nothing to judge", "watch", ["The run has no line in its log yet."])
    said = found.verdict
    lines = [f"{said.reason[:1].upper()}{said.reason[1:]}."]
    if said.cause:
        lines += [f"Likely cause: {said.kind}. {said.cause[:1].upper()}{said.cause[1:]}."]
        settings = ", ".join(f"{key}={text(value)}" for key, value in said.settings.items())
        lines += [f"In this run: {settings}."] * bool(settings)
    lines += [f"Branch {name}: {each.word}: {each.reason}." for name, each in found.branches.items()]
    rows = [
        [row["name"], f"{row['first']:.4g}", f"{row['now']:.4g}", row["means"]]
        for row in evidence(current(found.lines))
    ]
    return Verdict(said.word, KINDS.get(said.word, "bad"), lines, suggestion(found.folder, said), rows)


def recorded(folder: Path) -> Recorded:
    """Settings, scores and the end of the log."""
    return read([folder])[0]


def about(config: Mapping[str, Any], folder: Path, run: Recorded) -> dict[str, Any]:
    """What was run, by name: nothing of the machine but what it is called."""
    environment, lines = _json(folder / "environment.json"), _announced(folder)
    packages = {name: value for name, value in (environment.get("packages") or {}).items() if value}
    plugins = [
        f"{each['name']} {each['version']}" for each in _json(folder / "plugins.json", []) if each.get("version")
    ]
    return {
        "recipe": config.get("recipe") or "none",
        "command": _lines(folder / "command.txt") or "not written down",
        "data": [line.partition("data: ")[2] if line.startswith("data: ") else line for line in lines["data"]]
        or config["data"]["name"],
        "parameters": lines["parameters"] or "not known before training begins",
        "steps": [*lines["steps"], progress(config, run)],
        "device": lines["device"] or config["trainer"]["device"],
        "precision": config["trainer"]["precision"],
        "seed": config["seed"],
        "jepakit": environment.get("jepakit", "not known"),
        "torch": packages.get("torch", "not known"),
        "python": f"{environment.get('python', 'not known')}, {environment.get('platform', '')}".rstrip(", "),
        "plugins": ", ".join(plugins) or "none",
    }


def progress(config: Mapping[str, Any], run: Recorded) -> str:
    """How far it came."""
    step = run.log.get("step")
    where = f"step {step:,}" if isinstance(step, int) else "no step yet"
    return f"finished at {where}" if run.finished else f"not finished: {where}"


def differing(config: Mapping[str, Any]) -> tuple[str, list[list[str]]]:
    """What the settings are compared with, and those that differ: key, value there, value here. Without any the first
    says so."""
    from jepakit.config import resolve

    recipe = config.get("recipe")
    try:
        base = resolve([f"recipe={recipe}"] if recipe else [], complete=False)
    except UserError as error:
        return f"They cannot be told from those of the recipe: {str(error).partition(';')[0]}.", []
    found = runs.changes(base, config)
    rows = [[key, _said(before), _said(after)] for key, (before, after) in found.items() if key in flatten(config)]
    against = f"recipe {recipe}" if recipe else "the defaults"
    return against if rows else f"None: all are those of {against}.", rows


def every(config: Mapping[str, Any]) -> list[list[str]]:
    """All settings."""
    return [[key, text(value)] for key, value in flatten(config).items() if not key.startswith("published")]


def _announced(folder: Path) -> dict[str, Any]:
    """What the run said before its first step; of a run that was continued, the last time."""
    found: dict[str, Any] = {"data": [], "parameters": "", "steps": [], "device": ""}
    for line in _lines(folder / TEXT):
        if line.startswith("run ") and "  device " in line:
            found = {"data": [], "parameters": "", "steps": [], "device": line.rpartition("  device ")[2]}
        elif line.startswith("parameters: "):
            found["parameters"] = line.removeprefix("parameters: ")
        elif line.startswith(("data: ", "branch ")) and "tokens " in line:
            found["data"].append(line)
        elif PER_STEP in line:
            found["steps"].append(line)
    return found


def _said(value: Any) -> str:
    return "-" if value in (None, "???") else text(value)


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8", errors="replace").splitlines() if file.is_file() else []


def _json(file: Path, missing: Any = None) -> Any:
    """A record of the run; a damaged one is as good as none here, since the run does not depend on it."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {} if missing is None else missing
