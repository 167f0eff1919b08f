"""Several roots are one data set: whose turn it is, what their classes are, what takes the place of a bad sample."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jepakit.config import resolve
from jepakit.data.check import command
from jepakit.data.folder import Folder
from jepakit.data.loader import Loader, evaluation_batches
from jepakit.data.mix import Mix, permutation
from jepakit.data.video import Video
from jepakit.errors import ConfigError, DataError
from tests.data.make import Numbers, frames, labelled, picture, video, videos
from tests.data.test_loader import OPTIONS, all_same


class Mixed(Numbers):
    """Numbers in three parts, 5, 20 and 40 of them, with weights .5, .3 and .2."""

    parts, weights = (5, 20, 40), (0.5, 0.3, 0.2)

    def __init__(self, bad: frozenset[int] = frozenset()):
        super().__init__(65, bad)


def part(index: int) -> int:
    return (index >= 5) + (index >= 25)


# Whose turn it is ---------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 40), st.floats(1, 5)), min_size=1, max_size=4), st.integers(0, 3))
def test_every_part_has_its_share_and_repeats_nothing_too_early(parts, seed):
    sizes, weights = zip(*parts, strict=True)
    mix, count = Mix(sizes, weights), 10 * sum(sizes)
    shares = mix.shares(count)
    assert sum(shares) == count
    drawn = [mix.order(count, seed, epoch) for epoch in range(3)]
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    for number, (size, weight, end) in enumerate(zip(sizes, weights, ends, strict=True)):
        assert abs(shares[number] - count * weight / sum(weights)) < 1
        mine = [order[(order[:, 1] >= end - size) & (order[:, 1] < end)] for order in drawn]
        assert [len(each) for each in mine] == [shares[number]] * 3
        turns = Counter(map(tuple, torch.cat(mine).tolist()))
        assert set(turns.values()) == {1}  # never twice in a pass
        whole, left = divmod(3 * shares[number], size)
        passes = Counter(turn for turn, _ in turns)
        assert passes == Counter({turn: size for turn in range(whole)} | ({whole: left} if left else {}))


def test_a_batch_is_mixed_and_the_next_epoch_goes_on():
    loader = Loader(Mixed(), OPTIONS | {"batch_size": 10}, seed=0)
    assert len(loader) == 6
    batches = [batch.index.tolist() for batch in loader.batches(0, 12)]
    assert Counter(part(index) for batch in batches[:6] for index in batch) == {0: 30, 1: 18, 2: 12}
    assert all(len({part(index) for index in batch}) > 1 for batch in batches)
    most = [index for batch in batches for index in batch if part(index) == 2]
    assert len(set(most)) == len(most) == 24  # of forty: two epochs repeat none
    few = Counter(index for batch in batches[:6] for index in batch if part(index) == 0)
    assert set(few.values()) == {6}


def test_a_sample_that_comes_again_in_an_epoch_is_seen_anew():
    keys = [key for batch in Loader(Mixed(), OPTIONS, seed=0).keys(0, 16) for key in batch]
    assert len(keys) == 64 and len(set(keys)) == 64 and max(Counter(index for _, index in keys).values()) > 5


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_any_beginning_any_workers_and_any_ranks_give_the_same():
    source = Mixed(frozenset({1, 30}))
    whole = list(Loader(source, OPTIONS, seed=4).batches(0, 33))
    assert any(batch.replaced for batch in whole)
    assert all_same(whole[18:21], list(Loader(source, OPTIONS, seed=4).batches(18, 21)))
    assert all_same(whole[:20], list(Loader(source, OPTIONS | {"workers": 2}, seed=4).batches(0, 20)))
    ranks = [Loader(source, OPTIONS | {"batch_size": 2}, seed=4, rank=rank, world=2) for rank in (0, 1)]
    for batch, *parts in zip(whole, *(rank.batches(0, 33) for rank in ranks), strict=True):
        assert torch.equal(batch.index, torch.cat([each.index for each in parts]))
    assert [keys for keys in Loader(source, OPTIONS, seed=5).keys(0, 5)] != [
        *Loader(source, OPTIONS, seed=4).keys(0, 5)
    ]


def test_a_bad_sample_is_replaced_by_one_of_its_part():
    bad = frozenset({0, 1, 2, 3, 7, 8, 30, 31, 32})
    seen = {r["index"]: r for batch in Loader(Mixed(bad), OPTIONS, 0).batches(0, 160) for r in batch.replaced}
    assert seen.keys() == bad and seen[0]["replaced_by"] == 4
    assert all(part(index) == part(entry["replaced_by"]) for index, entry in seen.items())
    with pytest.raises(DataError, match="5 samples in a row could not be read, the last one was number"):
        list(Loader(Mixed(frozenset(range(5))), OPTIONS, 0).batches(0, 5))


def test_without_weights_nothing_changes():
    class Parts(Numbers):
        parts = (4, 6)

    keys = [key for batch in Loader(Parts(10), OPTIONS | {"batch_size": 5}, seed=7).keys(0, 4) for key in batch]
    expected = [(epoch, index) for epoch in (0, 1) for index in permutation(10, 7, "order", epoch).tolist()]
    assert keys == expected


def test_a_share_of_less_than_a_sample_is_refused():
    source = Mixed()
    source.weights = (1.0, 1e-4, 1.0)
    with pytest.raises(DataError, match=r"^data.weights=\[1.0, 0.0001, 1.0\]: 0.0001 is less than one of 64 draws an "):
        Loader(source, OPTIONS, 0)


# Several roots ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Pictures ``a`` (cat, dog), ``b`` (ant, dog) and ``bare``."""
    root = tmp_path_factory.mktemp("roots")
    labelled(root / "a", each=3)
    labelled(root / "b", ("ant", "dog"), each=2)
    picture(root / "bare" / "x.png")
    (root / "b" / "notes.txt").touch()
    return root


