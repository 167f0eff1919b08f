"""Pairs of frames: the two that belong together, and the motion that belongs to them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jepakit import seeds
from jepakit.data import BadSample, open_source
from jepakit.data.check import command
from jepakit.data.flow import Truth, write_flow
from jepakit.data.loader import Loader
from jepakit.data.pairs import Pairs
from jepakit.errors import ConfigError, DataError
from jepakit.protocols import Source
from tests.data.make import frames, numbered, numbers, video

SIZE = 16, 24


def still(path: Path, number: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """A small picture that says its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbered(number, *size)).save(path)
    return path


def flow(path: Path, value: float, size: tuple[int, int] = SIZE, unknown: int = 0) -> Path:
    """A flow to the right, unknown in the first columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = torch.ones(size, dtype=torch.bool)
    known[:, :unknown] = False
    write_flow(path, Truth(torch.stack([value * known, 0.0 * known]), known))
    return path


def mask(path: Path, columns: int) -> None:
    """White in the last columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(SIZE, np.uint8)
    values[:, -columns:] = 255
    Image.fromarray(values).save(path)


def seen(source: Pairs, index: int) -> tuple[int, ...]:
    """The numbers of the two frames."""
    picture, labels = source[index]
    assert picture.dtype == torch.uint8 and picture.shape[:2] == (3, 2) and labels == {}
    return tuple(numbers(picture))


def shifts(source: Pairs) -> list[float]:
    """The known flow to the right of each pair, -1 where none is known."""
    truths = [source.truth(i) for i in range(len(source))]
    return [truth.flow[0][truth.known].mean().item() if truth else -1 for truth in truths]


@pytest.mark.parametrize("beside", [False, True])
def test_middlebury(tmp_path, beside):
    data, truth = (tmp_path / "other-data", tmp_path / "other-gt-flow") if beside else (tmp_path, tmp_path)
    for i, scene in enumerate(("Army", "Venus")):
        still(data / scene / "frame10.png", 2 * i)
        still(data / scene / "frame11.png", 2 * i + 1)
    flow(truth / "Army" / "flow10.flo", 3, unknown=2)
    source = Pairs(str(tmp_path))
    assert isinstance(source, Source) and [seen(source, i) for i in (0, 1)] == [(0, 1), (2, 3)]
    assert shifts(source) == [3, -1] and source.truth(1) is None
    found = source.truth(0)
    assert found is not None and found.occluded is None and found.known.sum() == 16 * 22
    assert source.describe_all() == "2 pairs (2 middlebury), 1 with known flow"
    assert source.describe(1).endswith("Venus/frame10.png")
    assert (source.format(0), source.format(1)) == ("PNG with .flo", "PNG")


@pytest.mark.parametrize(
    "names", [("{}_img1.ppm", "{}_img2.ppm", "{}_flow.flo"), ("{}-img0.ppm", "{}-img1.ppm", "{}-gt.flo")]
)
def test_chairs(tmp_path, names):
    for i in range(3):
        for number, name in enumerate(names[:2]):
            still(tmp_path / "data" / name.format(f"{i:05}"), 2 * i + number)
        flow(tmp_path / "data" / names[2].format(f"{i:05}"), i)
    source = Pairs(str(tmp_path))
    assert [seen(source, i) for i in range(3)] == [(0, 1), (2, 3), (4, 5)] and shifts(source) == [0, 1, 2]
    assert source.describe_all() == "3 pairs (3 chairs), 3 with known flow"


def test_sintel(tmp_path):
    for shift, rendering in enumerate(("clean", "final")):
        for scene in ("alley", "cave"):
            for i in range(1, 4):
                still(tmp_path / "training" / rendering / scene / f"frame_{i:04}.png", i + 10 * shift)
    for i in (1, 2):
        flow(tmp_path / "training" / "flow" / "cave" / f"frame_{i:04}.flo", i)
        mask(tmp_path / "training" / "occlusions" / "cave" / f"frame_{i:04}.png", i)
    mask(tmp_path / "training" / "invalid" / "cave" / "frame_0002.png", 5)
    clean, final = Pairs(str(tmp_path)), Pairs(str(tmp_path / "training"), rendering="final")
    assert [seen(clean, i) for i in range(4)] == [(1, 2), (2, 3)] * 2
    assert [seen(final, i) for i in range(4)] == [(11, 12), (12, 13)] * 2
    assert shifts(clean) == shifts(final) == [-1, -1, 1, 2]
    found = clean.truth(3)
    assert found is not None and found.occluded is not None
    assert found.occluded[0].nonzero().flatten().tolist() == [22, 23] and found.known[0].sum() == 19
    assert not found.flow[:, ~found.known].any()


