"""A folder of pictures is a data set, and what is not says so in one line."""

import os
import pickle
from pathlib import Path

import pytest

from jepakit.data import BadSample, open_source
from jepakit.data.folder import Folder, Names
from jepakit.errors import ConfigError, DataError
from tests.data.make import labelled, picture


def names(folder: Folder) -> list[str]:
    return [os.path.relpath(folder.path(i), folder.root) for i in range(len(folder))]


def fails(*words: str, **arguments) -> None:
    with pytest.raises((DataError, ConfigError)) as caught:
        Folder(**arguments).held_out_source()
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), caught.value


def test_classes_are_sub_folders(tmp_path):
    folder = Folder(str(labelled(tmp_path)))
    picture(tmp_path / "cat" / "deep" / "er" / "x.jpeg")
    deeper = Folder(str(tmp_path))
    assert folder.classes == {"class": ("cat", "dog")} and len(folder) == 12 and len(deeper) == 13
    assert names(deeper) == sorted(names(deeper))
    assert deeper[6][1] == {"class": 0} and deeper[7][1] == {"class": 1}
    assert deeper.describe_all() == "13 images in 2 classes"


def test_flat_and_mixed_folders_are_unlabelled(tmp_path):
    for i in range(3):
        picture(tmp_path / "flat" / f"{i}.JPG")
    flat = Folder(str(tmp_path / "flat"))
    assert flat.classes == {} and flat[0][1] == {} and "without labels" in flat.describe_all()
    picture(labelled(tmp_path / "mixed") / "beside.png")
    assert Folder(str(tmp_path / "mixed")).classes == {}


def test_a_lone_sub_folder_is_looked_through(tmp_path):
    labelled(tmp_path / "archive" / "images")
    assert Folder(str(tmp_path)).classes == {"class": ("cat", "dog")}
    picture(tmp_path / "lone" / "only" / "a.png")
    assert Folder(str(tmp_path / "lone")).classes == {}


def test_other_files_are_counted_and_hidden_ones_are_not(tmp_path):
    labelled(tmp_path)
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / "cat" / "README").touch()
    (tmp_path / ".DS_Store").touch()
    picture(tmp_path / ".thumbs" / "a.png")
    folder = Folder(str(tmp_path))
    assert len(folder) == 12 and sum(folder.others.values()) == 2
    assert "2 other files left aside" in folder.describe_all() and ".txt" in folder.describe_all()
    assert len(Folder(str(tmp_path), extensions=["TXT"])) == 1


def test_links_are_followed_but_not_in_circles(tmp_path):
    real = labelled(tmp_path / "real")
    root = tmp_path / "root"
    root.mkdir()
    (root / "cat").symlink_to(real / "cat")
    (root / "dog").symlink_to(real / "dog")
    (real / "cat" / "back").symlink_to(root)
    (real / "dog" / "self.png").symlink_to("self.png")
    folder = Folder(str(root))
    assert len(folder) == 13 and folder.others == {"links to a folder above": 1}
    bad = next(i for i in range(13) if names(folder)[i].endswith("self.png"))
    with pytest.raises(BadSample, match="self.png"):
        folder[bad]


def test_pipes_are_not_opened(tmp_path):
    os.mkfifo(labelled(tmp_path) / "cat" / "pipe.png")
    assert Folder(str(tmp_path)).others == {".png": 1}


def test_odd_names_survive_and_print(tmp_path):
    name = b"new\nline \xff.png"
    picture(tmp_path / "a.png").rename(Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))))
    folder = pickle.loads(pickle.dumps(Folder(str(tmp_path))))
    assert folder[0][0].shape == (3, 1, 20, 24)
    assert folder.describe(0).endswith("new\\nline \\udcff.png") and folder.describe(0).isprintable()
    (tmp_path / os.fsdecode(name)).write_bytes(b"no")
    with pytest.raises(BadSample) as caught:
        folder[0]
    assert str(caught.value).isprintable()


def test_index_out_of_range(tmp_path):
    assert list(Names(["a", "", "ü"])) == ["a", "", "ü"]
    for index in (12, -1):
        with pytest.raises(IndexError):
            Folder(str(labelled(tmp_path)))[index]


def test_missing_empty_and_wrong_places(tmp_path):
    root = labelled(tmp_path / "imagenet")
    fails("imagenette", "did you mean 'imagenet'?", root=str(tmp_path / "imagenette" / "train"))
    fails("is a file", root=str(root / "cat" / "0.png"))
    (tmp_path / "empty").mkdir()
    fails("no picture", ".jpg", root=str(tmp_path / "empty"))
    (tmp_path / "empty" / "a.txt").touch()
    fails("1 other files", ".txt", root=str(tmp_path / "empty"))
    fails("data.held_out", "no 'valid'", root=str(root), held_out=str(tmp_path / "valid"))
    fails("data.root=''", root="")
    fails("no decoder is named 'pilow'", "did you mean 'pillow'?", root=str(root), decoder="pilow")


def test_splits_are_not_classes(tmp_path):
    labelled(tmp_path / "train")
    labelled(tmp_path / "val")
    fails(f"data.root={tmp_path}/train data.held_out={tmp_path}/val", root=str(tmp_path))


def test_held_out(tmp_path):
    train, val = labelled(tmp_path / "train"), labelled(tmp_path / "val", each=2)
    held_out = Folder(str(train), held_out=str(val), max_pixels=450).held_out_source()
    assert held_out is not None and len(held_out) == 4 and held_out.held_out is None
    assert Folder(str(train)).held_out_source() is None
    picture(val / "cow" / "a.png")
    fails("only in", "cow", root=str(train), held_out=str(val))
    picture(tmp_path / "flat" / "a.png")
    fails("scores need classes", root=str(train), held_out=str(tmp_path / "flat"))
    assert Folder(str(tmp_path / "flat"), held_out=str(val)).held_out_source() is not None


def test_opened_by_configuration(tmp_path):
    data = {"name": "folder", "root": str(labelled(tmp_path)), "batch_size": 3, "size": 8, "max_pixels": 200}
    source = open_source(data)
    with pytest.raises(BadSample, match="max_pixels=200"):
        source[0]
    with pytest.raises(ConfigError, match="did you mean 'folder'"):
        open_source({"name": "foldr"})


def test_real_folder(real_data):
    folder = Folder(str(real_data / "cifar10" / "train"), held_out=str(real_data / "cifar10" / "val"))
    assert folder.describe_all() == "10,000 images in 10 classes"
    assert folder[0][0].shape == (3, 1, 32, 32) and len(folder.held_out_source()) == 2000
