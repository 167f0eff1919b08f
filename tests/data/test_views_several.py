"""Several views of a sample: the same ones however they are loaded, each as its entry says, and how they came about."""

import pytest
import torch

from jepakit.branch import Branch, assemble, loaders
from jepakit.build import build
from jepakit.config import resolve
from jepakit.data import open_source
from jepakit.data.colour import COLUMN, How
from jepakit.data.folder import Folder
from jepakit.data.loader import Loader, evaluation_batches
from jepakit.data.recolour import recolour
from jepakit.data.video import Video
from jepakit.data.views import Box, Normalise, crop, resize
from jepakit.data.world import World
from jepakit.errors import ConfigError
from jepakit.pictures.views import restored
from tests.data.make import labelled, numbers, picture, videos
from tests.data.test_loader import OPTIONS, all_same

JITTER = {"jitter": [0.4, 0.4, 0.2, 0.1], "jitter_p": 0.8, "grey": 0.2}
PAIR = {"one": {**JITTER, "blur": 1.0}, "other": {**JITTER, "blur": 0.1, "solarize": 0.2}}
CROPS = {"global": {"count": 2, "size": 12, "crop_scale": [0.3, 1.0]}, "local": {"count": 6, "size": 6, "flip": False}}
CROPS["local"] |= {"crop_scale": [0.05, 0.3], **JITTER}


MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def same_conditions(one, other) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x.condition, y.condition, strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("views", [PAIR, CROPS], ids=["pair", "crops"])
def test_any_number_of_workers_and_any_beginning(tmp_path, views):
    source = Folder(str(labelled(tmp_path)))
    (tmp_path / "cat" / "3.png").write_bytes(b"broken")
    alone = list(Loader(source, OPTIONS, 5, views=views).batches(0, 5))
    assert any(batch.replaced for batch in alone)
    for workers, start in ((0, 2), (2, 0), (1, 4)):
        again = list(Loader(source, OPTIONS | {"workers": workers}, 5, views=views).batches(start, 5))
        assert all_same(alone[start:], again) and same_conditions(alone[start:], again)
    assert not all_same(alone, list(Loader(source, OPTIONS, 6, views=views).batches(0, 5)))


def test_without_entries_there_is_one_view_as_data_says():
    source = World(length=8, side=16)
    plain, empty, named = (list(Loader(source, OPTIONS, 0, views=v).batches(0, 3)) for v in (None, {}, {"only": {}}))
    assert all_same(plain, empty) and all_same(plain, named) and len(plain[0].views) == 1
    first = [batch.views[0] for batch in Loader(source, OPTIONS, 0, views={"a": {}, "b": PAIR["one"]}).batches(0, 3)]
    assert all(torch.equal(batch.views[0], view) for batch, view in zip(plain, first, strict=True))


def test_colours_and_later_views_do_not_move_the_crops_of_others():
    source, boxes = World(length=8, side=16), [COLUMN[name] for name in ("left", "top", "right", "bottom", "mirrored")]
    found = [next(Loader(source, OPTIONS, 0, views=v).batches(0, 1)).condition for v in ({"a": {}, "b": {}}, PAIR)]
    for plain, coloured in zip(*found, strict=True):
        assert torch.equal(plain[:, boxes], coloured[:, boxes]) and not torch.equal(plain, coloured)


def test_multi_crop():
    batch = next(Loader(World(length=8, side=24), OPTIONS, 0, views=CROPS).batches(0, 1))
    assert [view.shape[1:] for view in batch.views] == [(3, 1, 12, 12)] * 2 + [(3, 1, 6, 6)] * 6
    assert len({tuple(how[0, :4].tolist()) for how in batch.condition}) == 8
    for how in batch.condition[2:]:
        area = (how[:, COLUMN["right"]] - how[:, COLUMN["left"]]) * (how[:, COLUMN["bottom"]] - how[:, COLUMN["top"]])
        assert area.max() < 0.35 and not how[:, COLUMN["mirrored"]].any()


