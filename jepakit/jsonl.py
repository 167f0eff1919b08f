"""Files of JSON lines as they are found: a run may have been killed while it wrote one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def lines(file: Path, remarks: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a JSONL file, numbered from 1; a damaged one is passed over with a remark."""
    if not file.is_file():
        return
    for number, text in enumerate(file.read_text("utf-8", errors="replace").splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if isinstance(line, dict):
            yield number, line
        else:
            remarks.append(damaged(file, number))


def damaged(file: Path, number: int) -> str:
    """The remark on a line."""
    return f"{file}, line {number}: damaged, passed over"
