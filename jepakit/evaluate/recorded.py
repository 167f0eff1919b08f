"""What run folders say of themselves: settings, scores, the course of training. Reads files, and needs no torch."""

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jepakit import jsonl, runs
from jepakit.errors import ConfigError, nearest
from jepakit.health.course import current
from jepakit.strict import flatten

FORMAT = 1
"""Of the lines of results.jsonl that are read here."""
SPEED = "images_per_second"


class Kind(NamedTuple):
    """Which scores may stand in one column."""

    protocol: str
    weights: str
    label: str


class Score(NamedTuple):
    """A trained encoder's score with its controls, each a cell as ``evaluate.table`` writes it."""

    trained: dict[str, Any]
    controls: dict[str, dict[str, Any]]
    step: int
    how: dict[str, Any]
    """What must be equal where two scores are compared."""


class Recorded(NamedTuple):
    """A run as its folder tells it: newest score of each kind, newest value of each key of the log, of its pace the
    median."""

    name: str
    folder: Path
    config: dict[str, Any]
    settings: dict[str, Any]
    scores: dict[Kind, Score]
    log: dict[str, Any]
    finished: bool
    remarks: list[str]


def read(paths: Sequence[Path]) -> list[Recorded]:
    """The runs in these folders, in order; of a sweep's folder all of its runs. Raises ConfigError for any other."""
    folders = list(dict.fromkeys(folder.resolve() for path in paths for folder in _runs(path)))
    folders = [Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder for folder in folders]
    above = os.path.commonpath([folder.resolve().parent for folder in folders])
    return [_run(folder, os.path.relpath(folder.resolve(), above)) for folder in folders]


def _runs(path: Path) -> list[Path]:
    if (path / "config.yaml").is_file():
        return [path]
    known = [str(each) for each in dict.fromkeys([*runs.found(path.parent), *runs.found()])]
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such folder{nearest(str(path), known)}")
    jobs = [file.parent for file in path.glob("*/config.yaml")]
    if not jobs:
        raise ConfigError(f"{path} is neither a run nor a sweep: no config.yaml in it{nearest(str(path), known)}")
    return sorted(jobs, key=lambda job: (len(job.name) if job.name.isdigit() else 0, job.name))


def _run(folder: Path, name: str) -> Recorded:
    config = _config(folder / "config.yaml")
    remarks: list[str] = []
    scores = _scores(folder / "evaluate" / "results.jsonl", remarks)
    log: dict[str, Any] = {}
    speeds: list[float] = []
    for line in current([line for _, line in jsonl.lines(folder / "log.jsonl", remarks)]):
        log |= line
        speeds += [line[SPEED]] if line.get(SPEED) else []
    log |= {SPEED: median(speeds)} if speeds else {}
    finished = (folder / "finished").exists()
    return Recorded(name, folder, config, settings(config), scores, log, finished, remarks)


def _config(file: Path) -> dict[str, Any]:
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(file))
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file} is damaged: it holds no keys and values")
    return config


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """A run's settings by dotted key, without where it lies and what was published.

    A component stands at its group's key, like on the command line; strategies against collapse are joined by commas.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key == "anti_collapse" and isinstance(value, dict):
            flat[key] = ",".join(map(str, value))
        elif isinstance(value, dict) and "name" in value:
            flat[key] = value["name"]
    for key, value in flatten(config).items():
        if not key.endswith(".name") and key.partition(".")[0] not in ("run", "published", "logger"):
            flat[key] = value
    return flat


def _scores(file: Path, remarks: list[str]) -> dict[Kind, Score]:
    found: dict[Kind, Score] = {}
    for number, line in jsonl.lines(file, remarks):
        if line.get("format") != FORMAT:
            remarks.append(f"{file}, line {number}: format {line.get('format')} is not read here, passed over")
            continue
        try:
            line = of_today(line)
            for protocol in line["protocols"]:
                found[Kind(protocol, line["weights"], line["label"])] = _score(line, protocol)
        except (KeyError, TypeError, ValueError, AttributeError):
            remarks.append(f"{file}, line {number}: not a whole result, passed over")
    return found


def of_today(line: dict[str, Any]) -> dict[str, Any]:
    """A result as it would be written now: before protocols were files, ``linear`` was what ``ridge`` is."""
    if all("kind" in stamp for stamp in line["protocols"].values()):
        return line
    names = {name: "ridge" if name == "linear" else name for name in line["protocols"]}
    view = line.get("view") or {}
    more = {"encoder": line["weights"], **({"resolution": view["size"]} if "size" in view else {})}
    stamps = {
        names[name]: stamp | {"protocol": names[name], "kind": names[name], **more}
        for name, stamp in line["protocols"].items()
    }
    rows = [{names.get(key, key): value for key, value in row.items()} for row in line["rows"]]
    return line | {"protocols": stamps, "rows": rows}


def _score(line: dict[str, Any], protocol: str) -> Score:
    trained, *controls = line["rows"]
    parts = {part: {key: value for key, value in line[part].items() if key != "skipped"} for part in ("test", "fit")}
    more = {key: line.get(key) for key in ("classes", "precision")}
    how = parts | {"protocol": line["protocols"][protocol]} | more
    return Score(trained[protocol], {each["name"]: each[protocol] for each in controls}, line["step"], how)
