"""A table with remarks: on the terminal, as plain lines, as Markdown, as CSV."""

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jepakit.errors import ConfigError, nearest

SUFFIXES = (".md", ".csv")


class Part(NamedTuple):
    """Some columns of a sheet; ``header`` may be empty, where there is only something to say."""

    header: list[str]
    rows: list[list[str]]
    records: list[dict[str, Any]]
    remarks: list[str]


class Sheet(NamedTuple):
    """Words for people, and the same as ``records``: plain numbers under full names, one mapping for each row."""

    header: list[str]
    rows: list[list[str]]
    remarks: list[str]
    records: list[dict[str, Any]]


def join(parts: Sequence[Part]) -> Sheet:
    """Parts of as many rows, side by side."""
    rows = [sum(cells, []) for cells in zip(*(part.rows for part in parts if part.header), strict=True)]
    records = [
        {key: value for each in records for key, value in each.items()}
        for records in zip(*(part.records for part in parts), strict=True)
    ]
    header = [word for part in parts for word in part.header]
    return Sheet(header, rows, [remark for part in parts for remark in part.remarks], records)


def text(value: Any) -> str:
    """A value in a cell: words as they are, the rest as JSON, in which no digit is lost."""
    return value if isinstance(value, str) else json.dumps(value)


def show(sheet: Sheet) -> None:
    """Print it: with rich on a terminal, as plain lines elsewhere."""
    if not sys.stdout.isatty():
        print("\n".join([*lines(sheet.header, sheet.rows), "", *sheet.remarks]))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for word in sheet.header:
        table.add_column(Text(word))
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    console = Console()
    console.print(table)
    for remark in sheet.remarks:
        console.print(remark, style="dim", highlight=False, markup=False)


def lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Equal columns."""
    cells = [header, *rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    return ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def markdown(sheet: Sheet) -> str:
    """A table of Markdown, and the remarks as a list."""
    cells = [sheet.header, ["---"] * len(sheet.header), *sheet.rows]
    table = ["| " + " | ".join(word.replace("|", "\\|") for word in line) + " |" for line in cells]
    return "\n".join([*table, "", *(f"* {remark}" for remark in sheet.remarks)]) + "\n"


def comma_separated(sheet: Sheet) -> str:
    """The records as CSV; what a record has no value for is empty."""
    keys = list(dict.fromkeys(key for record in sheet.records for key in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sheet.records)
    return text.getvalue()


def refuse(out: Path) -> None:
    """Raise ConfigError where nothing could be written, before any work."""
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"out={out}: the suffix says the format{nearest(out.suffix, SUFFIXES)}: .md or .csv")
    if not out.parent.is_dir():
        raise ConfigError(f"out={out}: there is no folder {out.parent}")
    if out.exists():
        raise ConfigError(f"out={out} is there already, and is not written over: name another file")


def write(sheet: Sheet, out: Path) -> None:
    """Write Markdown or CSV, by the suffix: all of it or nothing."""
    refuse(out)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        beside.write_text(markdown(sheet) if out.suffix == ".md" else comma_separated(sheet), "utf-8")
        beside.replace(out)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"out={out} cannot be written: {error.strerror}") from error
