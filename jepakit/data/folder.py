"""A folder of pictures is a data set: flat, or with one sub-folder for each class. No metadata is needed."""

import os
from collections import Counter
from typing import Any

import numpy as np
from torch import Tensor

from jepakit.data import BadSample, mix
from jepakit.data.decode import Shrink
from jepakit.data.mix import Found
from jepakit.errors import ConfigError, DataError, nearest
from jepakit.protocols import Source

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"})
"""Sub-folders that all bear one of these names are parts of a data set, not classes."""

MANY = 5
"""Names that an error lists."""


class Folder:
    """The pictures under ``root``, in the order of their sorted paths, or those of several roots (mix.py).

    Sub-folders are classes, and may be nested further. A lone sub-folder is looked through: the classes are the first
    level that branches. Where pictures lie beside sub-folders, all are unlabelled. Hidden files are skipped, links are
    followed, files with other suffixes are counted and reported by ``describe_all``.

    Args:
        root: the folder, or several: ``[a, b]``.
        held_out: a folder with the same classes, for the scores that are computed while training.
        decoder: registered name of the decoder.
        max_pixels: pictures of more pixels are refused before they are decoded.
        extensions: suffixes of the files to take; null: those that the decoder reads.
        weights: shares of each epoch that the roots have while training; null: every picture once.
        scaled_decode: while training decode large JPEGs at a half, a quarter or an eighth of their sides where the
            crops have pixels enough then; the views are not quite the same (scaled.py).

    Raises:
        ConfigError: ``scaled_decode`` with a decoder that cannot.
        DataError: there is no such folder, nothing to read in it, or it holds splits rather than classes.
    """

    def __init__(
        self,
        root: str | list[str],
        held_out: str | None = None,
        decoder: str = "pillow",
        max_pixels: int = 64_000_000,
        extensions: list[str] | None = None,
        weights: list[float] | None = None,
        scaled_decode: bool = False,
    ):
        from jepakit.plugins import discover

        self.held_out, self.scaled_decode = held_out, scaled_decode
        several, self.weights = mix.roots(root, weights)
        self._same = {"decoder": decoder, "max_pixels": max_pixels, "extensions": extensions}
        self._decode = discover().get("decoder", decoder).load()(max_pixels=max_pixels)
        if scaled_decode and not getattr(self._decode, "scales", False):
            raise ConfigError(f"data.scaled_decode=true: decoder {decoder} decodes nothing smaller; pillow does")
        self.channels: int = self._decode.channels
        suffixes = self._decode.suffixes if extensions is None else tuple(map(_suffix, extensions))
        found = mix.join([look(each, tuple(suffixes)) for each in several])
        if held_out is not None:
            require_folder(held_out, "data.held_out")
        self.root, self.others, self.parts, self._labels = found.root, found.others, found.parts, found.labels
        self.classes: dict[str, tuple[str, ...]] = {"class": found.names} if found.names else {}
        self._paths = Names(found.paths)
        self._roots = mix.describe(several, self.parts, weights)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | float]]:
        return self.scaled(index)

    def scaled(self, index: int, *shrink: Shrink) -> tuple[Tensor, dict[str, int | float]]:
        """Sample ``index``, as small as ``shrink`` allows it to be decoded. Raises BadSample."""
        try:
            picture = self._decode(self.path(index), *shrink)
        except BadSample as bad:
            raise BadSample(self.describe(index), bad.reason) from bad
        return picture, {"class": int(self._labels[index])} if self.classes else {}

    def path(self, index: int) -> str:
        """The file of sample ``index``."""
        return os.path.join(self.root, self._paths[index])

    def describe(self, index: int) -> str:
        """The file of sample ``index``, printable whatever bytes are in its name."""
        return printable(self.path(index))

    def describe_all(self) -> str:
        """What was found, in one line: ``10,000 images in 10 classes``."""
        kind = f"in {len(self.classes['class']):,} classes" if self.classes else "without labels"
        return f"{len(self):,} images {kind}{describe_others(self.others)}{self._roots}"

    def format(self, index: int) -> str:
        """The format that a file is really in. Raises BadSample."""
        return self._decode.format(self.path(index))

    def held_out_source(self) -> Source | None:
        """The labelled data for scores while training; that of one root has its classes. Raises DataError."""
        if self.held_out is None:
            return None
        other = Folder(self.held_out, **self._same)
        if not other.classes:
            raise DataError(f"data.held_out={self.held_out}: scores need classes, and it has no sub-folders")
        if self.classes and len(self.parts) == 1:
            refuse_differing(self, other)
        return other