def test_classes_of_one_name_are_one_class(root, monkeypatch):
    source = Folder([f"{root}/a", f"{root}/b"])
    assert source.classes == {"class": ("ant", "cat", "dog")} and len(source) == 10 and source.parts == (6, 4)
    assert [source[i][1]["class"] for i in range(10)] == [1, 1, 1, 2, 2, 2, 0, 0, 2, 2]
    assert source.describe(3) == f"{root}/a/dog/0.png" and source.describe(6) == f"{root}/b/ant/0.png"
    same, alone = Folder([f"{root}/a", f"{root}/a"], weights=[1.0, 2.0]), Folder(f"{root}/a")
    assert same.classes == alone.classes and torch.equal(same[7][0], alone[1][0]) and alone.weights is None
    monkeypatch.chdir(root)
    said = Folder(["a", "b"], weights=[0.25, 0.75])
    assert said.describe_all() == (
        "10 images in 3 classes; 1 other files left aside: 1 .txt; 2 roots: a (6, weight 0.25), b (4, weight 0.75)"
    )
    assert said.root == str(root) and said[4][1] == {"class": 2}
    assert Folder("a", weights=[0.5, 0.5]).describe_all().endswith("in 2 classes; one root: data.weights is not used")


def test_without_labels_in_one_root_there_are_none(root):
    source = Folder([f"{root}/bare", f"{root}/a"])
    assert source.classes == {} and source[3][1] == {} and source.describe_all().startswith("7 images without labels")


def test_held_out_data_of_a_mixture_may_have_classes_of_its_own(root):
    assert len(Folder([f"{root}/a", f"{root}/b"], held_out=f"{root}/a").held_out_source()) == 6
    with pytest.raises(DataError, match="not the classes of data.root"):
        Folder(f"{root}/b", held_out=f"{root}/a").held_out_source()


def test_evaluation_and_check_read_all_of_it_once(root, capsys):
    source = Folder([f"{root}/a", f"{root}/b"], weights=[0.9, 0.1])
    batches = list(evaluation_batches(source, OPTIONS))
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(10))
    assert command({"name": "folder", "root": [f"{root}/a", f"{root}/bare"], "weights": [1.0, 1.0], "workers": 0}) == 0
    assert "7 images without labels; 2 roots: " in capsys.readouterr().out


def test_lists_and_folders_of_videos_and_of_frames(tmp_path):
    videos(tmp_path / "v", each=1)
    frames(tmp_path / "f" / "dog" / "one")
    frames(tmp_path / "f" / "cow" / "two")
    video(tmp_path / "l" / "x.mp4", 40)
    (tmp_path / "l" / "list.csv").write_text("x.mp4 dog\n")
    source = Video([f"{tmp_path}/v", f"{tmp_path}/f", f"{tmp_path}/l/list.csv"], frames=4, weights=[1.0, 1.0, 2.0])
    assert source.parts == (2, 2, 1) and source.classes == {"class": ("cat", "cow", "dog")}
    assert [source[i][1]["class"] for i in range(5)] == [0, 2, 1, 2, 2]
    assert [source.format(i) for i in (1, 2, 4)] == ["MP4 H.264", "folder", "MP4 H.264"]
    assert source.describe(2) == f"{tmp_path}/f/cow/two" and source.describe(4) == f"{tmp_path}/l/x.mp4"
    keys = [key for batch in Loader(source, OPTIONS, 0).keys(0, 1) for key in batch]
    assert Counter(index for _, index in keys)[4] == 2 and source.describe_all().startswith("5 videos in 3 classes; ")
    with pytest.raises(ConfigError, match="folders of frames have no rate"):
        Video([f"{tmp_path}/v", f"{tmp_path}/f"], fps=4.0)


