"""``jepakit compare``: runs side by side, each with its controls, and the paper's numbers beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jepakit.errors import ConfigError, nearest
from jepakit.evaluate import sheet
from jepakit.evaluate.differences import differences
from jepakit.evaluate.published import beside, of_recipe
from jepakit.evaluate.recorded import SPEED, Kind, Recorded, Score, read
from jepakit.evaluate.remarks import as_good
from jepakit.evaluate.sheet import Part, Sheet, text

OPTIONS = ("published", "protocol", "out")
SHORT = {"random encoder": "random", "raw pixels": "pixels", "mean frame": "mean", "frame difference": "difference"}
SHORT |= {"untrained model": "untrained", "zero flow": "zero", "DIS (medium)": "DIS"}
COURSE = {"knn": "knn in training", "rankme": "RankMe", "rank": "rank of a batch", SPEED: "samples/s"}
"""Figures of the log that are shown, by key."""
FORMATS = {"knn": ".3f", SPEED: ".0f"}


def command(argv: list[str], files: list[Path]) -> int:
    """Print the table of the runs that ``argv`` names, and write it to ``out=``. Returns 0.

    ``argv`` holds folders of runs or sweeps, and ``published=RECIPE``, ``protocol=NAME[,NAME]``, ``out=FILE.md`` or
    ``.csv``; ``files`` are plugins by path. Raises ConfigError for what cannot be read or compared.
    """
    paths, options = _arguments(argv)
    out = Path(options["out"]) if "out" in options else None
    if out:
        sheet.refuse(out)
    found = read(paths)
    published = of_recipe(options["published"], files) if "published" in options else None
    table = compare(found, published, options.get("protocol", "").split(",") if "protocol" in options else None)
    sheet.show(table)
    if out:
        sheet.write(table, out)
        print(f"\nwritten to {out}")
    return 0


def compare(
    found: Sequence[Recorded], published: Sequence[Mapping] | None = None, protocols: Sequence[str] | None = None
) -> Sheet:
    """One row for each run: what it is, its scores and controls, its course, and the published numbers it matches.

    Args:
        published: numbers of a recipe; None: those in each run's own configuration.
        protocols: those to show; None: all that any of the runs has a score of.

    Raises ConfigError for a protocol that none of the runs has, and for one run that nothing can stand beside.
    """
    kinds = _kinds(found, protocols)
    papers = beside(found, published)
    if len(found) == 1 and not papers.header:
        raise ConfigError(
            f"{found[0].folder} is one run: name others, or a recipe that has numbers for it, published=NAME"
        )
    parts = [_names(found), differences(found), *(_scores(found, kind, kinds) for kind in kinds)]
    parts += [_course(found), papers, _notes(found, kinds)]
    return sheet.join(parts)


def _arguments(argv: Sequence[str]) -> tuple[list[Path], dict[str, str]]:
    """Folders and options. A word with = in it is a folder where there is one."""
    paths: list[Path] = []
    options: dict[str, str] = {}
    for word in argv:
        key, sign, value = word.partition("=")
        if (not sign and not word.startswith("-")) or Path(word).exists():
            paths.append(Path(word))
        elif key not in OPTIONS:
            raise ConfigError(f"compare knows no {key!r}{nearest(key, OPTIONS)}; known: RUN ..., {_listed(OPTIONS)}")
        elif key in options or not value:
            raise ConfigError(f"{key} is given twice" if key in options else f"{word}: write {key}=VALUE")
        else:
            options[key] = value
    if not paths:
        raise ConfigError("compare needs runs: jepakit compare runs/A runs/B, or the folder of a sweep")
    return paths, options


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(f"{key}=" for key in keys)


# What the runs are --------------------------------------------------------------------------------------------------


def _names(found: Sequence[Recorded]) -> Part:
    records = [{"run": run.name, "folder": str(run.folder)} for run in found]
    return Part(["run"], [[run.name] for run in found], records, [each for run in found for each in run.remarks])


# What they score ----------------------------------------------------------------------------------------------------


def _kinds(found: Sequence[Recorded], protocols: Sequence[str] | None) -> list[Kind]:
    kinds = list(dict.fromkeys(kind for run in found for kind in run.scores))
    known = list(dict.fromkeys(kind.protocol for kind in kinds))
    for protocol in protocols or ():
        if protocol not in known:
            there = f"there are: {', '.join(known)}" if known else "none has any: jepakit eval run=FOLDER"
            raise ConfigError(f"no run has a score of protocol={protocol}{nearest(protocol, known)}; {there}")
    return [kind for kind in kinds if protocols is None or kind.protocol in protocols]


def _scores(found: Sequence[Recorded], kind: Kind, kinds: Sequence[Kind]) -> Part:
    """A protocol's scores with their intervals, each control's score, and what makes them not comparable."""
    title = _title(kind, kinds)
    scores = [run.scores.get(kind) for run in found]
    controls = list(dict.fromkeys(name for score in scores if score for name in score.controls))
    rows, records = [], []
    for score in scores:
        cells = [_cell(score.trained), *(_number(score.controls.get(name)) for name in controls)] if score else []
        rows.append(cells or ["not evaluated", *("-" for _ in controls)])
        records.append(_flat(title, score) if score else {})
    unit = next((how["unit"] for score in scores if score and (how := score.how["protocol"]).get("unit")), "")
    header = [f"{title} {unit}".strip(), *(SHORT.get(name, name) for name in controls)]
    return Part(header, rows, records, _comparable(title, found, scores) + _cautions(title, found, scores))


def _title(kind: Kind, kinds: Sequence[Kind]) -> str:
    """The protocol, and what else tells it from others that are shown."""
    several = [each.protocol for each in kinds].count(kind.protocol) > 1
    return f"{kind.protocol} ({kind.weights}, {kind.label})" if several else kind.protocol


def _comparable(title: str, found: Sequence[Recorded], scores: Sequence[Score | None]) -> list[str]:
    """What was not the same where these scores were measured, run by run."""
    pairs = [(run.name, score.how) for run, score in zip(found, scores, strict=True) if score]
    said = []
    for key in [key for key in pairs[0][1] if key != "protocol"] + [f"protocol.{key}" for key in _stamped(pairs)]:
        part, _, own = key.partition(".")
        texts = {name: _said(how[part].get(own) if own else how[part]) for name, how in pairs}
        if len(set(texts.values())) > 1:
            each = "; ".join(f"{name}: {value}" for name, value in texts.items())
            said.append(f"{title}: NOT comparable, {key} differs: {each}")
    return said


def _stamped(pairs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """All keys of the protocols' stamps; one that a result of before does not have says nothing of it."""
    stamps = [how["protocol"] for _, how in pairs]
    every = dict.fromkeys(key for stamp in stamps for key in stamp)
    return [key for key in every if key in UNSAID or all(key in stamp for stamp in stamps)]


