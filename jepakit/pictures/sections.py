"""What stands on a report's page, section by section."""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jepakit.errors import DataError, UserError, first_line
from jepakit.evaluate.recorded import Recorded
from jepakit.pictures import facts
from jepakit.pictures.captions import SECTIONS, WORDS, Words
from jepakit.pictures.neighbours import NEAREST
from jepakit.pictures.page import (
    Section,
    bullets,
    card,
    code,
    commands,
    details,
    figure,
    heading,
    page,
    paragraph,
    table,
    title,
)
from jepakit.pictures.page import facts as listed
from jepakit.pictures.scored import published, scores

PICTURES, KEPT = "pictures", "report.json"
"""A run's folder of pictures, and the file in it that says what a report consists of."""

LEARNED = ("features", "predictor", "motion")
"""Sections whose pictures are those of trained weights."""

VOICES = {
    "prediction": "the prediction",
    "place": "the mean token of the place, in other samples",
    "copy": "the nearest token of the context",
    "mean": "the mean token",
}
"""Who says something of the hidden tokens."""


class Drawn(NamedTuple):
    """A run with its pictures by name (see ``captions.WORDS``), why others are missing, and what was measured: plain
    data by name, which is kept beside the pictures, so that the page can be written anew without drawing."""

    config: Mapping[str, Any]
    folder: Path
    pictures: dict[str, list[Path]]
    missing: dict[str, str]
    said: dict[str, Any]

    @classmethod
    def kept(cls, config: Mapping[str, Any], folder: Path) -> "Drawn":
        """What was drawn before, without what is no longer there. Raises DataError where nothing was."""
        file = folder / PICTURES / KEPT
        if not file.is_file():
            raise DataError(f"{folder}: no report was drawn yet: jepakit report run={folder}")
        try:
            known = json.loads(file.read_text("utf-8"))
            paths = {name: [folder / PICTURES / each for each in names] for name, names in known["pictures"].items()}
            missing, said = dict(known["missing"]), dict(known["said"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            again = f"draw it again: jepakit report run={folder}"
            raise DataError(f"{file} is damaged ({first_line(error)}); {again}") from error
        there = {name: [path for path in each if path.is_file()] for name, each in paths.items()}
        return cls(config, folder, there, missing, said)

    def keep(self) -> None:
        """Write down what ``kept`` reads."""
        names = {name: [path.name for path in paths] for name, paths in self.pictures.items()}
        kept = {"pictures": names, "missing": self.missing, "said": self.said}
        (self.folder / PICTURES / KEPT).write_text(json.dumps(kept, indent=1), "utf-8")

    def add(self, name: str, draw: Callable[[], list[Path]]) -> None:
        """Draw, and keep what was drawn; of what the user can put right keep the reason."""
        try:
            paths = draw()
        except UserError as error:
            self.missing[WORDS[name].title.lower()] = str(error)
        else:
            self.pictures.setdefault(name, []).extend(paths)


def written(drawn: Drawn, out: Path, finished: bool = False) -> Path:
    """Write the page, all of it or nothing; ``finished`` where the run has just come to its end. Returns its path."""
    run = facts.recorded(drawn.folder)
    run = run._replace(finished=run.finished or finished)
    pictured = {name: _pictures(drawn, name) for name in SECTIONS}
    parts = [
        Section("verdict", "Verdict", [*_verdict(facts.verdict(drawn.config, drawn.folder)), *pictured["health"]]),
        Section("run", "What was run", _run(drawn, run)),
        Section("scores", "Scores", [*scores(run), *published(run)]),
        *(
            Section(name, words, blocks)
            for name, words in SECTIONS.items()
            if (blocks := pictured[name]) and name != "health"
        ),
        *_missing(drawn, run),
        Section("next", "How to go on", [commands(_next(drawn, run))]),
    ]
    name = _name(drawn.folder.resolve())
    under = f"{drawn.config.get('recipe') or 'no recipe'}, {facts.progress(drawn.config, run)}"
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.partial")
    head = [title(name), paragraph(under, "under")]
    part.write_text(page(f"{name}: report of a run", head, parts), "utf-8")
    return part.replace(out)


def _name(folder: Path) -> str:
    """What the run is called: a job of a sweep with its sweep."""
    return f"{folder.parent.name}/{folder.name}" if folder.name.isdigit() else folder.name


def _verdict(found: facts.Verdict) -> list[str]:
    """The word with its evidence, and what to do."""
    blocks = [card(found.kind, found.word, found.lines)]
    if found.command:
        blocks += [commands([("try, as a new run", found.command)])]
    if found.figures:
        head = ["figure", "at first", "now", "what it means"]
        blocks += [details("The figures behind it", [table(head, found.figures)])]
    return blocks


def _run(drawn: Drawn, run: Recorded) -> list[str]:
    """Recipe, data, length, versions; the settings that differ, and all of them."""
    known = facts.about(drawn.config, drawn.folder, run)
    lines = known.pop("command")
    against, rows = facts.differing(drawn.config)
    blocks = [listed(known), heading("Command"), code(lines) if isinstance(lines, list) else paragraph(lines)]
    blocks += [heading("Settings that differ")]
    if rows:
        blocks += [table(["setting", against, "this run"], rows, "", "settings")]
    else:
        blocks += [
            paragraph(f"None: all are those of {against}." if against.startswith(("recipe ", "the ")) else against)
        ]
    return [*blocks, details("All settings", [table(["setting", "value"], facts.every(drawn.config), "", "settings")])]


def _pictures(drawn: Drawn, section: str) -> list[str]:
    """The pictures of a section with their captions, and what was said instead of one."""
    blocks = []
    for name, words in WORDS.items():
        if words.section == section:
            blocks += _shown(drawn, name, words)
    if blocks and section in LEARNED and "step" in drawn.said:
        blocks.insert(0, paragraph(f"As of step {drawn.said['step']:,}, the newest checkpoint when this was drawn."))
    if section == "predictor" and "predictor" in drawn.said:
        blocks += [paragraph(f"{drawn.said['predictor'][:1].upper()}{drawn.said['predictor'][1:]}.")]
    return blocks


def _shown(drawn: Drawn, name: str, words: Words) -> list[str]:
    blocks = []
    for path in drawn.pictures.get(name, []):
        told = WORDS["moving"] if path.suffix == ".webp" else words
        which = path.stem.partition("-")[2]
        more = f" Branch {which}." * bool(which) + (_near(drawn.said[name]) if name == "neighbours" else "")
        blocks.append(figure(path, told.alt, told.caption + more))
    if name == "predictions" and "predictions" in drawn.said:
        blocks = [*_measured(drawn.said["predictions"]), *blocks]
    return [heading(words.title), *blocks] if blocks else []


def _measured(found: Mapping[str, Any]) -> list[str]:
    """The numbers below the predictions as a table, a row for each who says something of the hidden tokens."""
    chance, explained = found["chance"], found["explained"]
    rows = []
    for name, words in VOICES.items():
        tops = [f"{each:.2%}" for each in found["found"].get(name, {}).values()] or ["", ""]
        rows.append([words, f"{found['cosine'][name]:.3f}", *tops, f"{explained[name]:.0%}"])
    rows.append(["chance", "", *(f"{each:.3%}" for each in chance.values()), ""])
    rows.append(["the true tokens", "1.000", "100%", "100%", f"{explained['truth']:.0%}"])
    head = ["said of hidden tokens by", "cosine with the truth", "truth is likest", "among five likest"]
    whose = "that it was trained on" if found["own"] else "held out"
    counted = f"{found['tokens']:,} hidden tokens of {found['pictures']} samples, {whose}"
    said = (
        "Pixels explained: the share of the variance of the hidden pixels that a small decoder gets right, which was "
        "trained on true tokens of other samples."
    )
    caption = f"{counted}; likest of {found['among']:,} tokens"
    return [table([*head, "pixels explained"], rows, caption, "scores"), paragraph(said)]


def _near(near: Mapping[str, Any]) -> str:
    """How many neighbours have the same label, where there are labels."""
    if not near["share"]:
        return ""
    shares = ", ".join(f"{name} {share:.0%}" for name, share in near["share"].items())
    said = f"Of the {NEAREST} nearest so many have the same {near['label']}: {shares}"
    return f" {said}; of any two samples {near['chance']:.0%}."


def _missing(drawn: Drawn, run: Recorded) -> list[Section]:
    """What the page would hold if it could."""
    lines = [f"{what}: {why}" for what, why in drawn.missing.items()]
    lines += ["scores: the run has not been evaluated yet"] * (not run.scores)
    lines += ["the end: the run is not finished"] * (not run.finished)
    return [Section("missing", "What is missing", [bullets(lines)])] if lines else []


def _next(drawn: Drawn, run: Recorded) -> list[tuple[str, str]]:
    """Commands for this run."""
    folder = str(drawn.folder)
    here = f"run={folder}" if re.fullmatch(r"[\w./+-]+", folder, re.ASCII) else shlex.quote(f"run='{folder}'")
    lines = [] if run.finished else [("go on training", f"jepakit train {here}")]
    if "predictions" in drawn.said:
        lines += [("more predictions", f"jepakit show predictions {here} samples=12")]
    moves = "flow" in drawn.pictures and bool(drawn.pictures["flow"])
    lines += [("score the encoder, beside its controls", f"jepakit eval {here} protocol={'flow' if moves else 'all'}")]
    lines += [
        (
            "compare it with other runs and with what was published",
            f"jepakit compare {shlex.quote(str(drawn.folder))} runs/OTHER",
        ),
        ("use its features", f"jepakit features {here} data.root=/images out=features.safetensors"),
        ("hand its weights on", f"jepakit export {here} --to safetensors out=encoder.safetensors"),
        ("draw this page anew", f"jepakit report {here}"),
    ]
    return lines
