"""How data sets with maps lie on disk: which picture a map of classes or of depth belongs to, and to which split.

    <folder of pictures>/<place>/<stem>.jpg and <folder of maps>/<place>/<stem>.png, either way round with the split

A folder of pictures is called as one of ``PICTURES``, one of maps as one of ``MAPS``; ``train/images/a.jpg`` will do as
well as ``images/train/a.jpg``. What is known beside that: VOC's lists of splits, Cityscapes' names of files, and NYU's,
whose pictures and depths lie in one folder. What belongs to a sample but is not there is an empty path: the sample is
one of the data set all the same, and cannot be read.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

PICTURES = frozenset({"images", "image", "img", "imgs", "rgb", "jpegimages", "leftimg8bit"})
"""Names of folders, in small letters."""
MAPS = {
    **dict.fromkeys(("masks", "mask", "annotations", "labels", "segmentation", "segmentationclass"), "segment"),
    **dict.fromkeys(("gtfine", "gtcoarse"), "segment"),
    **dict.fromkeys(("depth", "depths"), "depth"),
}
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What folders of splits are called, and what they are."""
LISTS = re.compile(r"(?:.*/)?ImageSets/Segmentation/(\w+)\.txt")
"""VOC's lists of the pictures of each split."""
CITY = re.compile(r"(.*)_(leftImg8bit|gt(?:Fine|Coarse)_(?:labelIds|color|instanceIds|labelTrainIds|polygons))")
NYU = re.compile(r"(rgb|sync_depth)_(\d+)")


class Found(NamedTuple):
    """The files of a sample, relative paths, empty where there is none."""

    picture: str = ""
    segment: str = ""
    depth: str = ""


class _Key(NamedTuple):
    """What a picture and its maps have in common."""

    split: str
    place: str
    stem: str


def find(files: Iterable[str], lists: Mapping[str, Iterable[str]]) -> dict[str, list[Found]]:
    """The samples of each split; of data without splits all are of the split ``""``.

    Args:
        files: relative paths.
        lists: names of the pictures of each split, where lists say so.
    """
    roles: dict[_Key, dict[str, str]] = defaultdict(dict)
    for file in sorted(files):
        if known := _role(file.replace(os.sep, "/")):
            roles[known[1]].setdefault(known[0], file)
    if lists:
        plain = {key.stem: each for key, each in roles.items() if not key.split}
        return {split: [Found(**plain.get(name, {})) for name in names] for split, names in lists.items()}
    splits: dict[str, list[Found]] = defaultdict(list)
    for key, each in sorted(roles.items()):
        splits[key.split].append(Found(**each))
    return dict(splits)


def _role(file: str) -> tuple[str, _Key] | None:
    """Whether a file is a picture or a map, and of which sample; None for what is neither."""
    *folders, name = file.split("/")
    stem, suffix = os.path.splitext(name)
    if found := NYU.fullmatch(stem):
        return ("picture" if found[1] == "rgb" else "depth"), _key(folders, found[2])
    for number, folder in enumerate(folders):
        role = "picture" if folder.lower() in PICTURES else MAPS.get(folder.lower())
        if role is None:
            continue
        if found := CITY.fullmatch(stem):
            if not found[2].endswith(("leftImg8bit", "labelIds")):
                return None
            stem = found[1]
        is_map = suffix.lower() in (".png", ".npy", ".pfm")
        return (
            None if role != "picture" and not is_map else (role, _key(folders[:number] + folders[number + 1 :], stem))
        )
    return None


def _key(folders: list[str], stem: str) -> _Key:
    names = [SPLITS.get(folder.lower(), "") for folder in folders]
    place = "/".join(folder for folder, split in zip(folders, names, strict=True) if not split)
    return _Key(next(filter(None, names), ""), place, stem)
