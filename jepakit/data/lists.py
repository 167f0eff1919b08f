"""Lists of files: one path a line, and its label after a space, a tab or a comma, as V-JEPA's are."""

import re
from typing import NamedTuple

import numpy as np

from jepakit.data.mix import number_or_name
from jepakit.errors import DataError

LISTS = (".csv", ".txt")
"""Suffixes of lists."""
HEADERS = frozenset({"path", "file", "filename", "video", "video_path"})
"""Words that a first line begins with when it names columns."""
LINE = re.compile(r"""(?:"(?P<quoted>[^"]+)"|(?P<plain>.*\S))(?:\s*,\s*|\s+)(?P<label>[^\s,]+)""")


class Listed(NamedTuple):
    """What a list says: paths as they are written there, names of the classes, and the class of each path; no names
    where there are no labels."""

    paths: list[str]
    names: tuple[str, ...]
    labels: np.ndarray


def read(file: str, suffixes: tuple[str, ...]) -> Listed:
    """The list in ``file``. Classes are sorted, as numbers where they are numbers.

    A line is a path alone where it ends in one of ``suffixes``. Raises DataError for a list that is empty, is no text
    or has labels on some lines only.
    """
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as stream:
            lines = [line.strip() for line in stream]
    except OSError as error:
        raise DataError(f"data.root={file}: {error.strerror}") from error
    lines = [line for line in lines if line]
    if lines and re.split(r"[\s,]", lines[0])[0].strip('"').lower() in HEADERS:
        lines = lines[1:]
    if not lines:
        raise DataError(f"data.root={file}: the list is empty")
    pairs = [_pair(line, suffixes) for line in lines]
    paths = [path for path, _ in pairs]
    found = [label for _, label in pairs if label is not None]
    if not found:
        return Listed(paths, (), np.zeros(0, np.int32))
    if len(found) < len(pairs):
        lost = next(line for line, (_, label) in zip(lines, pairs, strict=True) if label is None)
        raise DataError(f"data.root={file}: other lines have a label, this one has none: {lost}")
    names = tuple(sorted(set(found), key=number_or_name))
    number = {name: i for i, name in enumerate(names)}
    return Listed(paths, names, np.array([number[label] for label in found], np.int32))


def _pair(line: str, suffixes: tuple[str, ...]) -> tuple[str, str | None]:
    found = None if line.strip('"').lower().endswith(suffixes) else LINE.fullmatch(line)
    if found is None:
        return line.strip('"'), None
    return found["quoted"] or found["plain"].rstrip(","), found["label"]