def test_a_list_by_a_relative_path(tmp_path, monkeypatch):
    video(tmp_path / "l" / "x.mp4", 40)
    (tmp_path / "l" / "list.txt").write_text("x.mp4\n")
    monkeypatch.chdir(tmp_path)
    for root in ("l/list.txt", ["l/list.txt"], ["l/list.txt", "l"]):
        assert Video(root, frames=2)[0][0].shape == (3, 2, 64, 96)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"root": ["a", "nowhere"]}, "data.root=nowhere: there is no 'nowhere' in "),
        ({"root": []}, "data.root=[] is empty"),
        ({"root": ["a", ""]}, "data.root='' must be the path of a folder"),
        ({"root": ["a", "b"], "weights": [1.0]}, "data.weights=[1.0] has 1 numbers, data.root has 2 roots"),
        ({"root": ["a", "b"], "weights": [1.0, 0.0]}, "0 is out of range, it has to be above 0"),
        ({"root": "a", "weights": [-1.0]}, "-1 is out of range"),
    ],
)
def test_mistakes_are_named(root, arguments, words, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises((ConfigError, DataError)) as caught:
        Folder(**arguments)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_on_the_command_line():
    words = ["recipe=vjepa_vitt16_small", "data.root=[a.csv,b,c]", "data.weights=[.335,.1,.565]"]
    data = resolve(words)["data"]
    assert (data["root"], data["weights"]) == (["a.csv", "b", "c"], [0.335, 0.1, 0.565])
    with pytest.raises(ConfigError, match="did you mean 'weights'"):
        resolve([*words[:2], "data.wieghts=[1,2,3]"])
    with pytest.raises(ConfigError, match="data.root is not set, and data=video has no default"):
        resolve([words[0], words[2]])
    with pytest.raises(ConfigError, match="data.weights"):
        resolve([*words[:2], "data.weights=[much,more,most]"])


# Several clips of a video -------------------------------------------------------------------------------------------


def test_clips_of_a_video_lie_in_one_batch_and_are_drawn_one_by_one(tmp_path):
    videos(tmp_path, each=2)
    (tmp_path / "dog" / "1.mp4").write_bytes(b"broken")
    options = {"batch_size": 4, "size": 16, "workers": 0, "flip": True}
    source = Video(str(tmp_path), frames=4, stride=1, clips=2)
    loader = Loader(source, options, seed=3)
    assert len(source) == 4 and len(loader) == 2
    batches = list(loader.batches(0, 4))
    for batch in batches:
        assert batch.views[0].shape == (4, 3, 4, 16, 16) and len(batch.labels["class"]) == 4
        assert batch.index[0] == batch.index[1] and batch.index[2] == batch.index[3]
        assert not torch.equal(batch.views[0][0], batch.views[0][1])
    assert [len(batch.replaced) for batch in batches].count(1) == 2
    assert all_same(batches[1:], list(loader.batches(1, 4)))
    assert all_same(batches, list(Loader(source, options | {"workers": 1}, seed=3).batches(0, 4)))
    ranks = [Loader(source, options | {"batch_size": 2}, 3, rank=rank, world=2).batches(0, 4) for rank in (0, 1)]
    for batch, *parts in zip(batches, *ranks, strict=True):
        assert torch.equal(batch.views[0], torch.cat([each.views[0] for each in parts]))
    assert len(next(evaluation_batches(source, options)).index) == 4  # a video is judged once
    with pytest.raises(ConfigError, match="data.batch_size=3 is no multiple of data.clips=2"):
        Loader(source, options | {"batch_size": 3}, 0)
    with pytest.raises(DataError, match="has 8 samples, fewer than the 10 of one batch; give data.batch_size=8"):
        Loader(source, options | {"batch_size": 10}, 0)