UNSAID = ("clips", "views", "changed")
"""Keys that are in a stamp only where there is something to say."""


def _cautions(title: str, found: Sequence[Recorded], scores: Sequence[Score | None]) -> list[str]:
    """Runs that trained on since they were scored, and those that do not beat a control."""
    said, weak = [], []
    if any(score and _lower(score) for score in scores):
        said.append(f"{title}: an error, so that lower is better")
    for run, score in zip(found, scores, strict=True):
        if score and score.step < run.log.get("step", 0):
            said.append(f"{title}: {run.name} was scored at step {score.step:,}, and went on to {run.log['step']:,}")
        if score and any(as_good(score.trained, control, _lower(score)) for control in score.controls.values()):
            weak.append(run.name)
    return said + ([f"{title}: NOT clearly better than a control: {', '.join(weak)}"] if weak else [])


def _lower(score: Score) -> bool:
    return score.how["protocol"].get("better") == "lower"


def _notes(found: Sequence[Recorded], kinds: Sequence[Kind]) -> Part:
    """What all scores were measured on, and how to get those that are missing; without any a column says so."""
    remarks = _measured_on(found, kinds)
    for run in found:
        remarks += _missing(run, kinds) if kinds else [f"{run.name}: never evaluated: jepakit eval run={run.folder}"]
    return Part(["scores"] * (not kinds), [["not evaluated"]] * len(found), [{}] * len(found), remarks)


