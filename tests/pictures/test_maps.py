"""Pictures of what dense probes tell."""

import numpy as np
import pytest
import torch
from PIL import Image

from jepakit.data.world import World
from jepakit.evaluate.data import Part
from jepakit.evaluate.dense import SHOWN, Dense, kept
from jepakit.pictures.maps import NAMED, class_colour, examples, maps, painted


def told(name: str, frames: int = 1) -> tuple[Part, Dense, dict[str, torch.Tensor]]:
    world = World(9, 16, frames=frames, things=2)
    truth = torch.stack([world.map(index, name, frames // 2) for index in range(9)])
    part = Part(world, torch.arange(9), "all")
    test = Dense(torch.zeros(9, 4, 1), (2, 2), truth, torch.arange(9), (), frames // 2)
    keep: list[torch.Tensor] = []
    assert sum(map(len, kept(truth.split(4), keep))) == 9, "answers go on their way"
    return part, test, {"trained encoder": torch.cat(keep), "constant": torch.zeros_like(truth)}


@pytest.mark.parametrize(("name", "frames"), [("segment", 1), ("depth", 3)])
def test_a_sheet_of_what_is_told(tmp_path, name, frames):
    part, test, answers = told(name, frames)
    shown = examples(part, test, answers)
    assert len(shown) == SHOWN and list(shown[0].told) == ["trained encoder", "constant"]
    for index, each in enumerate(shown):
        assert torch.equal(each.picture, part.source[index][0][:, frames // 2])
        assert torch.equal(each.truth, each.told["trained encoder"])
    shown[0].truth[:3] = torch.nan if name == "depth" else -1
    out = maps(shown, tmp_path / "maps.png", part.source.maps[name])
    with Image.open(out) as image:
        assert image.size[0] > 900 and np.asarray(image.convert("L")).std() > 20


def test_what_is_the_same_has_the_same_colour():
    values = np.array([[-1, 0], [7, 255]])
    image = painted(values, None)
    assert [tuple(image[at]) for at in np.ndindex(2, 2)] == [class_colour(int(number)) for number in values.flat]
    assert len({class_colour(number) for number in range(-1, 151)}) == 152
    near = [np.abs(np.subtract(class_colour(n), class_colour(n + 1))).max() for n in range(1, NAMED)]
    assert min(near) > 0.2
    depth = painted(np.array([[1.0, 2.0, np.nan]]), (1.0, 2.0))
    assert depth[0, 0].sum() < depth[0, 1].sum() and tuple(depth[0, 2]) == class_colour(-1)


def test_many_classes_and_nothing_known(tmp_path):
    part, test, answers = told("segment")
    shown = [each._replace(truth=torch.arange(256).view(16, 16)) for each in examples(part, test, answers)[:1]]
    assert maps(shown, tmp_path / "many.png", [str(number) for number in range(256)]).is_file()
    part, test, answers = told("depth")
    shown = [each._replace(truth=each.truth * torch.nan) for each in examples(part, test, answers)[:1]]
    assert maps(shown, tmp_path / "none.png").is_file()
