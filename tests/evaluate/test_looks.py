"""Several clips of a video and several views of a clip: what is read, what is averaged, what is written down."""

import json

import pytest
import torch
from torch import Tensor, nn

from jepakit import evaluate
from jepakit.catalog import collect
from jepakit.data.views import SideView, middle_view, side_views
from jepakit.errors import ConfigError
from jepakit.evaluate import entry, recorded
from jepakit.evaluate.attentive import Probe, accuracy
from jepakit.evaluate.controls import pixel_tokens
from jepakit.evaluate.features import Extracted, Reading, extract, raw_pixels, tokens

from .fakes import DATA, Blocks, Stripes
from .test_entry import run, sources  # noqa: F401 (fixtures)


class Reels(Stripes):
    """Videos twice as wide as high; clip i of a video is brighter by 10 i."""

    def several(self, index: int, count: int, rng: torch.Generator | None = None) -> tuple[tuple[Tensor, ...], dict]:
        picture, labels = super().__getitem__(index)
        wide = torch.cat([picture, picture.flip(-1)], -1)
        return tuple(wide // 2 + 10 * clip for clip in range(count)), labels

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int]]:
        (clip,), labels = self.several(index, 1)
        return clip, labels


READING = Reading(DATA, views=side_views(8, 3), clips=2)


def looks(index: int) -> list[Tensor]:
    """The normalised views of two clips of a video, written out."""
    clips, _ = Reels().several(index, 2)
    return [((clip[..., left : left + 8] / 255 - 0.5) / 0.25)[None] for clip in clips for left in (0, 4, 8)]


def test_vectors_are_means_over_clips_and_views():
    rows, backbone = torch.tensor([7, 3, 4]), Blocks().eval()
    found = extract(backbone, Reels(), READING, rows)
    expected = [torch.cat([backbone(each).mean(1) for each in looks(i)]).mean(0) for i in (7, 3, 4)]
    torch.testing.assert_close(found.x, torch.stack(expected))
    bare = [torch.cat([(each * 0.25 + 0.5).flatten(1) for each in looks(i)]).mean(0) for i in (7, 3, 4)]
    torch.testing.assert_close(raw_pixels(Reels(), READING, rows, side=8).x, torch.stack(bare))
    one = Reading(DATA | {"batch_size": 1}, views=side_views(8, 3), clips=2)
    torch.testing.assert_close(found.x, extract(backbone, Reels(), one, rows).x)


@pytest.mark.parametrize("across", [True, False])
def test_tokens_stay_apart_by_view_and_follow_one_another_by_clip(across):
    backbone, reading = Blocks().eval(), READING._replace(across=across)
    seen = [backbone(each) for each in looks(5)]  # clip by clip
    clips = [torch.cat([seen[view], seen[3 + view]], 1) for view in range(3)] if across else None
    expected = torch.cat(clips or [seen[clip * 3 + view] for view in range(3) for clip in (0, 1)])
    found = tokens(backbone, Reels(), reading, torch.tensor([5, 6]))
    assert found.x.shape == ((2, 3, 32, 16) if across else (2, 6, 16, 16)) and found.x.dtype == torch.float16
    torch.testing.assert_close(found.x[0], expected.half())
    assert pixel_tokens(backbone, Reels(), reading, torch.tensor([5, 6])).x.shape[:3] == found.x.shape[:3]
    one = tokens(backbone, Reels(), reading._replace(views=(middle_view(8, 3),)), torch.tensor([5]))
    assert one.x.shape == ((1, 32, 16) if across else (1, 2, 16, 16))


def test_a_bad_video_is_left_out_whole():
    class Torn(Reels):
        def several(self, index: int, count: int, rng: torch.Generator | None = None) -> tuple:
            if index == 1:
                Stripes(9, bad=(1,))[1]
            return super().several(index, count, rng)

    found, whole = (extract(Blocks(), source, READING) for source in (Torn(6), Reels(6)))
    assert found.index.tolist() == [0, 2, 3, 4, 5] and found.skipped == ("stripes 0/1: made so",)
    torch.testing.assert_close(found.x, whole.x[found.index])