def _missing(run: Recorded, kinds: Sequence[Kind]) -> list[str]:
    """The scores that others have and this run has not, each with its command."""
    lacking: dict[tuple[str, str], list[str]] = {}
    for kind in (kind for kind in kinds if kind not in run.scores):
        lacking.setdefault((kind.weights, kind.label), []).append(kind.protocol)
    return [
        f"{run.name}: no score of {', '.join(names)}: jepakit eval run={run.folder} "
        f"protocol={','.join(names)} weights={weights}" + f" label={label}" * (names != ["flow"])
        for (weights, label), names in lacking.items()
    ]


def _measured_on(found: Sequence[Recorded], kinds: Sequence[Kind]) -> list[str]:
    """The data that all scores share, else those of each kind; of kinds that do not, ``_comparable`` has said it."""
    hows = {kind: [run.scores[kind].how for run in found if kind in run.scores] for kind in kinds}
    if not hows:
        return []
    said = []
    for part, word in (("test", "tested on"), ("fit", "fitted on")):
        texts = {kind: {_said(how[part]) for how in each if how[part]} for kind, each in hows.items()}
        every = set().union(*texts.values())
        if len(every) == 1 and all(texts.values()):
            said.append(f"all {word} {every.pop()}")
        else:
            said += [f"{_title(kind, kinds)}: {word} {each.pop()}" for kind, each in texts.items() if len(each) == 1]
    return [*said, "in brackets: 95 % interval over the test samples, not over seeds"]


def _flat(title: str, score: Score) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, cell in {"": score.trained, **score.controls}.items():
        stem = f"{title} {name}".strip()
        flat |= {stem: cell.get("score"), f"{stem} low": cell.get("low"), f"{stem} high": cell.get("high")}
        flat |= {f"{stem} {measure}": each["score"] for measure, each in cell.get("measures", {}).items()}
    return flat | {f"{title} step": score.step} | {f"{title} {key}": _said(value) for key, value in score.how.items()}


def _cell(cell: Mapping[str, Any]) -> str:
    if cell.get("low") is None or cell.get("high") is None:
        return _number(cell)
    return f"{_number(cell)} [{cell['low']:.3f}, {cell['high']:.3f}]"


def _number(cell: Mapping[str, Any] | None) -> str:
    return "-" if cell is None else "nan" if cell.get("score") is None else f"{cell['score']:.3f}"


def _said(value: Any) -> str:
    """A part of the data in its own words, anything else as JSON."""
    if isinstance(value, dict) and "text" in value:
        more = {key: each for key, each in value.items() if key not in ("text", "samples")}
        return value["text"] + (f" {text(more)}" if more else "")
    return text(value)


# How they went ------------------------------------------------------------------------------------------------------


def _course(found: Sequence[Recorded]) -> Part:
    """Last figures of the log, the median of its pace, and how far each run came. A batch's rank stands in only where
    none has RankMe."""
    keys = [key for key in COURSE if any(key in run.log for run in found)]
    keys = [key for key in keys if key != "rank" or "rankme" not in keys]
    rows = [[*(_figure(run.log, key) for key in keys), _progress(run)] for run in found]
    records = [
        {COURSE[key]: run.log.get(key) for key in keys} | {"steps": run.log.get("step"), "finished": run.finished}
        for run in found
    ]
    return Part([*(COURSE[key] for key in keys), "steps"], rows, records, [])


def _figure(log: Mapping[str, Any], key: str) -> str:
    if log.get(key) is None:
        return "nan" if key in log else "-"
    return f"{log[key]:{FORMATS.get(key, '.1f')}}"


def _progress(run: Recorded) -> str:
    return f"{run.log.get('step', 0):,}{'' if run.finished else ', unfinished'}"
