"""The parts of a page, without a run."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from jepakit.evaluate.remarks import as_good
from jepakit.pictures import page
from jepakit.pictures.look import LOOK
from jepakit.pictures.scored import drawn
from tests.pictures.html import Page, checked

NASTY = "<script>alert('a & b')</script> \u00fc\u732b\""


def test_whatever_is_given_is_escaped(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    blocks = [
        page.title(NASTY),
        page.paragraph(NASTY),
        page.card("good", NASTY, [NASTY]),
        page.code([NASTY]),
        page.bullets([NASTY]),
        page.commands([(NASTY, NASTY)]),
        page.facts({NASTY: [NASTY, NASTY]}),
        page.table([NASTY], [[NASTY, NASTY]], NASTY),
        page.details(NASTY, [page.heading(NASTY)]),
        page.figure(tmp_path / "a.png", NASTY, NASTY),
    ]
    for block in blocks:
        found = Page(block)
        assert found.faults == [] and not found.all("script")
        assert NASTY in "".join(word for words in found.words.values() for word in words)
    assert Page(blocks[-1]).all("img")[0]["alt"] == NASTY


def test_a_page_of_sections(tmp_path):
    out = tmp_path / "a.html"
    parts = [page.Section(name, NASTY, [page.heading("one"), page.paragraph("two")]) for name in ("a", "b")]
    out.write_text(page.page(NASTY, [page.title("run")], parts), "utf-8")
    found = checked(out)
    assert found.words["title"] == [NASTY] and found.words["h2"] == ["Contents", NASTY, NASTY]
    assert {"charset": "utf-8"} in found.all("meta") and found.all("html") == [{"lang": "en"}]


def test_the_look_has_night_paper_and_phones():
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem", "break-inside: avoid"):
        assert rule in LOOK
    assert LOOK.count("{") == LOOK.count("}")
    for name in LOOK.split("var(")[1:]:
        assert f"{name.partition(')')[0]}:" in LOOK


@pytest.mark.parametrize(("noise", "kind"), [(False, "image/png"), (True, "image/webp")])
def test_heavy_pictures_are_made_lighter(noise, kind, tmp_path):
    rng = np.random.default_rng(0)
    dots = rng.integers(0, 256, (400, 500, 3), dtype=np.uint8) if noise else np.zeros((400, 500, 3), np.uint8)
    Image.fromarray(dots).save(tmp_path / "a.png")
    (image,) = Page(page.figure(tmp_path / "a.png", "words", "words")).all("img")
    head, _, data = image["src"].partition(";base64,")
    assert head == f"data:{kind}" and image["width"] == "160"
    with Image.open(io.BytesIO(base64.b64decode(data))) as read:
        assert read.size == (500, 400)


def test_what_moves_goes_on_moving(tmp_path):
    frames = [Image.new("RGB", (30, 20), (shade, 0, 0)) for shade in (0, 90, 180)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    (image,) = Page(page.figure(tmp_path / "a.webp", "words", "words")).all("img")
    assert (image["width"], image["height"]) == ("30", "20")
    assert base64.b64decode(image["src"].partition(",")[2]) == (tmp_path / "a.webp").read_bytes()


def test_an_interval_is_drawn_where_there_is_one():
    found = Page(drawn({"score": 0.5, "low": 0.25, "high": 0.75}, 1.0))
    (dot,) = found.all("circle")
    span = next(line for line in found.all("line") if line["class"] == "span")
    assert [float(each) for each in (span["x1"], dot["cx"], span["x2"])] == [53.0, 100.0, 147.0]
    assert drawn({"score": None}, 1.0) == "" and drawn({"score": float("nan")}, 1.0) == ""
    (dot,) = Page(drawn({"score": 3.0, "low": None, "high": None}, 2.0)).all("circle")
    assert float(dot["cx"]) == 194.0


@pytest.mark.parametrize(
    ("trained", "control", "lower", "found"),
    [
        ({"low": 0.5, "high": 0.6}, {"low": 0.3, "high": 0.4}, False, False),
        ({"low": 0.5, "high": 0.6}, {"low": 0.3, "high": 0.5}, False, True),
        ({"low": 0.5, "high": 0.6}, {"low": 0.7, "high": 0.8}, True, False),
        ({"low": 0.5, "high": 0.7}, {"low": 0.6, "high": 0.8}, True, True),
        ({"low": 0.5, "high": 0.7}, {"low": 0.6, "high": 0.8, "ahead": {"low": 0.01}}, True, False),
        ({"low": 0.5, "high": 0.6}, {"low": 0.7, "high": 0.8, "ahead": {"low": -0.01}}, True, True),
        ({"low": None, "high": None}, {"low": 0.3, "high": 0.4}, False, False),
    ],
)
def test_a_control_that_is_as_good_is_found(trained, control, lower, found):
    assert as_good(trained, control, lower) == found