class First(Probe):
    """Its logits are the first token."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


def test_the_mean_of_probabilities_counts():
    x = torch.zeros(3, 3, 1, 2)
    x[0, :, 0] = torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # sure of 0 once, two guesses at 1
    x[1, :, 0] = torch.tensor([[20.0, 0.0], [0.0, 5.0], [0.0, 5.0]])  # sure of 0 once, and twice of 1
    x[2, 1, 0, 1] = torch.nan
    part = Extracted(x, torch.tensor([0, 1, 0]), torch.arange(3))
    for batch_size in (1, 4, 100):
        assert accuracy(First(), part, batch_size) == pytest.approx(2 / 3)
    mean = part._replace(x=x.mean(1))
    assert accuracy(First(), mean, 128) == pytest.approx(1 / 3)  # the mean of logits would not tell
    assert accuracy(First(), part._replace(x=x[:, 1]), 128) == pytest.approx(1 / 3)


def test_views_lie_from_end_to_end():
    assert side_views(8, 1) == (middle_view(8, 1),) and len(side_views(8, 4)) == 4
    assert middle_view(8, 3) == SideView(8, 1, 3)


# The command --------------------------------------------------------------------------------------------------------


def result(run, options) -> dict:  # noqa: F811
    evaluate.command(run, {"device": "cpu", **options})
    return json.loads((run / "evaluate" / "results.jsonl").read_text().splitlines()[-1])


@pytest.fixture
def reels(sources, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sources, "train", Reels(60))
    monkeypatch.setattr(Reels, "held_out_source", lambda self: Reels(30, seed=1))


def test_results_say_how_samples_were_looked_at(run, reels, capsys):  # noqa: F811
    plain, several = result(run, {"protocol": "knn"}), result(run, {"protocol": "all", "clips": 2, "views": 3})
    assert (plain["clips"], plain["views"]) == (1, 1) and "clips" not in plain["protocols"]["knn"]
    assert (several["clips"], several["views"]) == (2, 3)
    assert all(several["protocols"][name]["clips"] == 2 for name in ("knn", "ridge"))
    assert "2 clips x 3 views of each sample: their features are averaged" in capsys.readouterr().out
    assert several["test"]["samples"] == several["rows"][0]["knn"]["test"] == 30  # videos, not clips
    assert len(several["rows"]) == 3 and several["rows"][0]["knn"]["score"] != plain["rows"][0]["knn"]["score"]


@pytest.mark.parametrize("across", [True, False])
def test_an_attentive_probe_answers_for_all_views(run, reels, across, capsys):  # noqa: F811
    words = {"protocol": "attentive", "clips": 2, "views": "3", "across": across}
    words |= {"epochs": 1, "lrs": [3e-3]}
    found = result(run, words)
    about = found["protocols"]["attentive"]
    assert (about["clips"], about["views"], about["across"]) == (2, 3, across)
    said = "views of all clips at once" if across else "clips and views"
    assert f"the answers for its {said} are averaged" in capsys.readouterr().out


def test_results_of_before_there_were_clips_stay_comparable(run, reels):  # noqa: F811
    line = result(run, {"protocol": "knn"})
    old = {key: value for key, value in line.items() if key not in ("clips", "views", "across")}
    now, before = (recorded._score(each, "knn") for each in (line, old))
    assert now == before
    several = recorded._score(result(run, {"protocol": "knn", "clips": 2}), "knn")
    assert several.how["protocol"] != now.how["protocol"] and several.how["test"] == now.how["test"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": 2}, "clips=2: the data has one of each sample; data=video chooses several"),
        ({"clips": 0}, "above 0"),
        ({"views": "many"}, "views=many: it must be a whole number"),
        ({"protocol": "attentive", "across": "perhaps"}, "across=perhaps: it must be true or false"),
        ({"clip": 2}, "did you mean 'clips'"),
    ],
)
def test_mistakes_are_named(run, options, message):  # noqa: F811
    with pytest.raises(ConfigError, match=message):
        evaluate.command(run, options)


@pytest.mark.parametrize("word", ["False", False])
def test_words_become_switches(word):
    _, (found,), _ = entry.read({"protocol": "attentive", "across": word}, collect())
    assert found.settings.across is False
