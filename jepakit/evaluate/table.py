"""The table of a run: what was learned, beside what needs no learning."""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from jepakit.evaluate import attentive
from jepakit.evaluate.features import Extracted
from jepakit.evaluate.protocols import Vote, describe, interval, knn, linear

How = Vote | attentive.Settings
"""What a score depends on, beside the features."""

ROWS = ("trained encoder", "random encoder", "raw pixels")
"""Every table has all of them: a score that does not clearly beat the other two is no sign of learning."""

CLIP_ROWS = ("mean frame", "frame difference")
"""A table of clips has these too: raw pixels without what moves, and without what stays."""


def score(name: str, fit: Extracted, test: Extracted, classes: int, how: How) -> dict[str, Any]:
    """One cell: the accuracy, its interval, the samples behind it, and for a probe what was chosen."""
    more: dict[str, Any] = {}
    if isinstance(how, attentive.Settings):
        value, *rest = attentive.attentive(fit, test, classes, how)
        more = dict(zip(attentive.Outcome._fields[1:], rest, strict=True))
    elif name == "knn":
        value = knn(fit, test, classes, *how)
    else:
        value, *rest = linear(fit, test)
        more = dict(zip(("alpha", "tried"), rest, strict=True))
    low, high = interval(value, len(test.y))
    return {"score": value, "low": low, "high": high, "fit": len(fit.y), "test": len(test.y), **more}


def row(name: str, fit: Extracted, test: Extracted, classes: int, names: tuple[str, ...], how: How) -> dict[str, Any]:
    """One row: a name, the width of its features, and a cell for each protocol."""
    cells = {protocol: score(protocol, fit, test, classes, how) for protocol in names}
    return {"name": name, "width": fit.x.shape[-1], **cells}


def result(rows: list[dict[str, Any]], names: tuple[str, ...], how: How, about: dict[str, Any]) -> dict[str, Any]:
    """The whole result as it is written: ``about`` tells of the run and the data."""
    protocols = {
        name: attentive.describe(how) if isinstance(how, attentive.Settings) else describe(name, how) for name in names
    }
    for name, protocol in protocols.items() if _looks(about) > 1 else ():
        protocol |= {key: about[key] for key in ("clips", "views", *["across"] * (name == "attentive"))}
    return {"format": 1, **about, "protocols": protocols, "rows": rows}


def lines(result: dict[str, Any]) -> list[str]:
    """The table as plain lines of equal columns."""
    names = list(result["protocols"])
    cells = [["", *names]] + [[row["name"], *(_cell(row[name]) for name in names)] for row in result["rows"]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names) + 1)]
    return ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def remarks(result: dict[str, Any]) -> list[str]:
    """What has to be known to read the table: the data, what was chosen, and what went wrong."""
    label, classes = result["label"], result["classes"]
    said = [f"top-1 for label {label}, one of {classes} values: chance is {1 / classes:.3f} where they are balanced"]
    said += [f"test: {result['test']['text']}", f"fit:  {result['fit']['text']}"]
    cells = {name: next(row[name] for row in result["rows"]) for name in result["protocols"]}
    if "knn" in cells:
        said.append("knn: k = {k}, temperature {temperature}".format(**result["protocols"]["knn"]))
    for each in result["rows"] if "linear" in cells else []:
        said.append(f"linear: {each['name']} with alpha {each['linear']['alpha']:g}")
    for each in result["rows"] if "attentive" in cells else []:
        said.append(_chosen(each["name"], each["attentive"]))
    if _looks(result) > 1:
        said.append(_looked(result))
    for part in ("test", "fit"):
        if skipped := result[part]["skipped"]:
            said.append(f"{len(skipped)} {part} samples could not be read; first: {skipped[0]}")
    return said + ["in brackets: 95 % interval over the test samples, not over seeds"] + _conclusion(result)


def show(result: dict[str, Any]) -> None:
    """Print the table: with rich on a terminal, as plain lines elsewhere."""
    if not sys.stdout.isatty():
        print("\n".join([*lines(result), "", *remarks(result)]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['weights']} encoder, step {result['step']}", title_justify="left")
    for name in ("", *result["protocols"]):
        table.add_column(name)
    for i, each in enumerate(result["rows"]):
        cells = (_cell(each[name]) for name in result["protocols"])
        table.add_row(each["name"], *cells, style="bold" if i == 0 else "")
    console = Console()
    console.print(table)
    for remark in remarks(result):
        console.print(remark, style="dim", highlight=False, markup=False)


def write(result: dict[str, Any], run: Path, name: str) -> Path:
    """Write the result to ``evaluate/<name>-<time>.json`` of the run, and as a line of ``evaluate/results.jsonl``.

    The file appears whole or not at all; the line is one append.
    """
    folder = run / "evaluate"
    folder.mkdir(parents=True, exist_ok=True)
    path = _free(folder, f"{name}-{result['time'].replace(':', '').replace('-', '')}")
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        json.dump(finite(result), file, indent=2, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    with (folder / "results.jsonl").open("a") as file:
        file.write(json.dumps(finite(result), allow_nan=False) + "\n")
    return path


def finite(x: Any) -> Any:
    """The same, with null for floats that JSON cannot hold."""
    if isinstance(x, dict):
        return {str(key): finite(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [finite(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _free(folder: Path, stem: str) -> Path:
    """A name that no earlier result has."""
    taken = 0
    while (path := folder / f"{stem}{f'-{taken}' if taken else ''}.json").exists():
        taken += 1
    return path


def _cell(cell: dict[str, Any]) -> str:
    return "{score:.3f} [{low:.3f}, {high:.3f}]".format(**cell)


def _chosen(name: str, cell: dict[str, Any]) -> str:
    """What an attentive probe was fitted with, how it was found, and whether the grid may have been too small."""
    tried = [each["held_out"] for each in cell["tried"]]
    best = (
        f"best of {len(tried)} on held-out fit samples, {min(tried):.3f} to {max(tried):.3f}" if tried else "as given"
    )
    lrs = sorted({each["lr"] for each in cell["tried"]})
    edge = "; at the edge of the grid: try others" if len(lrs) > 2 and cell["lr"] in (lrs[0], lrs[-1]) else ""
    return f"attentive: {name} with lr {cell['lr']:g}, weight decay {cell['weight_decay']:g} ({best}{edge})"


def _looks(result: dict[str, Any]) -> int:
    """Clips times views of a sample; results from before there were several have one."""
    return result.get("clips", 1) * result.get("views", 1)


def _looked(result: dict[str, Any]) -> str:
    """What became of a sample's clips and views."""
    counts = " x ".join(f"{result[key]} {key}" for key in ("clips", "views") if result[key] > 1)
    said = f"{counts} of each sample: "
    if "attentive" not in result["protocols"]:
        return said + "their features are averaged"
    answers = "views of all clips at once" if result["across"] else "clips and views"
    return said + f"the answers for its {answers} are averaged"


def _conclusion(result: dict[str, Any]) -> list[str]:
    """Says plainly where the trained encoder is no better than a control."""
    trained, *controls = result["rows"]
    return [
        f"NOT clearly better: {name} of the {trained['name']} overlaps that of {control['name']} or lies below it"
        for name in result["protocols"]
        for control in controls
        if trained[name]["low"] <= control[name]["high"]
    ]
