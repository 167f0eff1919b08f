"""Videos are a data set: folders, lists, folders of frames; what cannot be read is a sample with a reason."""

import os
import pickle
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from jepakit import seeds
from jepakit.data import BadSample, lists
from jepakit.data.check import command
from jepakit.data.loader import Loader, evaluation_batches
from jepakit.data.samples import Samples
from jepakit.data.video import Video, natural
from jepakit.data.views import RandomView
from jepakit.errors import ConfigError, DataError
from tests.data.make import audio, frames, numbers, video, videos
from tests.data.test_loader import all_same

OPTIONS = {"batch_size": 2, "size": 16, "workers": 0, "flip": True, "name": "ignored", "crop_ratio": [0.75, 1.35]}


def fails(*words: str, **arguments) -> None:
    with pytest.raises((DataError, ConfigError)) as caught:
        Video(**arguments).held_out_source()
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), caught.value


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return videos(tmp_path_factory.mktemp("videos"))


def test_a_folder_of_videos(folder):
    source = Video(str(folder), frames=4, stride=2)
    assert source.describe_all() == "6 videos in 2 classes" and source.classes == {"class": ("cat", "dog")}
    picture, labels = source[2]
    assert picture.shape == (3, 4, 64, 96) and picture.dtype == torch.uint8 and labels == {"class": 0}
    assert numbers(picture) == [21, 23, 26, 28]  # the eight frames in the middle of fifty
    assert numbers(Video(str(folder), frames=4, fps=5.0)[5][0]) == [15, 21, 28, 34] and source[5][1] == {"class": 1}
    assert source.format(0) == "MP4 H.264" and source.describe(5) == f"{folder}/dog/2.mp4"
    with pytest.raises(IndexError):
        source[6]


def test_clips_are_drawn_by_the_generator(folder):
    source = Video(str(folder), frames=4, stride=2)
    drawn = [numbers(source.sample(0, seeds.generator(i))[0]) for i in (*range(8), 0)]
    assert drawn[0] == drawn[8] and len({tuple(each) for each in drawn}) > 4


def test_several_clips_of_a_video_are_read_at_once(folder):
    source = Video(str(folder), frames=4, stride=1)
    clips, labels = source.several(1, 3)  # of forty frames
    assert [numbers(clip)[0] for clip in clips] == [4, 17, 30] and labels == {"class": 0}
    drawn = [[numbers(clip)[0] for clip in source.several(1, 3, seeds.generator(i))[0]] for i in (*range(5), 0)]
    assert drawn[0] == drawn[5] and len({tuple(each) for each in drawn}) == 5
    assert all(13 * part <= start < 13 * part + 10 for each in drawn for part, start in enumerate(each))
    for index in range(len(source)):  # one clip is what it was
        rng = (seeds.generator("one", index) for _ in range(2))
        assert torch.equal(source.sample(index, next(rng))[0], source.several(index, 1, next(rng))[0][0])


def test_lists(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "v")
    os.rename(tmp_path / "v" / "cat" / "0.mp4", tmp_path / "v" / "a b, c.mp4")
    (tmp_path / "train.csv").write_text('"v/a b, c.mp4" 10\nv/cat/1.mp4 9\n\nv/dog/0.mp4 10\n')
    source = Video(str(tmp_path / "train.csv"), frames=2)
    assert source.classes == {"class": ("9", "10")} and [source[i][1]["class"] for i in range(3)] == [1, 0, 1]
    assert source.describe_all() == "3 videos in 2 classes"
    for text in ("path,label\nv/dog/1.mp4,b\nv/a b, c.mp4,a\n", "v/dog/1.mp4\tb\nv/a b, c.mp4\ta"):
        (tmp_path / "other.txt").write_text(text)
        listed = lists.read(str(tmp_path / "other.txt"), (".mp4",))
        assert listed.paths == ["v/dog/1.mp4", "v/a b, c.mp4"]
        assert listed.names == ("a", "b") and listed.labels.tolist() == [1, 0]
    (tmp_path / "plain.txt").write_text("v/a b, c.mp4\n/nowhere/x.mp4\n")
    plain = Video(str(tmp_path / "plain.txt"), frames=2)
    assert plain.classes == {} and plain[0][0].shape == (3, 2, 64, 96)
    with pytest.raises(BadSample, match="^/nowhere/x.mp4: No such file or directory$"):
        plain[1]
    fails("classes of data.root", root=str(tmp_path / "train.csv"), held_out=str(folder))
    (tmp_path / "mixed.csv").write_text("v/dog/1.mp4 1\nv/dog/0.mp4\n")
    fails("this one has none: v/dog/0.mp4", root=str(tmp_path / "mixed.csv"))
    (tmp_path / "empty.csv").touch()
    fails("the list is empty", root=str(tmp_path / "empty.csv"))


def test_folders_of_frames(tmp_path):
    for name in ("cat/a", "cat/b", "dog/c"):
        frames(tmp_path / name)
    source = Video(str(tmp_path), frames=4, stride=3)
    assert source.describe_all() == "3 folders of frames in 2 classes" and source[2][1] == {"class": 1}
    assert numbers(source[0][0]) == [0, 4, 8, 11] and source.format(0) == "folder"
    (tmp_path / "cat/a/frame4.png").write_bytes(b"no")
    with pytest.raises(BadSample, match="/cat/a: not a picture"):
        source[0]
    frames(tmp_path / "cat/b", 1)
    shutil.copy(tmp_path / "dog/c/frame0.png", tmp_path / "cat/b/frame4.png")
    assert numbers(source[1][0]) == [0, 0, 8, 11]
    fails("folders of frames have no rate", root=str(tmp_path), fps=4.0)
    fails("data=folder reads them", root=str(tmp_path / "dog" / "c"))
    assert sorted(["f10.png", "f9.png", "f1.png"], key=natural) == ["f1.png", "f9.png", "f10.png"]


