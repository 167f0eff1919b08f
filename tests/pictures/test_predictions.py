"""What a predictor says of hidden tokens: the numbers, the retrieval, the decoder, the sheet, and who is refused."""

import json

import matplotlib.image
import pytest
import torch
from torch import nn

from jepakit.build import build
from jepakit.config import resolve
from jepakit.errors import ConfigError
from jepakit.jepa import figures_of
from jepakit.pictures import predictions as module
from jepakit.pictures.asked import Answered, Asked, Oracle, answered, oracle, true_tokens
from jepakit.pictures.decoder import fitted, joined, patches
from jepakit.pictures.imagined import imagined
from jepakit.pictures.judged import figures, likest, said
from jepakit.pictures.predictions import command, looked, sheet_of, told
from jepakit.types import Grid
from tests.data.make import labelled

SMALL = ["data.size=32", "data.side=32", "data.length=24", "data.batch_size=8", "data.workers=0"]
SMALL += ["encoder.width=24", "encoder.depth=1", "encoder.heads=2", "predictor.width=16", "predictor.depth=1"]
IMAGES = ["recipe=demo", *SMALL]
CLIPS = ["recipe=demo_video", *SMALL]
CPU = torch.device("cpu")


def asked_of(overrides: list[str]) -> Oracle:
    config = resolve(overrides)
    return oracle(config, figures_of(build(config).jepa), CPU)


def pictures(count: int, t: int = 1) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, t, 32, 32), generator=rng, dtype=torch.uint8)


def known(guess: str) -> Answered:
    """Tokens made up by hand, 6 pictures on a grid of 2 x 3: right guesses, or the mean of the place."""
    grid, rng = Grid(1, 2, 3), torch.Generator().manual_seed(0)
    bank = torch.randn(6, grid.size, 16, generator=rng)
    context, target = torch.tensor([[0, 1]]).expand(6, -1), torch.tensor([[[4, 5], [2, 5]]]).expand(6, -1, -1)
    truth = bank[:, target[0]]
    right = Asked(0, context, target, truth, truth)
    found = Answered(torch.zeros(6, 3, 1, 4, 6, dtype=torch.uint8), grid, bank, (right,))
    answer = truth if guess == "right" else said(found, found.asked[0])["place"]
    return found._replace(asked=(right._replace(guess=answer),))


def test_a_right_guess_is_found_and_the_mean_of_a_place_is_not():
    right, mean = figures(known("right")), figures(known("mean"))
    assert right.tokens == 24 and right.among == 36 and right.chance == {"top1": 1 / 36, "top5": 5 / 36}
    assert right.cosine["prediction"] == pytest.approx(1) and right.found["prediction"] == {"top1": 1.0, "top5": 1.0}
    assert mean.cosine["prediction"] == pytest.approx(mean.cosine["place"]) and mean.cosine["place"] < 0.3
    assert mean.found["prediction"] == mean.found["place"] and mean.found["place"]["top1"] < 0.3


def test_what_needs_no_predictor():
    found = known("right")
    says = said(found, found.asked[0])
    torch.testing.assert_close(says["place"][0, 0, 0], found.bank[1:, 4].mean(0))  # its own picture is left out
    torch.testing.assert_close(says["copy"][0, 0], found.bank[0, [1, 1]])  # 4 and 5 lie below and beside 1
    torch.testing.assert_close(says["mean"][3, 1, 1], found.bank.mean((0, 1)))


def test_the_likest_patch_is_one_of_another_picture():
    bank = torch.eye(6).view(2, 3, 6)
    picture, place = likest(bank[0, 1:2] + 0.1 * bank[1, 2], bank, torch.tensor([0]))
    assert (picture.item(), place.item()) == (1, 2)
    picture, place = likest(bank[0, 1:2], bank, torch.tensor([1]))
    assert (picture.item(), place.item()) == (0, 1)


@pytest.mark.parametrize("grid", [Grid(1, 4, 8), Grid(2, 8, 8)])
def test_patches_are_cut_and_joined_again(grid):
    clips = pictures(2, 4)
    cut = patches(clips, grid)
    assert cut.shape[:2] == (2, grid.size)
    assert torch.equal((joined(cut[1], grid, tuple(clips.shape[1:])) * 255).round().to(torch.uint8), clips[1])
    with pytest.raises(ConfigError, match="cannot be cut"):
        patches(clips, Grid(1, 5, 8))


def test_the_decoder_learns_what_tokens_tell_and_is_always_the_same():
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randn(2000, 6, generator=rng)
    pixels = torch.sigmoid(tokens[:, :3] @ torch.randn(3, 12, generator=rng))
    before = torch.random.get_rng_state()
    first, again = (fitted(tokens[:1500], pixels[:1500]) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first(tokens), again(tokens))
    assert first.explained(tokens[1500:], pixels[1500:]) > 0.9
    assert first.explained(tokens[1500:].flip(0), pixels[1500:]) < 0.1


