"""The loading of the released I-JEPA code, timed beside ours:

    IJEPA_CODE=FOLDER python -m tests.released.loading IMAGES [images a round, rounds]

``IJEPA_CODE`` is a checkout of facebookresearch/ijepa, whose licence is not ours: nothing of it is here. IMAGES has a
sub-folder for each class. Theirs is torchvision's ImageFolder with the transforms of their ``src/transforms.py``, as
their configurations of ImageNet have them. CPU time of this process on one thread, rounds of each in turn, ratios pair
by pair. Both are given the same random numbers, so that they see the same crops: how far apart these are is printed.
"""

import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import ImageFolder

from jepakit.data.folder import Folder
from jepakit.data.samples import Sample, collate
from jepakit.data.views import Normalise, RandomView
from jepakit.options import DataOptions
from tests.released.checkout import opened

WHERE = "IJEPA_CODE", "https://github.com/facebookresearch/ijepa"
OPTIONS = DataOptions(flip=True)
"""Sizes, scales and colours are those of their configurations."""


class Sides(NamedTuple):
    """Batches of the images of these numbers: theirs, ours as they leave a worker, and ours as a CPU trains on them."""

    theirs: Callable[[list[int]], Tensor]
    travelling: Callable[[list[int]], Tensor]
    ours: Callable[[list[int]], Tensor]


def sides(root: str) -> Sides:
    """What is timed. Raises ConfigError where there is no checkout."""
    o = OPTIONS
    with opened(*WHERE):
        from src.transforms import make_transforms
    change = make_transforms(o.size, tuple(o.crop_scale), 0.0, o.flip, normalization=(o.mean, o.std))
    theirs, source = ImageFolder(root, change), Folder(root)
    view = RandomView(o.size, (o.crop_scale[0], o.crop_scale[1]), (3 / 4, 4 / 3), o.flip)
    normalise = Normalise(o.mean, o.std, torch.device("cpu"))

    def look(number: int) -> list[Sample]:
        piece, how = view.take(source[number][0], torch.default_generator)
        return [Sample((view.fit(piece),), (how,), {}, number, [])]

    def travelling(numbers: list[int]) -> Tensor:
        return collate(list(map(look, numbers))).pixels[0]

    def ours(numbers: list[int]) -> Tensor:
        parts = collate(list(map(look, numbers)))
        return normalise(parts.pixels[0], parts.how[0][:, 4] > 0).squeeze(2)

    return Sides(lambda numbers: torch.stack([theirs[number][0] for number in numbers]), travelling, ours)


def apart(each: Sides, numbers: list[int]) -> tuple[float, float]:
    """Greatest and mean distance of the same crops, in grey levels of 255."""
    found = []
    for side in (each.theirs, each.ours):
        torch.manual_seed(0)
        found.append(side(numbers) * torch.tensor(OPTIONS.std).view(3, 1, 1) * 255)
    distance = (found[0] - found[1]).abs()
    return distance.max().item(), distance.mean().item()


def main(root: str, images: int = 32, rounds: int = 21) -> None:
    """Print images a second of each, and how many times as many as theirs."""
    torch.set_num_threads(1)
    each, numbers = sides(root), np.random.default_rng(0).permutation(len(Folder(root))).tolist()
    print("crops differ by {:.2f} grey levels at most, {:.3f} in the mean".format(*apart(each, numbers[:images])))
    seconds: dict[str, list[float]] = {name: [] for name in Sides._fields}
    for _ in range(rounds + 1):
        for name, side in each._asdict().items():
            begun = time.process_time()
            side(numbers[:images])
            seconds[name].append(time.process_time() - begun)
        numbers = numbers[images:] + numbers[:images]
    theirs = np.array(seconds["theirs"][1:])
    for name, taken in seconds.items():
        low, middle, high = np.quantile(theirs / np.array(taken[1:]), (0.25, 0.5, 0.75))
        speed = np.median(images / np.array(taken[1:]))
        print(f"{name:10} {speed:5.0f} images/s, {middle:.2f} times [{low:.2f}, {high:.2f}] theirs")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
