"""``jepakit data check`` finds what a run would stumble over."""

from collections import Counter

from jepakit.data.check import command, listed
from tests.data.make import bomb, labelled, picture


def test_good_data(tmp_path, capsys):
    labelled(tmp_path)
    assert command({"name": "folder", "root": str(tmp_path), "workers": 0}) == 0
    out = capsys.readouterr().out
    for part in ("12 images in 2 classes", "formats: PNG 12", "20 x 18 1", "classes: cat 6, dog 6", "bad: none"):
        assert part in out


def test_bad_data_is_listed_with_reasons(tmp_path, capsys):
    labelled(tmp_path)
    picture(tmp_path / "cat" / "x.png", format="JPEG")
    bomb(tmp_path / "cat" / "bomb.png")
    (tmp_path / "dog" / "[red]empty.jpg").touch()
    assert command({"name": "folder", "root": str(tmp_path), "workers": 2}) == 1
    out = capsys.readouterr().out
    for part in (
        "formats: PNG 12, JPEG 1",
        "bad: 2 of 15 (13.33%)",
        f"{tmp_path}/cat/bomb.png: 60000 x 60000 pixels",
        f"{tmp_path}/dog/[red]empty.jpg: empty file",
    ):
        assert part in out


def test_held_out_is_checked_too(tmp_path, capsys):
    labelled(tmp_path / "train")
    labelled(tmp_path / "val", each=1)
    (tmp_path / "val" / "cat" / "x.png").touch()
    data = {"name": "folder", "root": str(tmp_path / "train"), "held_out": str(tmp_path / "val"), "workers": 1}
    assert command(data) == 1
    assert "held out:\n3 images in 2 classes" in capsys.readouterr().out


def test_any_source(capsys):
    assert command({"name": "world", "length": 20, "side": 8, "workers": 0}) == 0
    assert "sizes: 8 x 8 20" in capsys.readouterr().out


def test_many_kinds_show_both_ends():
    assert listed(Counter(a=1, b=2)) == "b 2, a 1"
    text = listed(Counter({f"k{i}": 100 - i for i in range(50)}))
    assert text.startswith("50 kinds: k0 100, ") and text.endswith("..., k47 53, k48 52, k49 51")


def test_real_odd_files(real_data, capsys):
    assert command({"name": "folder", "root": str(real_data / "odd" / "images"), "workers": 1}) == 1
    out = capsys.readouterr().out
    bad = [line.split("/")[-1].split(":")[0] for line in out.splitlines() if line.startswith("  ")]
    for name in ("zero_bytes.jpg", "not_an_image.jpg", "truncated_half.jpg", "bomb_60000x60000.png"):
        assert name in bad
    for name in ("alpha.png", "cmyk.jpg", "wrong_suffix.png", "one_pixel.png", "sliver_2000x3.png"):
        assert name not in bad