def test_missing_and_wrong_arguments(folder, tmp_path):
    fails("there is no 'vidoes'", root=str(tmp_path / "vidoes"))
    (tmp_path / "empty").mkdir()
    fails("no video in it", ".mp4", root=str(tmp_path / "empty"))
    fails("a folder of videos or a list", root=str(folder / "cat" / "0.mp4"))
    fails("it decodes pictures", "decord", root=str(folder), decoder="pillow")
    fails("did you mean 'decord'?", root=str(folder), decoder="decort")
    fails("data.time_limit=0", root=str(folder), time_limit=0.0)
    fails("data.frames=0", root=str(folder), frames=0)
    fails("scores need classes", root=str(folder), held_out=str(folder / "cat"))
    held_out = Video(str(folder), held_out=str(folder), frames=3, clips=2, decoder="pyav").held_out_source()
    assert len(held_out) == 6 and held_out.clips == 1 and held_out[0][0].shape == (3, 3, 64, 96)


def test_bad_files_are_listed_with_reasons(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "root")
    cat = tmp_path / "root" / "cat"
    audio(cat / "audio.mp4")
    video(cat / "one.mp4", 1)
    (cat / "text.mp4").write_text("no video here")
    (cat / "empty.mp4").touch()
    (cat / "cut.mp4").write_bytes((cat / "0.mp4").read_bytes()[:900])
    (cat / "noise.mkv").write_bytes(torch.randint(256, (4096,), generator=seeds.generator(0)).to(torch.uint8).numpy())
    video(cat / "words.mkv", 5, meta={"title": "ABCDEFGHIJ"})
    (cat / "words.mkv").write_bytes((cat / "words.mkv").read_bytes().replace(b"ABCDEFGHIJ", b"\xff\xfe\xe9BCDEFG\x80"))
    assert command({"name": "video", "root": str(tmp_path / "root"), "workers": 1, "frames": 2}) == 1
    out = capsys.readouterr().out
    for part in (
        "13 videos in 2 classes",
        "formats: MP4 H.264 6, Matroska H.264 1",
        "bad: 6 of 13",
        "cat/audio.mp4: not a video that can be read (pyav: there is no video in it)",
        "cat/one.mp4: 1 frames, fewer than 2",
        "cat/text.mp4: not a video",
        "cat/empty.mp4: empty file",
        "cat/cut.mp4: it ends too early: 900 of",
        "cat/noise.mkv: not a video",
    ):
        assert part in out, out


def test_real_clips_and_damaged_ones(real_data, capsys):
    source = Video(str(real_data / "videos"), frames=4, stride=2)
    assert source.describe_all().startswith("23 videos without labels")
    assert source[0][0].shape == (3, 4, 480, 640) and source.format(0) == "Matroska H.264"
    assert command({"name": "video", "root": str(real_data / "odd" / "videos"), "workers": 0}) == 1
    assert "bad: 4 of 4" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_any_number_of_workers_and_any_beginning(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "root")
    (tmp_path / "root" / "dog" / "1.mp4").write_bytes(b"broken")
    source = Video(str(tmp_path / "root"), frames=4, stride=2)
    alone = list(Loader(source, OPTIONS, seed=3).batches(0, 7))
    assert sum(len(batch.replaced) for batch in alone) >= 2
    for workers in (1, 2):
        assert all_same(alone, list(Loader(source, OPTIONS | {"workers": workers}, seed=3).batches(0, 7)))
    assert all_same(alone[4:], list(Loader(source, OPTIONS, seed=3).batches(4, 7)))
    assert alone[0].views[0].shape == (2, 3, 4, 16, 16)


def test_training_draws_clips_and_evaluation_does_not(folder):
    source = Video(str(folder), frames=4, stride=2)
    whole = (RandomView(16, (1.0, 1.0), (1.5, 1.5)),)
    drawn, fixed = (Samples(source, whole, 0, drawn=drawn) for drawn in (True, False))
    assert Counter(numbers(fixed[epoch, 2][0].pieces[0])[0] for epoch in range(3)) == {21: 3}
    assert len({numbers(drawn[epoch, 2][0].pieces[0])[0] for epoch in range(5)}) > 2
    first, again = (list(evaluation_batches(source, OPTIONS)) for _ in range(2))
    assert all_same(first, again) and torch.cat([batch.index for batch in first]).tolist() == list(range(6))


def test_all_frames_of_a_clip_share_crop_and_flip(folder):
    view, picture = RandomView(16, (0.3, 1.0), (0.75, 1.35), flip=True), Video(str(folder), frames=4, stride=2)[0][0]
    still = picture[:, :1].expand(-1, 4, -1, -1)
    piece, _ = view.take(still, seeds.generator(1))
    assert all(torch.equal(view.fit(piece)[:, 0], view.fit(piece)[:, t]) for t in range(4))


def test_what_a_worker_gets_can_be_sent_to_a_new_process(folder):
    source = Video(str(folder), frames=4, stride=2)
    before = source[1][0]
    assert torch.equal(pickle.loads(pickle.dumps(source))[1][0], before)