def test_the_pair_is_asymmetric():
    batches = list(Loader(World(length=200, side=8), OPTIONS | {"batch_size": 50}, 0, views=PAIR).batches(0, 4))
    one, other = (torch.cat([batch.condition[view] for batch in batches]) for view in (0, 1))
    assert (one[:, COLUMN["blur"]] > 0).all() and not one[:, COLUMN["solarize"]].any()
    assert 5 <= (other[:, COLUMN["blur"]] > 0).sum() <= 40 and 20 <= other[:, COLUMN["solarize"]].sum() <= 62
    assert (one[:, COLUMN["brightness"]] != other[:, COLUMN["brightness"]]).float().mean() > 0.9


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_condition_makes_the_view_again(tmp_path, interpolation):
    """Every column is used: box, mirror and colours, from the picture and the row alone."""
    for i in range(4):
        picture(tmp_path / f"{i}.png", 30 + i, 90 - i, seed=i)
    source, views = Folder(str(tmp_path)), {"it": {**PAIR["other"], "blur": 0.5, "interpolation": interpolation}}
    batch = next(Loader(source, OPTIONS, 1, views=views).batches(0, 1))
    normalise = Normalise(MEAN, STD, torch.device("cpu"))
    for view, row, index in zip(batch.views[0], batch.condition[0], batch.index, strict=True):
        whole, how = source[int(index)][0], How(*row.tolist())
        height, width = whole.shape[-2:]
        left, right = round(how.left * width), round(how.right * width)
        top, bottom = round(how.top * height), round(how.bottom * height)
        cut = resize(crop(whole, Box(top, left, bottom - top, right - left)), [8, 8], interpolation)
        mirrored = row[None, COLUMN["mirrored"]] > 0
        again = normalise(cut[None], mirrored, lambda values, row=row: recolour(values, row[None], 8))[0]
        torch.testing.assert_close(again, view, rtol=0, atol=1e-5)


def test_views_of_clips_share_their_frames(tmp_path):
    source = Video(str(videos(tmp_path, ("cat",), 2)), frames=4, stride=2)
    options = OPTIONS | {"batch_size": 2, "size": 16}
    views = {"here": {"crop_scale": [1.0, 1.0]}, "there": {"crop_scale": [1.0, 1.0], "solarize": 1.0}}
    batches = [list(Loader(source, options | {"workers": n}, 0, views=views).batches(0, 2)) for n in (0, 1)]
    assert all_same(*batches) and [view.shape for view in batches[0][0].views] == [(2, 3, 4, 16, 16)] * 2


def test_each_of_several_clips_is_a_place_with_all_views(tmp_path):
    source = Video(str(videos(tmp_path, ("cat",), 2)), frames=4, stride=2, clips=2)
    batch = next(Loader(source, OPTIONS | {"size": 16}, 0, views=PAIR).batches(0, 1))
    assert [view.shape[0] for view in batch.views] == [4, 4] and [len(how) for how in batch.condition] == [4, 4]
    assert batch.index.tolist()[0] == batch.index.tolist()[1] and not torch.equal(*batch.condition[0][:2])


def test_a_view_may_look_at_another_clip_of_the_same_video(tmp_path):
    """The pair now and later: two places of a batch become two views of one."""
    source = Video(str(videos(tmp_path, ("cat",), 4)), frames=4, stride=2, clips=2)
    whole = {"crop_scale": [1.0, 1.0], "crop_ratio": [1.5, 1.5], "flip": False}
    views = {"now": {**whole, "clip": 0}, "later": {**whole, "clip": 1}}
    loader = Loader(source, OPTIONS | {"size": 64}, 0, views=views)
    batch = next(loader.batches(0, 1))
    assert len(loader) == 1 and len(set(batch.index.tolist())) == 4
    now, later = ([numbers(restored(view, MEAN, STD)[i])[0] for i in range(4)] for view in batch.views)
    assert all(first < second for first, second in zip(now, later, strict=True))
    with pytest.raises(ConfigError, match=r"^views\.\*\.clip=2: a sample has 2 \(data\.clips\), and the first is 0$"):
        Loader(source, OPTIONS, 0, views={"it": {"clip": 2}})


def test_evaluation_keeps_its_one_view():
    batch = next(evaluation_batches(World(length=4, side=16), OPTIONS))
    assert len(batch.views) == 1 and batch.condition is None


def test_colours_take_three_channels():
    options = OPTIONS | {"mean": [0.5], "std": [0.5]}
    for entry in ({"grey": 0.1}, {"jitter": [0.1, 0.0, 0.0, 0.0]}):
        with pytest.raises(ConfigError, match=r"^views\.it: jitter and grey take 3 channels, data\.mean has 1$"):
            Loader(World(length=8), options, 0, views={"it": entry})


# The configuration ---------------------------------------------------------------------------------------------------

ONE = "+views={one: {size: 32}, other: {size: 16, blur: 0.5}}"


def asked(*overrides: str) -> dict:
    few = ["data.batch_size=4", "data.workers=0", "data.size=32", "tokenizer=patch4", "masker.min_keep=1"]
    few += ["encoder.depth=1", "predictor.depth=1"]
    return resolve([*few, *overrides], complete=False)


def test_views_are_a_setting_and_each_of_theirs_too():
    views = asked("+views={global: {count: 2}, local: {count: 6, size: 96}}")["views"]
    assert list(views) == ["global", "local"] and views["local"]["count"] == 6 and views["global"]["size"] is None
    assert asked()["views"] == {}