def look(root: str, suffixes: tuple[str, ...]) -> Found:
    """The pictures of one root. Raises DataError where there are none, or splits in place of classes."""
    root = require_folder(root, "data.root")
    paths, others = scan(root, frozenset(suffixes))
    if not paths:
        raise DataError(f"{root}: no picture in it (looked for {' '.join(suffixes)}{describe_others(others)})")
    return Found(root, paths, *label(root, paths), others, (len(paths),))


class Names:
    """Many strings in one block of memory: worker processes share it, where a list would be copied page by page."""

    def __init__(self, names: list[str]):
        encoded = [os.fsencode(name) for name in names]
        self._block = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return os.fsdecode(self._block[self._ends[index] : self._ends[index + 1]])


def scan(root: str, suffixes: frozenset[str]) -> tuple[list[str], Counter[str]]:
    """Sorted relative paths of the files with these suffixes; the others counted by suffix. Raises DataError."""
    found, others = [], Counter()
    todo = [("", (_identity(root),))]
    while todo:
        here, above = todo.pop()
        for entry in _entries(os.path.join(root, here)):
            path, suffix = os.path.join(here, entry.name), os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry.path):
                if _identity(entry.path) in above:
                    others["links to a folder above"] += 1
                else:
                    todo.append((path, (*above, _identity(entry.path))))
            elif suffix in suffixes and (os.path.isfile(entry.path) or not os.path.exists(entry.path)):
                found.append(path)  # a dangling link is a sample that cannot be read, and is reported as such
            else:
                others[suffix or "no suffix"] += 1
    return sorted(found), others


def label(root: str, paths: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes and each path's class; no names where the pictures are not sorted into sub-folders.

    Raises DataError if the sub-folders are the splits of a data set.
    """
    parts = [path.split(os.sep) for path in paths]
    for level in range(min(map(len, parts)) - 1):
        names = tuple(sorted({part[level] for part in parts}))
        if len(names) > 1:
            _refuse_splits(os.path.join(root, *parts[0][:level]), names)
            number = {name: i for i, name in enumerate(names)}
            return names, np.array([number[part[level]] for part in parts], np.int32)
    return (), np.zeros(0, np.int32)


def require_folder(path: str, key: str, what: str = "a folder of pictures") -> str:
    """The path, its ``~`` resolved. Raises DataError, naming the nearest sibling, if there is no such folder."""
    if not isinstance(path, str) or not path:
        number = f": write ./{path} for one that is called so" if isinstance(path, (int, float)) else ""
        raise ConfigError(f"{key}={path!r} must be the path of a folder{number}")
    path = os.path.expanduser(path)
    if os.path.isfile(path):
        raise DataError(f"{key}={path} is a file; {what} is needed")
    if not os.path.isdir(path):
        above, missing = os.path.split(os.path.abspath(path))
        while not os.path.isdir(above):
            above, missing = os.path.split(above)
        raise DataError(f"{key}={path}: there is no {missing!r} in {above}{nearest(missing, os.listdir(above))}")
    return path


def printable(path: str) -> str:
    """The path in letters that can be printed, whatever bytes are in it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in path)


def refuse_differing(train: Any, held_out: Any) -> None:
    """Raises DataError where two sources, each with a ``root``, have not the same classes."""
    mine, theirs = set(train.classes["class"]), set(held_out.classes["class"])
    differ = [
        f"only in {root}: {', '.join(sorted(names)[:MANY])}{', ...' if len(names) > MANY else ''}"
        for root, names in ((train.root, mine - theirs), (held_out.root, theirs - mine))
        if names
    ]
    if differ:
        raise DataError(f"data.held_out has not the classes of data.root; {'; '.join(differ)}")


def _refuse_splits(place: str, names: tuple[str, ...]) -> None:
    if {name.lower() for name in names} <= SPLITS:
        train = next((name for name in names if name.lower().startswith("train")), names[0])
        rest = next(name for name in names if name != train)
        raise DataError(
            f"{place} holds the parts of a data set ({', '.join(names)}), not classes; "
            f"give data.root={os.path.join(place, train)} data.held_out={os.path.join(place, rest)}"
        )


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _suffix(extension: str) -> str:
    return "." + extension.lower().removeprefix(".")


def describe_others(others: Counter[str]) -> str:
    """How many files were left aside, and of which kinds, as the end of a line."""
    if not others:
        return ""
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(3))
    return f"; {sum(others.values()):,} other files left aside: {kinds}{', ...' if len(others) > 3 else ''}"
