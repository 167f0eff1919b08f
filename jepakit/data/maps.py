"""Pictures with maps: what each pixel shows, or how far it is. Made for dense probes; any training can use them too."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepakit.data import BadSample, map_layouts
from jepakit.data.decode import Pillow
from jepakit.data.folder import Names, describe_others, printable, require_folder, scan
from jepakit.data.map_files import DEPTHS, fit_picture, read_classes, read_depth
from jepakit.errors import ConfigError, DataError, nearest
from jepakit.protocols import Source

UNKNOWN = -1
"""The class of a pixel of which nobody says what it shows. Unknown depth is nan."""
NUMBERS = 255
"""Classes where nobody names them: as many as a PNG of 8 bits tells apart, beside the one that is unknown."""
UNSEEN = ("val", "test")
"""Splits that are held out, the first that there is."""
NAMED = re.compile(r"(\d+)[\t,; ]\s*(?:.*\t)?(.+)")
"""A line of a list of classes that says its number, and last its name; other lines are names, numbered from 0."""


class Maps:
    """Pictures under ``root`` and their maps, found by the names of folders (map_layouts.py says which).

    ``map(index, "segment")`` is the class of each pixel, ``map(index, "depth")`` how far it is; ``maps`` says which of
    them there are, and names the classes.

    Args:
        root: the folder.
        split: train, val, test or the name of a list; null: train where the data has splits, else everything.
        classes: their names, or a file with one in each line; null: they are called by their numbers.
        ignore: numbers in maps of classes that mean that nobody knows (ADE20K: [0,255]).
        depth_scale: what stands for 1 in a PNG with depth: 1000 of millimetres (NYU), 256 of KITTI, for metres.
        max_pixels: pictures and maps of more pixels are refused before they are decoded.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: no such folder or split, or no picture with a map in it.
    """

    channels: int = 3
    classes: dict[str, tuple[str, ...]] = {}

    def __init__(
        self,
        root: str,
        split: str | None = None,
        classes: str | list[str] | None = None,
        ignore: tuple[int, ...] = (255,),
        depth_scale: float = 1000.0,
        max_pixels: int = 64_000_000,
    ):
        if not depth_scale > 0:
            raise ConfigError(f"data.depth_scale={depth_scale:g} must be above 0")
        self.root = require_folder(root, "data.root", "a folder with pictures and maps")
        self._same = {"classes": classes, "ignore": ignore, "depth_scale": depth_scale, "max_pixels": max_pixels}
        self._decode, self._ignore = Pillow(max_pixels), np.array(list(ignore), np.int64)
        self._scale, self._max_pixels = depth_scale, max_pixels
        found = look(self.root)
        self.others, self.split = found.others, _chosen(self.root, found.splits, split)
        self.splits = tuple(found.splits)
        chosen = found.splits[self.split]
        self._files = [Names(list(column)) for column in zip(*chosen, strict=True)]
        names = _names(classes)
        kinds: dict[str, tuple[str, ...] | None] = {"segment": names, "depth": None}
        self.maps = {name: value for name, value in kinds.items() if any(getattr(each, name) for each in chosen)}
        if not self.maps:
            raise DataError(f"{self.root}: {len(chosen):,} pictures and not one map ({_sought()})")

    def __len__(self) -> int:
        return len(self._files[0])

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | float]]:
        """The picture; no labels. Raises BadSample."""
        path = self._path(index, "picture")
        try:
            return self._decode(path), {}
        except BadSample as bad:
            raise BadSample(printable(path), bad.reason) from bad

    def map(self, index: int, name: str, frame: int = 0) -> Tensor:
        """``segment``, int64 ``H W``, ``UNKNOWN`` where nobody says; or ``depth``, float32, nan where nobody says.

        As large as the picture, and turned like it. Raises BadSample.
        """
        path, picture = self._path(index, name), self._path(index, "picture")
        try:
            if name == "segment":
                values = self._known(read_classes(path, self._max_pixels))
            else:
                values = read_depth(path, self._max_pixels, self._scale)
            return torch.from_numpy(np.ascontiguousarray(fit_picture(values, path, picture, self._max_pixels)))
        except BadSample as bad:
            raise BadSample(printable(bad.path), bad.reason) from bad
        except ValueError as error:
            raise BadSample(printable(path), str(error)) from error

    def describe(self, index: int) -> str:
        """The picture, printable whatever bytes are in its name; where it is missing, its map."""
        return printable(os.path.join(self.root, next(filter(None, (each[index] for each in self._files)), "?")))

    def describe_all(self) -> str:
        """What was found, in one line: ``1,449 pictures of the split val, 1,449 with segment``."""
        split = f" of the split {self.split}" if self.split else ""
        lost = sum(not self._files[0][index] for index in range(len(self)))
        counts = {name: sum(bool(self._column(name)[index]) for index in range(len(self))) for name in self.maps}
        said = "".join(f", {count:,} with {name}" for name, count in counts.items())
        return f"{len(self):,} pictures{split}{said}{f', {lost:,} missing' * bool(lost)}{describe_others(self.others)}"

    def format(self, index: int) -> str:
        """The format that a picture is really in. Raises BadSample."""
        return self._decode.format(self._path(index, "picture"))

    def held_out_source(self) -> Source | None:
        """What is held out beside a split for training."""
        unseen = next((name for name in UNSEEN if name in self.splits), None)
        return Maps(self.root, unseen, **self._same) if unseen and self.split == "train" else None

    def _column(self, role: str) -> Names:
        return self._files[map_layouts.Found._fields.index(role)]

    def _path(self, index: int, role: str) -> str:
        if path := self._column(role)[index]:
            return os.path.join(self.root, path)
        raise BadSample(self.describe(index), f"there is no {role} of it")

    def _known(self, values: np.ndarray) -> np.ndarray:
        """Numbers of classes, ``UNKNOWN`` where they are to be ignored. Raises ValueError for one without a name."""
        values = np.where(np.isin(values, self._ignore), UNKNOWN, values)
        names = self.maps["segment"] or ()
        if values.min(initial=UNKNOWN) < UNKNOWN or values.max(initial=UNKNOWN) >= len(names):
            wrong = int(values.min()) if values.min() < UNKNOWN else int(values.max())
            raise ValueError(f"class {wrong} of {len(names)}: see data.classes and data.ignore")
        return values


class Looked(NamedTuple):
    """What lies in a folder: the samples of each split, and how many other files of each kind."""

    splits: dict[str, list[map_layouts.Found]]
    others: Counter[str]


def look(root: str) -> Looked:
    """The samples of a folder. Raises DataError where there are none."""
    files, others = scan(root, frozenset({*Pillow.suffixes, *DEPTHS, ".txt"}))
    lists = {found[1]: file for file in files if (found := map_layouts.LISTS.fullmatch(file.replace(os.sep, "/")))}
    splits = map_layouts.find(files, {name: _lines(os.path.join(root, file)) for name, file in lists.items()})
    used = {file for each in splits.values() for found in each for file in found} | set(lists.values())
    left = others + Counter(os.path.splitext(file)[1].lower() for file in files if file not in used)
    if not any(found.picture for each in splits.values() for found in each):
        raise DataError(f"{root}: no picture in it that has a map ({_sought()}{describe_others(left)})")
    return Looked(splits, left)


def _sought() -> str:
    known = {
        name: [folder for folder, kind in map_layouts.MAPS.items() if kind == name] for name in ("segment", "depth")
    }
    return "looked for folders " + "; ".join(
        f"{name}: {', '.join(sorted(folders))}"
        for name, folders in ({"pictures": map_layouts.PICTURES} | known).items()
    )


def _chosen(root: str, splits: Iterable[str], split: str | None) -> str:
    """The split that is meant. Raises DataError where the data has no such one, or several of which none is train."""
    known = [name for name in splits if name]
    if split is None and (not known or "train" in known):
        return "train" if known else ""
    if split is None and len(known) == 1:
        return known[0]
    if split not in known:
        there = f"there are {', '.join(known)}" if known else "the data has no splits"
        raise DataError(f"data.split={split or 'null'}{nearest(split or '', known)}: {there}, in {root}")
    return split


def _names(classes: str | list[str] | None) -> tuple[str, ...]:
    """Names of classes by number. Raises DataError for a file that cannot be read or names none."""
    if classes is None:
        return tuple(map(str, range(NUMBERS)))
    lines = _lines(classes) if isinstance(classes, str) else list(map(str, classes))
    if isinstance(classes, str):
        numbered = [NAMED.fullmatch(line) for line in lines]
        lines = lines[1:] if len(lines) > 1 and numbered[0] is None and all(numbered[1:]) else lines  # a header
        if lines and all(found := [each for each in numbered if each]) and len(found) == len(lines):
            names = {int(each[1]): each[2].strip() for each in found}
            lines = [names.get(number, str(number)) for number in range(max(names) + 1)]
    if not lines:
        raise DataError(f"data.classes={classes}: it names no class")
    return tuple(lines)


def _lines(path: str) -> list[str]:
    """The lines of a text that are not empty. Raises DataError."""
    try:
        with open(os.path.expanduser(path), encoding="utf-8", errors="surrogateescape") as file:
            return [line.strip() for line in file if line.strip()]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