@pytest.mark.parametrize("overrides", [IMAGES, [*IMAGES, "anti_collapse.ema.mask=input"], CLIPS])
def test_a_model_is_asked_as_in_training(overrides):
    who = asked_of(overrides)
    shown = pictures(10, 1 if overrides is not CLIPS else who.grid.t * 2)
    who.jepa.train()
    before = torch.random.get_rng_state()
    found = answered(who, shown, halves=4)
    assert who.jepa.training and torch.equal(before, torch.random.get_rng_state())
    assert [each.start for each in found.asked] == [0, 8] and found.bank.shape[:2] == (10, who.grid.size)
    (first, _), whole = found.asked, answered(who, shown, halves=4).asked[0]
    assert torch.equal(first.guess, whole.guess) and first.guess.shape == first.truth.shape
    halves = [seen for seen, _ in first.halves]
    assert torch.equal(torch.cat(halves, 1).sort(1).values, first.context.sort(1).values)
    assert all(guess.shape == first.guess.shape for _, guess in first.halves)
    if "anti_collapse.ema.mask=input" not in overrides:
        own = found.bank[:8].gather(1, first.target.flatten(1)[..., None].expand(-1, -1, found.bank.shape[2]))
        torch.testing.assert_close(first.truth.flatten(1, 2), own)


@pytest.mark.parametrize("overrides", [IMAGES, CLIPS])
def test_the_sheet_is_drawn_and_is_always_the_same(overrides, tmp_path, monkeypatch):
    monkeypatch.setattr("jepakit.pictures.asked.MOST", 16)
    monkeypatch.setattr("jepakit.pictures.decoder.STEPS", 100)
    who = asked_of(overrides)
    found = looked(who, 2)
    out = sheet_of(found, tmp_path / "new" / "predictions.png", 1)
    if overrides is IMAGES:
        again = looked(who, 2)
        assert found.figures == again.figures and found.explained == again.explained
        assert out.read_bytes() == sheet_of(again, tmp_path / "again.png", 1).read_bytes()
    image = matplotlib.image.imread(out)
    assert image.shape[1] == 2100 and image.std() > 0.05
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert numbers["pictures"] == 16 and numbers["among"] == 16 * who.grid.size
    assert numbers["explained"]["truth"] > max(numbers["explained"][name] for name in ("place", "mean"))
    assert matplotlib.image.imread(imagined(found.answered, tmp_path / "imagined.png")).std() > 0.05
    lines = told(found)
    assert (
        f"{found.figures.tokens:,} hidden tokens of 16 held-out {'clips' if overrides is CLIPS else 'pictures'}"
        in lines
    )
    with pytest.raises(ConfigError, match="ends in one of .png"):
        sheet_of(found, tmp_path / "predictions.pdf", 2)


@pytest.mark.parametrize("count", [1, 5])
def test_of_few_pictures_without_held_out_ones_none_is_on_both_sides(count, tmp_path, monkeypatch):
    monkeypatch.setattr("jepakit.pictures.decoder.STEPS", 3)
    root = labelled(tmp_path / "pictures", ("one",), count)
    parts = [word for word in SMALL if not word.startswith(("data.side", "data.length"))]
    who = asked_of(["recipe=demo", "data=folder", f"data.root={root}", *parts])
    read = []
    monkeypatch.setattr(module, "true_tokens", lambda who, trained: read.append(trained) or true_tokens(who, trained))
    found = looked(who)
    assert found.own and len(found.answered.pictures) == max(count // 2, 1) and len(read[0]) == count - count // 2
    both = [(a == b).all() for a in found.answered.pictures for b in read[0]]
    assert any(both) == (count == 1)
    assert sheet_of(found, tmp_path / "a.png").is_file() and "that it was trained on" in told(found)[0]


def test_who_fills_nothing_in_is_refused():
    config = resolve(["recipe=vicreg_vitt4_32px", "data=world", *SMALL[:5]])
    with pytest.raises(ConfigError, match="masker 'pair' hides none that predictor 'identity' would be asked for"):
        oracle(config, figures_of(build(config).jepa), CPU)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "needs a run"),
        (["run=x", "sample=3"], "no 'sample' .*did you mean 'samples'"),
        (["run=x", "samples=0"], "samples=0: a whole number from 1 on"),
        (["run=nowhere"], "there is no run"),
    ],
)
def test_mistakes_are_named(argv, said):
    with pytest.raises(ConfigError, match=said):
        command(argv)


class Pyramid(nn.Module):
    """A predictor of two levels, of which the last is looked at."""

    def forward(self, seen, mask, grid, condition=None):
        shape = (*mask.target.shape, 24)
        return torch.zeros(shape), torch.ones(shape)


def test_of_a_pyramid_the_last_level_is_shown():
    who = asked_of(IMAGES)
    who.jepa.predictor = Pyramid()
    found = answered(who, pictures(8), halves=0)
    assert torch.equal(found.asked[0].guess, torch.ones_like(found.asked[0].guess))