@pytest.mark.parametrize("folder", ["image_2", "colored_0", "image_0"])
def test_kitti(tmp_path, folder):
    for i in range(2):
        for n in (10, 11):
            still(tmp_path / "training" / folder / f"{i:06}_{n}.png", i + n)
    still(tmp_path / "testing" / folder / "000000_10.png", 5)
    still(tmp_path / "testing" / folder / "000000_11.png", 6)
    still(tmp_path / "training" / "image_0" / "000000_10.png", 10)  # a worse camera, where there is another one
    flow(tmp_path / "training" / "flow_occ" / "000000_10.png", 2.5, unknown=1)
    flow(tmp_path / "training" / "flow_noc" / "000000_10.png", 2.5, unknown=4)
    source = Pairs(str(tmp_path))
    assert [seen(source, i) for i in range(3)] == [(5, 6), (10, 11), (11, 12)] and shifts(source) == [-1, 2.5, -1]
    found = source.truth(1)
    assert found is not None and found.occluded is not None and not found.known[:, 0].any()
    assert found.occluded[0].nonzero().flatten().tolist() == [1, 2, 3]


def test_numbered_pictures_have_partners_by_their_numbers(tmp_path):
    frames(tmp_path / "a", 12)
    frames(tmp_path / "b", 3)
    (tmp_path / "a" / "frame5.png").unlink()
    source = Pairs(str(tmp_path))
    pairs = [seen(source, i) for i in range(len(source))]
    assert pairs == [(i, i + 1) for i in (0, 1, 2, 3, 6, 7, 8, 9, 10)] + [(0, 1), (1, 2)]
    assert source.truth(0) is None and "11 pairs (11 frames), 0 with known flow" in source.describe_all()
    wide = Pairs(str(tmp_path), gap=3)
    assert [seen(wide, i) for i in range(len(wide))] == [(i, i + 3) for i in (0, 1, 3, 4, 6, 7, 8)]
    with pytest.raises(
        DataError, match="no pair of frames.*layouts middlebury, chairs.*numbers differ by gap=20.*14 .png"
    ):
        Pairs(str(tmp_path), gap=20)


def test_frames_10_and_11_of_a_video_are_no_data_set(tmp_path):
    frames(tmp_path, 13)
    assert len(Pairs(str(tmp_path))) == 12
    assert len(Pairs(str(tmp_path), layout="middlebury")) == 1


def test_videos(tmp_path):
    video(tmp_path / "x.mp4", 40)
    video(tmp_path / "short.mp4", 5)
    source = Pairs(str(tmp_path), gap=7)
    assert source.parts == (2,) and seen(source, 1) == (16, 23) and source.truth(1) is None
    assert source.format(1) == "MP4 H.264"
    drawn = {tuple(numbers(source.sample(1, seeds.generator(i))[0])) for i in range(8)}
    assert len(drawn) > 3 and all(second - first == 7 for first, second in drawn)
    again = pickle.loads(pickle.dumps(source)).sample(1, seeds.generator(0))[0]
    assert torch.equal(again, source.sample(1, seeds.generator(0))[0])
    with pytest.raises(BadSample, match="short.mp4: 5 frames, and a pair with gap=7 takes 8"):
        source[0]


def test_a_video_has_all_its_pairs(tmp_path):
    video(tmp_path / "x.mp4", 4)
    (tmp_path / "list.csv").write_text("x.mp4 3\n")
    source = Pairs(str(tmp_path / "list.csv"), gap=2)
    (part,) = source._each
    with pytest.raises(DataError, match="list.csv is a file; a folder or a list of videos"):
        Pairs(str(tmp_path / "list.csv"), layout="kitti")
    assert {tuple(numbers(part.read(0, place))) for place in (0.0, 0.49, 0.5, 0.99, 1.0)} == {(0, 2), (1, 3)}


def test_roots_are_mixed(tmp_path):
    video(tmp_path / "v" / "x.mp4", 30)
    frames(tmp_path / "f", 3)
    flow(tmp_path / "c" / "0_flow.flo", 4)
    for i in (1, 2):
        still(tmp_path / "c" / f"0_img{i}.ppm", i)
    roots = [str(tmp_path / name) for name in "vfc"]
    source = Pairs(roots, weights=[0.5, 0.25, 0.25], held_out=roots[2])
    assert source.parts == (1, 2, 1) and source.weights == (0.5, 0.25, 0.25)
    assert [seen(source, i) for i in range(4)] == [(14, 15), (0, 1), (1, 2), (1, 2)] and shifts(source)[3] == 4
    assert source.describe_all().startswith("4 pairs (1 videos, 2 frames, 1 chairs), 1 with known flow; 3 roots: ")
    held_out = source.held_out_source()
    assert held_out is not None and len(held_out) == 1 and Pairs(roots).held_out_source() is None
    with pytest.raises(IndexError, match="sample 4 of 4"):
        source[4]


