"""Pictures of flow: the colours mean what the wheel says, and what is drawn is what is known."""

import numpy as np
import pytest
import torch
from PIL import Image

from jepakit.config import resolve
from jepakit.data.flow import Truth
from jepakit.errors import ConfigError, DataError
from jepakit.evaluate.data import Part
from jepakit.evaluate.motion import nothing_moves
from jepakit.pictures import command
from jepakit.pictures.entry import looked_at, picked
from jepakit.pictures.features import level_of
from jepakit.pictures.flow import Shown, flow, pairs
from jepakit.pictures.moved import LEAST, UNKNOWN, colours, error, follow, hidden, painted, rim, wheel
from jepakit.types import Grid
from tests.evaluate.pairs import Shifts

PAIRS = Shifts(3)


def part(source: Shifts) -> Part:
    return Part(source, torch.arange(len(source)), "all")  # type: ignore[arg-type]


def everywhere(right: float, down: float, side: int = 8) -> torch.Tensor:
    return torch.tensor([right, down]).view(2, 1, 1).expand(2, side, side)


def test_colours_say_direction_and_speed():
    rests, right, left, slower = (
        colours(everywhere(*way), 4.0)[0, 0] for way in ((0.0, 0.0), (4.0, 0.0), (-4.0, 0.0), (2.0, 0.0))
    )
    assert rests.tolist() == [1, 1, 1]  # white
    assert np.ptp(right) == 1 and np.ptp(left) == 1 and right.argmax() != left.argmax()
    assert 0.4 < np.ptp(slower) < 0.6 and slower.argmax() == right.argmax()
    assert np.array_equal(colours(everywhere(9.0, 0.0), 4.0)[0, 0], right)  # faster than the rim
    legend = wheel(9)
    assert legend[4, 8, :3] == pytest.approx(right, abs=0.12) and legend[4, 4, :3].min() > 0.98
    assert legend[4, 4, 3] == 1 and legend[0, 0, 3] == 0  # nothing outside of the circle


def test_truth_and_estimate_have_one_rim():
    truth = PAIRS.truth(1)
    assert rim(everywhere(50.0, 0.0, 16), truth) == 2 and rim(everywhere(3.0, 4.0, 16), None) == 5
    assert rim(torch.zeros(2, 8, 8), None) == LEAST
    image = painted(truth, 2.0)
    assert np.all(image[0] == UNKNOWN) and np.array_equal(image[1:], colours(truth.flow, 2.0)[1:])
    wrong = error(truth.flow + 3, truth)
    assert np.isnan(wrong[0]).all() and wrong[1:] == pytest.approx(18**0.5)


def test_following_a_flow_finds_what_it_points_to():
    image = torch.rand(3, 8, 8)
    moved, inside = follow(image, everywhere(2.0, 1.0))
    torch.testing.assert_close(moved[:, :7, :6], image[:, 1:, 2:], atol=1e-5, rtol=1e-5)
    assert inside.tolist() == [[y < 7 and x < 6 for x in range(8)] for y in range(8)]


def test_what_does_not_come_back_is_hidden():
    flow = everywhere(2.0, 0.0)
    assert hidden(flow, -flow).tolist() == [[x >= 6 for x in range(8)]] * 8
    back = -flow.clone()
    back[:, 3, 5] = 4.0  # somebody else has come to where (3, 3) went
    assert hidden(flow, back).nonzero().tolist() == [
        [y, x] for y in range(8) for x in range(8) if x > 5 or (y, x) == (3, 3)
    ]


def test_the_pairs_are_readable_ones_and_always_the_same():
    source = Shifts(6, bad=(2,), mute=(4,))
    found = pairs(nothing_moves, part(source), 5)
    assert [each.place for each in found] == [each.place for each in pairs(nothing_moves, part(source), 5)]
    assert {each.place for each in found} == {f"shift {i}" for i in (0, 1, 3, 4, 5)}
    assert [each.place for each in found if each.truth is None] == ["shift 4"]
    with pytest.raises(DataError, match="none of 2 pairs can be read"):
        pairs(nothing_moves, part(Shifts(2, bad=(0, 1))))


def test_a_sheet_has_a_row_for_a_pair_of_any_size(tmp_path):
    wide = Shown(torch.randint(0, 256, (3, 2, 10, 40), dtype=torch.uint8), None, *torch.zeros(2, 2, 10, 40), "a video")
    first, second = pairs(nothing_moves, part(Shifts(2, mute=(1,))), 2)
    sizes = []
    for number, shown in enumerate(([wide], [wide, first, second])):
        with Image.open(flow(shown, tmp_path / f"{number}.png")) as image:
            sizes.append(image.size)
            assert image.convert("L").getextrema()[0] < 100
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] < sizes[1][1]


def test_views_of_single_frames_are_drawn_as_such(tmp_path):
    views = "+views={first: {frame: 0}, second: {frame: 1}, both: {count: 2}}"
    data = "data=world_pairs data.length=4 data.side=16 data.size=16 masker=pair tokenizer=patch8".split()
    config = resolve([*data, views], complete=False)
    pictures = torch.arange(2 * 2 * 3 * 16 * 16).view(2, 3, 2, 16, 16).to(torch.uint8)
    found = looked_at(config, pictures)
    assert [each.shape[2] for each in found] == [1, 1, 2, 2] and torch.equal(found[1], pictures[:, :, 1:])
    assert looked_at({"views": {}}, pictures) == [pictures]
    assert picked(PAIRS, 8).shape == (3, 3, 2, 8, 8)  # type: ignore[arg-type]


def test_a_pyramid_is_drawn_where_there_is_something_to_see():
    fine, middle, coarse, pooled = (torch.zeros(2, 2 * side**2, 4) for side in (16, 8, 2, 1))
    for grid in (Grid(2, 2, 2), Grid(2, 1, 1)):
        assert level_of((fine, middle, coarse, pooled), grid) == (middle, Grid(2, 8, 8))
    assert level_of((coarse, pooled), Grid(2, 1, 1)) == (coarse, Grid(2, 2, 2))
    assert level_of(coarse, Grid(2, 2, 2)) == (coarse, Grid(2, 2, 2))
    assert level_of((coarse, coarse), Grid(2, 2, 2))[0] is coarse
    with pytest.raises(ConfigError, match="no features on the grid"):
        level_of(pooled, Grid(2, 2, 2))


def test_a_flow_is_drawn_of_a_run_alone(tmp_path):
    with pytest.raises(ConfigError, match="show flow needs a run"):
        command("flow", resolve(["data=world_pairs"], complete=False), tmp_path / "flow.png")


def test_the_truth_of_a_pair_may_be_known_nowhere(tmp_path):
    blank = Truth(torch.zeros(2, 16, 16), torch.zeros(16, 16, dtype=torch.bool), None)
    shown = pairs(nothing_moves, part(Shifts(1)))[0]._replace(truth=blank)
    assert flow([shown], tmp_path / "flow.png").is_file()
