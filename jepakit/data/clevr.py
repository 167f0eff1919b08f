"""CLEVR v1.0 (Johnson et al. 2017): how many objects a picture shows, and how far away the nearest one is.

Clevr/Count and Clevr/Dist of I-JEPA's table 4 are tasks of VTAB (Zhai et al. 2019): the number of objects, and the
distance of the nearest one from the camera in six bins. Distances are the third of each object's ``pixel_coords``.
"""

import json
import os
from collections import Counter
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from jepakit.data import BadSample
from jepakit.data.decode import Pillow
from jepakit.data.folder import Names, describe_others, printable, require_folder, scan
from jepakit.errors import ConfigError, DataError, nearest
from jepakit.protocols import Source

SPLITS = ("train", "val")
"""Those that have scenes: of the split test nobody tells them."""
FEWEST, MOST = 3, 10
"""Objects in a picture."""
EDGES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
"""Of the bins of distance, each with its upper edge: VTAB's."""
CLASSES = {
    "count": tuple(map(str, range(FEWEST, MOST + 1))),
    "distance_bin": tuple(f"{low:g} to {high:g}" for low, high in pairwise(EDGES)),
}


class Scene(NamedTuple):
    """What is kept of a scene: its picture's name, and how far its objects are."""

    picture: str
    distances: list[float]


class Clevr:
    """The pictures of CLEVR, or of any data set in its layout: ``images/<split>/`` and
    ``scenes/CLEVR_<split>_scenes.json``.

    Labels: ``count``, the number of objects; ``distance`` of the nearest one, and the ``distance_bin`` that it lies in.

    Args:
        root: the folder, CLEVR_v1.0.
        split: train or val.
        max_pixels: pictures of more pixels are refused before they are decoded.

    Raises:
        ConfigError: another split.
        DataError: no such folder, no scenes, or scenes that cannot be CLEVR's.
    """

    channels: int = 3

    def __init__(self, root: str, split: str = "train", max_pixels: int = 64_000_000):
        if split not in SPLITS:
            raise ConfigError(f"data.split={split!r}{nearest(split, SPLITS)}: it must be one of {', '.join(SPLITS)}")
        self.root = require_folder(root, "data.root", "the folder CLEVR_v1.0")
        self.split, self._max_pixels, self._decode = split, max_pixels, Pillow(max_pixels)
        self.classes = dict(CLASSES)
        scenes = read(os.path.join(self.root, "scenes", f"CLEVR_{split}_scenes.json"))
        self._names = Names([scene.picture for scene in scenes])
        self._counts = np.array([len(scene.distances) for scene in scenes], np.int32)
        self._distances = np.array([min(scene.distances) for scene in scenes])
        there, self.others = scan(require_folder(self._folder, "data.root"), frozenset(Pillow.suffixes))
        self.others += Counter({"pictures without a scene": len(set(there) - {scene.picture for scene in scenes})})

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | float]]:
        """The picture and its labels. Raises BadSample."""
        path = os.path.join(self._folder, self._names[index])
        try:
            picture = self._decode(path)
        except BadSample as bad:
            raise BadSample(printable(path), bad.reason) from bad
        count, distance = int(self._counts[index]), float(self._distances[index])
        return picture, {"count": count - FEWEST, "distance": distance, "distance_bin": distance_bin(distance)}

    def describe(self, index: int) -> str:
        """The file of a picture."""
        return printable(os.path.join(self._folder, self._names[index]))

    def describe_all(self) -> str:
        """What was found, in one line."""
        return f"{len(self):,} pictures of CLEVR's split {self.split}, with scenes{describe_others(+self.others)}"

    def format(self, index: int) -> str:
        """The format that a file is really in. Raises BadSample."""
        return self._decode.format(os.path.join(self._folder, self._names[index]))

    def held_out_source(self) -> Source | None:
        """The split val of data that is trained on."""
        return Clevr(self.root, "val", self._max_pixels) if self.split == "train" else None

    @property
    def _folder(self) -> str:
        return os.path.join(self.root, "images", self.split)


def distance_bin(distance: float) -> int:
    """The bin of a distance: the number of the last edge that is below it."""
    return int(np.searchsorted(EDGES, distance, side="left")) - 1


def read(path: str) -> list[Scene]:
    """The scenes of a split. Raises DataError for a file that is none, and scenes that no label can be told of."""

    def kept(given: dict[str, Any]) -> Any:
        """A part of the file as soon as it is read: all of it would take gigabytes."""
        if "pixel_coords" in given:
            return float(given["pixel_coords"][2])
        return Scene(str(given["image_filename"]), given["objects"]) if "image_filename" in given else given

    try:
        with open(path, encoding="utf-8") as file:
            scenes = json.load(file, object_hook=kept)["scenes"]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; CLEVR's folder has images/<split> and scenes") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path}: not a file of CLEVR's scenes ({type(error).__name__}: {error})") from error
    if not scenes:
        raise DataError(f"{path}: no scene in it")
    for scene in scenes:
        _refuse(path, scene)
    return scenes


def _refuse(path: str, scene: Any) -> None:
    if not isinstance(scene, Scene) or not all(isinstance(each, float) for each in scene.distances):
        raise DataError(f"{path}: a scene without picture, objects or their pixel_coords: {str(scene)[:80]}")
    if not FEWEST <= len(scene.distances) <= MOST:
        raise DataError(f"{path}: {scene.picture} has {len(scene.distances)} objects, CLEVR has {FEWEST} to {MOST}")
    if not EDGES[0] < min(scene.distances) <= EDGES[-1]:
        raise DataError(
            f"{path}: {scene.picture}: an object at distance {min(scene.distances):g}, CLEVR's are to {EDGES[-1]:g}"
        )
