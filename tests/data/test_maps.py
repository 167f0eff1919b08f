"""Maps: exact in the built-in world, found and read in folders, and cut as the picture is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jepakit.data import BadSample, check
from jepakit.data.decode import Pillow
from jepakit.data.map_files import fit_picture, read_classes, read_depth
from jepakit.data.maps import UNKNOWN, Maps
from jepakit.data.scene import CLASSES, GROUND
from jepakit.data.views import CentreView, middle_view
from jepakit.data.world import World
from jepakit.errors import ConfigError, DataError
from jepakit.seeds import generator

MOST = 64_000_000


def colours(height: int, width: int) -> np.ndarray:
    """A picture of few large fields, and each field's number: the red of its colour."""
    y, x = np.mgrid[:height, :width]
    number = 4 * (4 * y // height) + 4 * x // width
    return np.stack([number * 16, 255 - number * 16, np.full_like(number, 99)], -1).astype(np.uint8)


def save(path: Path, array: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def oriented(path: Path, array: np.ndarray, how: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = how
    return save(path, array, exif=exif)


# The built-in world


@pytest.mark.parametrize("kind", [{"things": 1}, {"things": 4}, {"things": 3, "frames": 3}])
def test_the_world_shows_what_its_maps_say(kind):
    world, scale = World(12, 64, colour=0.5, **kind), 8
    for index in range(len(world)):
        frame = kind.get("frames", 1) - 1
        segment, depth = (world.map(index, name, frame) for name in ("segment", "depth"))
        labels, things = world._draw(index)[1:3]
        assert (
            segment.dtype == torch.int64 and depth.dtype == torch.float32 and segment.shape == depth.shape == (64, 64)
        )
        assert set(segment.unique().tolist()) <= {0, *(thing.kind + 1 for thing in things)}
        assert torch.equal(segment == 0, depth == GROUND)
        assert depth.min() == pytest.approx(world[index][1]["distance"]), "the nearest thing is never hidden"
        assert (segment[depth == depth.min()] == labels["class"] + 1).all()
        large = World(12, 64 * scale, colour=0.5, **kind).map(index, "segment", frame)
        assert (large[scale // 2 :: scale, scale // 2 :: scale] == segment).float().mean() > 0.98


def test_a_nearer_thing_covers_a_farther_one_pixel_by_pixel():
    world = World(40, 48, things=4)
    plain = [world._draw(i)[2] for i in range(len(world))]
    covered = 0
    for index, things in enumerate(plain):
        depth, wide = world.map(index, "depth"), np.full((48, 48), GROUND, np.float32)
        for thing in things:  # each by itself, as a disc, a square or a triangle about its place
            rows, columns, u, v = world._about(thing, *thing.place.tolist(), 0.0)
            far = np.hypot(u, v) < 0.5  # within every shape
            covered += int((wide[rows, columns][far] < GROUND).sum())
            wide[rows, columns][far] = np.minimum(wide[rows, columns][far], thing.distance)
        assert (depth.numpy() <= wide + 1e-6).all()
    assert covered > 100, "the samples have things that hide others"


def test_edges_of_the_maps_are_edges_of_the_picture():
    world = World(30, 64, things=1, near=(0.8, 0.9))
    steps = []
    for index in range(len(world)):
        picture, segment = world[index][0][:, 0].float(), world.map(index, "segment")
        change = (picture[:, :, 2:] - picture[:, :, :-2]).abs().mean(0)
        edge = (segment[:, 2:] != segment[:, :-2]) & (segment[:, 1:-1] == segment[:, 2:])
        steps.append((change[edge].mean() / change[~edge].mean()).item())
    assert np.mean(steps) > 1.3, steps


def test_distances_are_sorted_into_equal_bins():
    world = World(900, 2)
    found = [world[i][1] for i in range(len(world))]
    edges = np.linspace(*world.near, len(world.classes["distance_bin"]) + 1)
    assert [each["distance_bin"] for each in found] == (np.digitize([e["distance"] for e in found], edges) - 1).tolist()
    counts = np.bincount([each["distance_bin"] for each in found])
    assert counts == pytest.approx(np.full(6, 150), rel=0.3)
    assert world.classes["distance_bin"][0] == "1.00 to 1.13"
    assert (
        "distance_bin" not in World(near=(1.0, 1.0)).classes
        and "distance_bin" not in World(3, 2, near=(1.0, 1.0))[0][1]
    )
    assert world.maps == {"segment": ("ground", *CLASSES), "depth": None}


# How they are cut


@pytest.mark.parametrize("size", [(20, 24), (37, 53), (101, 64), (64, 64), (300, 41), (16, 16), (50, 401)])
@pytest.mark.parametrize("view", [CentreView(32), middle_view(32, 3)], ids=["centre", "side"])
def test_a_map_is_cut_as_its_picture(size, view):
    array = colours(*size)
    picture = torch.from_numpy(array).permute(2, 0, 1).unsqueeze(1)
    piece = view.fit(view.take(picture, generator("test"))[0])[0, 0].float()
    number = view.fit_map(torch.from_numpy(array[..., 0].astype(np.int64)))
    depth = view.fit_map(torch.from_numpy(array[..., 0]).float())
    assert number.dtype == torch.int64 and depth.dtype == torch.float32 and torch.equal(number.float(), depth)
    differs = (piece - number).abs() > 8
    assert differs.float().mean() < 0.35, "blended at the edges of fields alone"
    inside = (
        torch.nn.functional.max_pool2d((number[None] - torch.roll(number, 1, 1)[None]).abs().float(), 5, 1, 2)[0] == 0
    )
    inside &= (
        torch.nn.functional.max_pool2d((number[None] - torch.roll(number, 1, 0)[None]).abs().float(), 5, 1, 2)[0] == 0
    )
    assert inside.any() and not differs[inside].any(), "and nowhere else"
    shifted = (piece - torch.roll(number, 2, 1)).abs() > 8
    assert shifted.float().mean() > differs.float().mean() or size[1] < size[0] / 3


def test_unknown_is_never_mixed_with_what_is_known():
    depth = torch.full((50, 70), 5.0)
    depth[:, 30:] = torch.nan
    found = CentreView(32).fit_map(depth)
    assert set(found[~found.isnan()].tolist()) == {5.0} and found.isnan().any()


@pytest.mark.parametrize("how", range(1, 9))
def test_photographs_that_are_turned_have_maps_that_are_turned(tmp_path, how):
    array = colours(40, 61)
    picture = oriented(tmp_path / "images" / "a.png", array, how)
    shown = Pillow()(str(picture))[0, 0].numpy()
    upright = save(tmp_path / "masks" / "a.png", (shown // 16).astype(np.uint8))
    stored = array[..., 0].astype(np.int64) // 16
    if how in (2, 3, 4):
        with pytest.raises(BadSample, match="EXIF tag, and nothing tells"):
            fit_picture(stored, "m.png", str(picture), MOST)
        return
    for values in (stored, read_classes(str(upright), MOST)):
        assert (fit_picture(values, "m.png", str(picture), MOST) == shown // 16).all()
    data = Maps(str(tmp_path))
    assert (data.map(0, "segment").numpy() * 16 == data[0][0][0, 0].numpy()).all()
    floats = fit_picture(stored.astype(np.float32) / 3, "m.png", str(picture), MOST)
    assert np.array_equal(floats, (shown // 16).astype(np.float32) / 3)


# Where they lie


LAYOUTS = {
    "plain": ("images/{split}/{stem}.jpg", "masks/{split}/{stem}.png"),
    "split first": ("{split}/images/{stem}.jpg", "{split}/masks/{stem}.png"),
    "ADE20K": ("images/{long}/ADE_{stem}.jpg", "annotations/{long}/ADE_{stem}.png"),
    "Cityscapes": (
        "leftImg8bit/{split}/bonn/{stem}_000_leftImg8bit.png",
        "gtFine/{split}/bonn/{stem}_000_gtFine_labelIds.png",
    ),
}


def made(root: Path, layout: str, splits: dict[str, int]) -> Path:
    picture, mask = LAYOUTS[layout]
    for split, count in splits.items():
        for i in range(count):
            where = {"split": split, "long": {"train": "training", "val": "validation"}[split], "stem": f"{split}{i}"}
            save(root / picture.format(**where), colours(12, 16))
            save(root / mask.format(**where), np.full((12, 16), i, np.uint8))
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_people_have(tmp_path, layout):
    root = made(tmp_path, layout, {"train": 3, "val": 2})
    data = Maps(str(root))
    assert data.split == "train" and len(data) == 3 and set(data.maps) == {"segment"}
    assert [data.map(i, "segment").unique().tolist() for i in range(3)] == [[0], [1], [2]]
    assert data[1][0].shape == (3, 1, 12, 16) and data[1][1] == {} and "train1" in data.describe(1)
    held = data.held_out_source()
    assert held.split == "val" and len(held) == 2 and held.held_out_source() is None
    assert data.describe_all() == "3 pictures of the split train, 3 with segment"
    with pytest.raises(DataError, match=r"split=vla \(did you mean 'val'\?\): there are train, val"):
        Maps(str(root), split="vla")


def test_voc_is_read_by_its_lists(tmp_path):
    for stem in "abcd":
        save(tmp_path / "JPEGImages" / f"{stem}.jpg", colours(12, 16))
    palette = Image.fromarray(np.array([[0, 15, 255]], np.uint8).repeat(12, 0).repeat(4, 1), "P").resize((16, 12))
    palette.putpalette(list(range(256)) * 3)
    for stem in "abc":
        (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
        palette.save(tmp_path / "SegmentationClass" / f"{stem}.png")
        save(tmp_path / "SegmentationObject" / f"{stem}.png", np.zeros((12, 16), np.uint8))
    for name, stems in {"train": "a", "val": "bcd", "trainval": "abcd"}.items():
        file = tmp_path / "ImageSets" / "Segmentation" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(stems) + "\n")
    data = Maps(str(tmp_path))
    assert len(data) == 1 and data.map(0, "segment").unique().tolist() == [UNKNOWN, 0, 15]
    held = data.held_out_source()
    assert len(held) == 3 and len(Maps(str(tmp_path), "trainval")) == 4
    with pytest.raises(BadSample, match=r"d\.jpg: there is no segment of it"):
        held.map(2, "segment")
    assert held.describe_all() == "3 pictures of the split val, 2 with segment; 3 other files left aside: 3 .png"


def test_data_without_splits_is_one_set_and_may_have_both_maps(tmp_path):
    save(tmp_path / "images" / "x" / "1.jpg", colours(8, 8))
    save(tmp_path / "depth" / "x" / "1.png", np.full((8, 8), 2500, np.uint16))
    save(tmp_path / "masks" / "x" / "1.png", np.zeros((8, 8), np.uint8))
    data = Maps(str(tmp_path))
    assert data.split == "" and set(data.maps) == {"segment", "depth"} and data.held_out_source() is None
    assert data.map(0, "depth").unique().tolist() == [2.5]
    with pytest.raises(DataError, match="the data has no splits"):
        Maps(str(tmp_path), split="val")


def test_nyu_keeps_pictures_and_depth_in_one_folder(tmp_path):
    save(tmp_path / "train" / "kitchen" / "rgb_00045.jpg", colours(8, 8))
    save(tmp_path / "train" / "kitchen" / "sync_depth_00045.png", np.full((8, 8), 1500, np.uint16))
    data = Maps(str(tmp_path))
    assert list(data.maps) == ["depth"] and data.map(0, "depth").unique().tolist() == [1.5]


# What they are


def test_numbers_of_depth(tmp_path):
    values = np.array([[0, 256, 512]], np.uint16)
    found = read_depth(str(save(tmp_path / "a.png", values)), MOST, 256.0)
    assert np.isnan(found[0, 0]) and found[0, 1:].tolist() == [1.0, 2.0] and found.dtype == np.float32
    floats = np.array([[0.5, -1.0], [np.inf, np.nan], [7.0, 0.0]], np.float32)
    np.save(tmp_path / "a.npy", floats)
    (tmp_path / "a.pfm").write_bytes(b"Pf\n2 3\n-1.0\n" + floats[::-1].tobytes())
    (tmp_path / "b.pfm").write_bytes(b"Pf\n2 3\n1.0\n" + floats[::-1].astype(">f4").tobytes())
    for name in ("a.npy", "a.pfm", "b.pfm"):
        found = read_depth(str(tmp_path / name), MOST, 1000.0)
        assert np.isnan(found).tolist() == [[False, True], [True, True], [False, True]], name
        assert found[0, 0] == 0.5 and found[2, 0] == 7.0


def test_classes_are_named_by_a_list_or_a_file(tmp_path):
    root = made(tmp_path / "data", "plain", {"train": 3})
    assert Maps(str(root)).maps["segment"][:3] == ("0", "1", "2")
    assert Maps(str(root), classes=["sky", "road", "tree"]).maps["segment"] == ("sky", "road", "tree")
    file = tmp_path / "names.txt"
    file.write_text("Idx\tRatio\tName\n1\t0.2\twall\n3\t0.1\tsky, blue\n")
    assert Maps(str(root), classes=str(file), ignore=(0, 255)).maps["segment"] == ("0", "wall", "2", "sky, blue")
    file.write_text("wall\nsky\n")
    data = Maps(str(root), classes=str(file))
    assert data.maps["segment"] == ("wall", "sky")
    with pytest.raises(BadSample, match=r"class 2 of 2: see data\.classes and data\.ignore"):
        data.map(2, "segment")
    assert Maps(str(root), classes=str(file), ignore=(2, 255)).map(2, "segment").unique().tolist() == [UNKNOWN]
    with pytest.raises(DataError, match="No such file"):
        Maps(str(root), classes="nowhere.txt")


def test_what_is_wrong_is_named(tmp_path):
    root = made(tmp_path, "plain", {"train": 6})
    masks = root / "masks" / "train"
    (masks / "train0.png").write_bytes((masks / "train0.png").read_bytes()[:45])
    save(masks / "train1.png", np.zeros((12, 15), np.uint8))
    save(masks / "train2.png", colours(12, 16))
    (masks / "train3.png").unlink()
    (root / "images" / "train" / "train4.jpg").unlink()
    data = Maps(str(root))
    wrong = [
        "train0.png",
        "15 x 12 pixels, and its picture has 16 x 12",
        "not of mode RGB",
        "there is no segment of it",
    ]
    for index, words in enumerate(wrong):
        with pytest.raises(BadSample, match=words):
            data.map(index, "segment")
    for look in (lambda: data[4], lambda: data.map(4, "segment")):
        with pytest.raises(BadSample, match=r"train4\.png: there is no picture of it"):
            look()
    assert data.map(5, "segment").unique().tolist() == [5]
    assert data.describe_all() == "6 pictures of the split train, 5 with segment, 1 missing"
    report = check.check(data, 0, check.Console(quiet=True))
    assert report.good == 1 and len(report.bad) == 5, "the check before a run reads maps too"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npy", b"", "EOF|No data|empty"),
        ("a.npy", b"\x93NUMPY rubbish", "format version"),
        ("a.pfm", b"PF\n2 2\n-1\n", "not a .pfm file of one channel"),
        ("a.pfm", b"Pf\n2 2\n-1\n123", "where 2 x 2 pixels take 26"),
        ("a.pfm", b"Pf\n99999 99999\n-1\n", "max_pixels"),
    ],
)
def test_damaged_files_of_depth(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadSample, match=words):
        read_depth(str(tmp_path / name), MOST, 1.0)


def test_arrays_of_another_kind(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 2), np.float32))
    np.save(tmp_path / "b.npy", np.zeros((2, 2), np.float32))
    np.save(tmp_path / "c.npy", np.array([{}, 1], object), allow_pickle=True)
    for name, read in (("a.npy", read_depth), ("c.npy", read_depth)):
        with pytest.raises(BadSample, match="two axes|Python objects"):
            read(str(tmp_path / name), MOST, 1.0)
    with pytest.raises(BadSample, match="whole numbers"):
        read_classes(str(tmp_path / "b.npy"), MOST)
    save(tmp_path / "d.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(BadSample, match="16 bits, not mode L"):
        read_depth(str(tmp_path / "d.png"), MOST, 1.0)


def test_what_cannot_be(tmp_path):
    save(tmp_path / "pictures" / "a.png", colours(8, 8))
    with pytest.raises(DataError, match=r"no picture in it that has a map \(looked for folders pictures: .*images"):
        Maps(str(tmp_path))
    save(tmp_path / "images" / "a.png", colours(8, 8))
    with pytest.raises(DataError, match="1 pictures and not one map"):
        Maps(str(tmp_path))
    with pytest.raises(ConfigError, match="depth_scale=0 must be above 0"):
        Maps(str(tmp_path), depth_scale=0.0)