def test_pairs_go_through_the_loader(tmp_path):
    frames(tmp_path, 5)
    options = {"name": "pairs", "root": str(tmp_path), "batch_size": 2, "size": 8, "workers": 0}
    (batch,) = Loader(open_source(options), options, seed=0).batches(0, 1)
    assert batch.views[0].shape == (2, 3, 2, 8, 8)


def test_what_is_wrong_with_a_pair_is_said_in_one_line(tmp_path):
    for i in range(6):
        still(tmp_path / f"{i}_img1.ppm")
        still(tmp_path / f"{i}_img2.ppm", size=(16, 20) if i == 1 else SIZE)
        flow(tmp_path / f"{i}_flow.flo", 1, (9, 9) if i == 2 else SIZE)
    (tmp_path / "0_img2.ppm").unlink()
    (tmp_path / "3_img2.ppm").write_bytes(b"")
    (tmp_path / "4_flow.flo").write_bytes(b"PIEH")
    (tmp_path / "5_img1.ppm").unlink()
    source = Pairs(str(tmp_path))
    reasons = {
        0: "0_img1.ppm: its second frame is missing",
        1: "1_img1.ppm: frames of different sizes: 24 x 16 and 20 x 16 pixels",
        3: "3_img1.ppm: 3_img2.ppm: empty file",
        5: "5_img2.ppm: its first frame is missing",
    }
    for i, reason in reasons.items():
        with pytest.raises(BadSample) as error:
            source[i]
        assert str(error.value) == f"{tmp_path}/{reason}"
    with pytest.raises(BadSample, match="2_img1.ppm: 2_flow.flo: flow of 9 x 9 pixels, frames of 24 x 16"):
        source.truth(2)
    with pytest.raises(BadSample, match="4_img1.ppm: 4_flow.flo: 0 x 0 pixels"):
        source.truth(4)


def test_masks_of_another_size(tmp_path):
    still(tmp_path / "clean" / "a" / "frame_0001.png")
    still(tmp_path / "clean" / "a" / "frame_0002.png")
    flow(tmp_path / "flow" / "a" / "frame_0001.flo", 1)
    still(tmp_path / "occlusions" / "a" / "frame_0001.png", size=(8, 8))
    with pytest.raises(BadSample, match="occlusions/a/frame_0001.png: 8 x 8 pixels, where the flow has 24 x 16"):
        Pairs(str(tmp_path)).truth(0)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"gap": 0}, "data.gap=0 and data.time_limit=30.0 must be above 0"),
        ({"layout": "sintle"}, "data.layout=sintle: it must be one of auto, .* .did you mean 'sintel'"),
        ({"rendering": "albedo"}, "data.rendering=albedo: it must be one of clean, final"),
        ({"layout": "kitti"}, "no pair of frames in it .looked for the layout kitti alone; 3 other files"),
        ({"layout": "videos"}, "looked for the layout videos alone"),
        ({"root": "{}/nowhere"}, "there is no 'nowhere'"),
        ({"decoder": "pillow"}, "data.decoder=pillow: it decodes pictures"),
    ],
)
def test_wrong_settings(tmp_path, given, reason):
    frames(tmp_path, 3)
    given = {"root": "{}"} | given
    with pytest.raises((ConfigError, DataError), match=reason):
        Pairs(**{key: value.format(tmp_path) if key == "root" else value for key, value in given.items()})


def test_check_reads_the_flow_too(tmp_path, capsys):
    for i in range(2):
        for n in (1, 2):
            still(tmp_path / f"{i}_img{n}.ppm")
        flow(tmp_path / f"{i}_flow.flo", 1)
    data = {"name": "pairs", "root": str(tmp_path), "workers": 0}
    assert command(data) == 0
    (tmp_path / "1_flow.flo").write_bytes((tmp_path / "1_flow.flo").read_bytes()[:-1])
    assert command(data) == 1
    out = capsys.readouterr().out
    assert "formats: PPM with .flo 2" in out and "1_flow.flo: 3083 bytes, where 24 x 16 pixels take 3084" in out


def test_real_pairs(real_data):
    source = Pairs(str(real_data / "flow"))
    assert source.describe_all() == "7 pairs (4 middlebury, 3 chairs), 7 with known flow"
    for i in (0, 6):
        picture, truth = source[i][0], source.truth(i)
        assert truth is not None and truth.flow.shape[1:] == picture.shape[2:]
        assert 0.5 < truth.flow.norm(dim=0)[truth.known].mean() < 30
    odd = Pairs(str(real_data / "odd" / "videos"))
    for i in range(len(odd)):
        with pytest.raises(BadSample):
            odd[i]
