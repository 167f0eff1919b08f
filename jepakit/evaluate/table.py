"""The table of a run: what was learned, beside what needs no learning."""

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepakit.evaluate.features import Extracted
from jepakit.evaluate.protocol import Protocol
from jepakit.evaluate.remarks import looks, remarks

ROWS = ("trained encoder", "random encoder", "raw pixels")
"""Every table has all of them: a score that does not clearly beat the other two is no sign of learning."""

CLIP_ROWS = ("mean frame", "frame difference")
"""A table of clips has these too: raw pixels without what moves, and without what stays."""


def row(
    name: str, fit: Extracted, test: Extracted, classes: int, protocols: Sequence[Protocol], device: Any = "cpu"
) -> dict[str, Any]:
    """One row: a name, the width of its features, and a cell for each protocol."""
    cells = {each.name: each.score(fit, test, classes, each.settings, device) for each in protocols}
    return {"name": name, "width": fit.seen("last").x.shape[-1], **cells}


def result(rows: list[dict[str, Any]], protocols: Sequence[Protocol], about: dict[str, Any]) -> dict[str, Any]:
    """The whole result as it is written: ``about`` tells of the run and the data."""
    more = {"encoder": about["weights"], "resolution": about["view"]["size"]}
    if looks(about) > 1:
        more |= {key: about[key] for key in ("clips", "views")}
    return {"format": 1, **about, "protocols": {each.name: each.stamp() | more for each in protocols}, "rows": rows}


def lines(result: dict[str, Any]) -> list[str]:
    """The table as plain lines of equal columns."""
    names = list(result["protocols"])
    cells = [["", *names]] + [[row["name"], *(_cell(row[name]) for name in names)] for row in result["rows"]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names) + 1)]
    return ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in cells]


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