@pytest.mark.parametrize(
    "setting, said",
    [
        ("blurr: .5", r"unknown key 'views\.it\.blurr' \(did you mean 'blur'\?\)"),
        ("blur: 1.5", r"views\.it\.blur=1\.5 is out of range: it has to be within 0 and 1"),
        ("jitter_p: -1", r"views\.it\.jitter_p=-1\.0 is out of range"),
        ("count: 0", r"views\.it\.count=0 is out of range: it has to be at least 1"),
        ("clip: -1", r"views\.it\.clip=-1 is out of range: it has to be at least 0"),
        ("size: 0", r"views\.it\.size=0 is out of range"),
        ("crop_scale: [.5, 1.5]", r"views\.it\.crop_scale=\[0\.5, 1\.5\] is out of range: .* <= 1"),
        ("crop_ratio: [2, 1]", r"views\.it\.crop_ratio=\[2\.0, 1\.0\] is out of range"),
        ("blur_sigma: [0, 1]", r"views\.it\.blur_sigma=\[0\.0, 1\.0\] is out of range"),
        ("jitter: [.4, .4, .2]", r"views\.it\.jitter=.* \[brightness, contrast, saturation, hue\], at least 0"),
        ("jitter: [.4, .4, .2, .6]", r"views\.it\.jitter=.* hue at most 0\.5"),
        ("interpolation: bicubicc", r"views\.it\.interpolation=bicubicc is no choice \(did you mean 'bicubic'\?\)"),
        ("size: big", r"views\.it\.size"),
    ],
)
def test_what_is_refused(setting, said):
    with pytest.raises(ConfigError, match=said):
        asked(f"+views={{it: {{{setting}}}}}")


@pytest.mark.parametrize(
    "setting, said",
    [
        ("+views.it.blur=.5", "there is no view 'it' yet: write all views in a recipe, or in one setting, like"),
        ("views.it.blur=.5", "there is no view 'it' yet: write all views in a recipe, or in one setting, like"),
        ("+views={It: {blur: .5}}", r"views\.It: a view's name is small letters, digits and _, and begins with a"),
    ],
)
def test_views_come_into_being_by_name(setting, said):
    with pytest.raises(ConfigError, match=said):
        asked(setting)


def test_each_view_is_rehearsed_at_its_own_size():
    with pytest.raises(ConfigError, match=r"^views\.other\.size=17: tokenizer 'patch': a clip of .* cannot be cut"):
        build(asked("+views={one: {}, other: {size: 17}}"))
    with pytest.raises(ConfigError, match=r"^masker 'multiblock' chooses tokens of views of data\.size=32, .* size 16"):
        build(asked("+views={one: {size: 16}}"))
    assert build(asked(ONE)).figures[""].views == 1


def fed(config: dict, tmp_path) -> tuple[Branch, list]:
    """The branch of a configuration, and what its predictor is told while it takes a step."""
    told: list = []
    built = build(config)
    built.figures[""].jepa.predictor.register_forward_pre_hook(
        lambda module, given, kwargs: told.append(given[3]), with_kwargs=True
    )
    here = loaders(config, open_source(config["data"]), torch.device("cpu"))
    return assemble(config, built, here, 1, 1.0, tmp_path)[0], told


def test_a_step_looks_at_what_the_masker_asks_for_and_says_what_is_left(tmp_path):
    branch, told = fed(asked(ONE, "data.length=8"), tmp_path)
    assert str(branch).endswith("; 2 views of a sample, of which 1 looked at")
    batch = next(branch.batches(0, 1))
    assert branch.losses(batch, 0, 0).total.isfinite() and set(told) == {None}
    assert [view.shape[-1] for view in batch.views] == [32, 16]


def test_a_predictor_that_asks_for_it_is_told_how_the_views_came_about(tmp_path):
    branch, told = fed(asked(ONE, "data.length=8"), tmp_path)
    branch.figure.jepa.predictor.conditioned = True
    batch = next(branch.batches(0, 1))
    with pytest.raises(ValueError, match="vit_predictor takes no condition"):
        branch.losses(batch, 0, 0)
    assert told[0] is batch.condition and [how.shape for how in told[0]] == [(4, len(How._fields))] * 2


def test_single_frames_of_a_clip_are_cut_alike():
    source = World(length=8, side=16, frames=3)
    both = {"now": {"frame": 0}, "next": {"frame": 2}, "whole": {}}
    options = OPTIONS | {"crop_scale": [0.2, 0.6], "flip": True}
    batch = next(Loader(source, options, 3, views=both).batches(0, 1))
    assert [view.shape[2] for view in batch.views] == [1, 1, 3]
    now, after, whole = batch.condition
    assert torch.equal(now, after) and not torch.equal(now, whole)
    alone = next(Loader(source, options, 3, views={"clip": {}}).batches(0, 1))
    assert torch.equal(batch.views[0], alone.views[0][:, :, :1]) and torch.equal(
        batch.views[1], alone.views[0][:, :, 2:]
    )
    with pytest.raises(ConfigError, match="frame=3: a sample has 3 frames, the first is 0"):
        next(Loader(source, OPTIONS | {"workers": 0}, 3, views={"late": {"frame": 3}}).batches(0, 1))
