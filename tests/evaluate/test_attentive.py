"""The attentive probe: what it can tell, that it is the published function, and its table."""

import dataclasses
import json
import math

import pytest
import torch
from torch.nn import functional as F

from jepakit import evaluate
from jepakit.catalog import collect
from jepakit.errors import ConfigError, DataError
from jepakit.evaluate import entry, table
from jepakit.evaluate.attentive import Probe, Settings, fitting, fresh, learn, probed
from jepakit.evaluate.controls import frame_difference, mean_frame, pixel_tokens
from jepakit.evaluate.features import Extracted, Reading, extract, moving, tokens
from jepakit.evaluate.protocol import chosen

from .fakes import DATA, Blocks, Stripes
from .test_entry import run, sources  # noqa: F401 (fixtures)

CLASSES = 4
QUICK = {"epochs": 2, "lrs": "1e-3,3e-3", "weight_decays": [0.01], "device": "cpu"}
FILE = chosen(collect(), "attentive", {})[0]


def settings(**own) -> Settings:
    """Those of the file, but for some."""
    return dataclasses.replace(FILE.settings, **own)


def hidden(count: int, seed: int, places: int = 9, width: int = 16) -> Extracted:
    """A sample's class is written into one token, at a random place and in pairs whose mean over classes is nought.

    Each of the other tokens carries a decoy of another channel, so that their mean drowns what the one token says.
    """
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    x = 3 * torch.randn(count, places, width, generator=rng)
    x[..., 0] = 0
    place, rows = torch.randint(places, (count,), generator=rng), torch.arange(count)
    x[rows, place] = 3 * F.one_hot(1 + y, width).float()
    x[rows, place, 0] = 6.0  # look here
    return Extracted(x.half(), y, rows)


def test_it_finds_a_token_that_the_mean_drowns():
    train, test = hidden(600, 0), hidden(300, 1)
    found = probed(train, test, CLASSES, settings(epochs=8, batch_size=32, lrs=(3e-3, 1e-4), weight_decays=(0.01,)))
    ridge = chosen(collect(), "ridge", {})[0]
    pooled = ridge.score(*(each._replace(x=each.x.float().mean(1)) for each in (train, test)), CLASSES, ridge.settings)
    assert found.score > 0.9 and pooled["score"] < 0.6
    assert found.lr == 3e-3 and [each["lr"] for each in found.tried] == [3e-3, 1e-4]
    assert found.tried[0]["held_out"] > found.tried[1]["held_out"]


def plain(probe: Probe, x: torch.Tensor, heads: int, key_bias: torch.Tensor) -> torch.Tensor:
    """The formula as it is published, sample by sample and head by head."""
    pool, width = probe.pool, x.shape[-1]
    for block in probe.blocks:
        seen = F.layer_norm(x, (width,), block.norm1.weight, block.norm1.bias)
        q, k, v = F.linear(seen, block.self_attn.in_proj_weight, block.self_attn.in_proj_bias).chunk(3, -1)
        x = x + block.self_attn.out_proj(heads_of(q, k, v, heads))
        x = x + block.linear2(F.gelu(block.linear1(F.layer_norm(x, (width,), block.norm2.weight, block.norm2.bias))))
    seen = F.layer_norm(x, (width,), pool.scale, pool.shift)
    query = pool.token.expand(len(x), 1, width)
    y = query + heads_of(pool.query(query), pool.key(seen) + key_bias, pool.value(seen), heads)
    y = y + pool.mlp(F.layer_norm(y, (width,), pool.norm.weight, pool.norm.bias))
    return probe.head(y[:, 0])


def heads_of(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    parts = []
    for a, b, c in zip(*(each.chunk(heads, -1) for each in (q, k, v)), strict=True):
        parts.append((a @ b.mT / math.sqrt(a.shape[-1])).softmax(-1) @ c)
    return torch.cat(parts, -1)


@pytest.mark.parametrize("depth", [1, 4])
def test_it_is_the_published_function(depth):
    rng = torch.Generator().manual_seed(0)
    probe = fresh(12, 5, 3, depth, 0).double()
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    x = torch.randn(4, 7, 12, generator=rng, dtype=torch.float64)
    expected = plain(probe, x, 3, torch.randn(12, generator=rng, dtype=torch.float64))
    torch.testing.assert_close(probe(x), expected, rtol=1e-11, atol=1e-11)


def test_probes_side_by_side_are_those_that_learn_alone():
    how, part = settings(epochs=1, batch_size=16), hidden(40, 0)
    together = learn(part, CLASSES, 2, how, [(1e-3, 0.1), (1e3, 0.1), (3e-3, 0.4)])  # the second one bursts
    for probe, rates in ((together[0], (1e-3, 0.1)), (together[2], (3e-3, 0.4))):
        (alone,) = learn(part, CLASSES, 2, how, [rates])
        for a, b in zip(probe.parameters(), alone.parameters(), strict=True):
            assert torch.equal(a, b) and not torch.equal(a, fresh(16, CLASSES, 2, 1, 0).pool.key.weight)


def test_it_is_deterministic_chooses_without_the_test_samples_and_leaves_no_trace():
    how, train = settings(epochs=1, lrs=(1e-2, 1e-3), weight_decays=(0.1,)), hidden(120, 0)
    before = torch.random.get_rng_state()
    one, two, other = (probed(train, hidden(60, seed), CLASSES, how) for seed in (1, 1, 2))
    assert one == two and one.tried == other.tried
    assert torch.equal(before, torch.random.get_rng_state())
    assert probed(train, hidden(60, 1), CLASSES, dataclasses.replace(how, seed=1)).tried != one.tried


def test_what_cannot_be_scored_is_refused():
    part = hidden(40, 0)
    with pytest.raises(DataError, match="40 of 40 test samples are not finite"):
        probed(part, part._replace(x=part.x * torch.inf), CLASSES, FILE.settings)
    with pytest.raises(DataError, match="fewer than two classes"):
        probed(part._replace(y=part.y * 0), part, CLASSES, FILE.settings)


def test_a_grid_of_one_chooses_nothing_and_heads_divide_the_width():
    found = probed(hidden(40, 0), hidden(40, 1), CLASSES, settings(epochs=1, lrs=(1e-3,), weight_decays=(0.1,)))
    assert (found.lr, found.weight_decay, found.tried) == (1e-3, 0.1, [])
    assert [fitting(*each) for each in ((192, 3), (60, 8), (7, 3), (768, None), (16, None))] == [3, 6, 1, 12, 1]
    about = chosen(collect(), "attentive", {"depth": 4})[0].stamp()
    assert about["version"] == 1 and about["depth"] == 4 and json.loads(json.dumps(about)) == about


# What it reads ------------------------------------------------------------------------------------------------------


class Clips(Stripes):
    """Stripes of which each of four frames is brighter than the one before."""

    def __getitem__(self, index):
        picture, labels = super().__getitem__(index)
        return torch.cat([picture // 2 + 20 * t for t in range(4)], 1), labels


def test_tokens_are_those_whose_mean_is_scored_elsewhere():
    rows = torch.tensor([3, 5])
    found, mean = (read(Blocks(), Stripes(9), Reading(DATA), rows) for read in (tokens, extract))
    assert found.x.shape == (2, 16, Blocks.width) and found.x.dtype == torch.float16
    torch.testing.assert_close(found.x.float().mean(1), mean.x, rtol=1e-3, atol=1e-3)
    skipping = tokens(Blocks(), Stripes(9, bad=(3,)), Reading(DATA), rows)
    assert skipping.index.tolist() == [5] and torch.equal(skipping.x, found.x[1:])


def test_more_than_the_memory_is_refused():
    with pytest.raises(
        DataError, match=r"200 samples \(16 x 16, float16\) take .* set limit= so that no more than 19 "
    ):
        tokens(Blocks(), Stripes(), Reading(DATA, memory=10_000 / 2**30))


def test_a_patch_of_raw_pixels_is_its_pixels_and_its_place():
    found = pixel_tokens(Blocks(), Stripes(3), Reading(DATA)).x
    picture = (Stripes(3)[1][0] / 255 - 0.5) / 0.25
    assert found.shape == (3, 16, 12 + 12) and len(found[0, :, 12:].unique(dim=0)) == 16
    torch.testing.assert_close(found[1, 5, :12].float(), picture[:, 0, 2:4, 2:4].flatten(), rtol=1e-2, atol=1e-2)


def test_controls_of_clips_see_what_they_should():
    clip, reading = Clips(3)[1][0][None].float(), Reading(DATA)
    assert moving(Clips(3), reading, torch.tensor([2])) and not moving(Stripes(3), reading, torch.tensor([2]))
    torch.testing.assert_close(mean_frame(clip), clip.sum(2, keepdim=True) / 4)
    assert frame_difference(clip).unique().tolist() == [20]
    still, change, all_ = (pixel_tokens(Blocks(), Clips(3), reading, change=c).x for c in CHANGES)
    assert still.shape == (3, 16, 24) and change.shape == all_.shape == (3, 64, 24)
    torch.testing.assert_close(change[..., :12], torch.full((3, 64, 12), 20 / 255 / 0.25).half(), rtol=1e-2, atol=1e-2)


CHANGES = (mean_frame, frame_difference, None)


# The command --------------------------------------------------------------------------------------------------------


def test_a_table_with_controls_and_what_was_chosen(run, capsys):  # noqa: F811
    assert evaluate.command(run, {"protocol": "attentive", **QUICK}) == 0
    out = capsys.readouterr().out
    assert "attentive: trained encoder with lr" in out and "best of 2 on held-out fit samples" in out
    (path,) = (run / "evaluate").glob("attentive-*.json")
    found = json.loads(path.read_text())
    assert [row["name"] for row in found["rows"]] == list(table.ROWS)
    assert found["protocols"]["attentive"]["lrs"] == [1e-3, 3e-3] and found["protocols"]["attentive"]["epochs"] == 2
    cell = found["rows"][0]["attentive"]
    assert cell["low"] <= cell["score"] <= cell["high"] and (cell["fit"], cell["test"]) == (200, 60)
    assert cell["lr"] in (1e-3, 3e-3) and cell["weight_decay"] == 0.01 and len(cell["tried"]) == 2


@pytest.mark.parametrize(("lr", "edge"), [(1e-3, False), (1e-4, True)])
def test_a_grid_that_may_be_too_small_is_said(lr, edge):
    tried = [{"lr": each, "weight_decay": 0.1, "held_out": 0.5} for each in (1e-2, 1e-3, 1e-4)]
    cell = {"score": 0.5, "low": 0.4, "high": 0.6, "lr": lr, "weight_decay": 0.1, "tried": tried}
    about = {part: {"text": "", "skipped": []} for part in ("fit", "test")} | {"label": "class", "classes": 9}
    about |= {"weights": "target", "view": {"size": 8}}
    rows = [{"name": name, "attentive": cell} for name in table.ROWS]
    said = table.remarks(table.result(rows, [FILE], about))
    assert sum("edge of the grid" in remark for remark in said) == edge * len(rows)


@pytest.mark.parametrize("protocol", ["attentive", "ridge"])
def test_clips_have_two_more_rows(run, sources, protocol, monkeypatch):  # noqa: F811
    sources["train"] = Clips(40)
    monkeypatch.setattr(Clips, "held_out_source", lambda self: Clips(20, seed=1))
    evaluate.command(run, {"protocol": protocol, **(QUICK if protocol == "attentive" else {})})
    (path,) = (run / "evaluate").glob("*.json")
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == [*table.ROWS, *table.CLIP_ROWS]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lrs": "1e-3,fast"}, "lrs=fast: it must be a number"),
        ({"lrs": "0"}, "above 0"),
        ({"lrs": []}, "must be a number"),
        ({"weight_decays": "-1"}, "not be below 0"),
        ({"depht": 4}, "did you mean 'depth'"),
        ({"protocol": "atentive"}, "did you mean 'attentive'"),
    ],
)
def test_mistakes_are_named(run, options, message):  # noqa: F811
    with pytest.raises(ConfigError, match=message):
        evaluate.command(run, {"protocol": "attentive"} | options)


def test_unlabelled_data_is_refused(run):  # noqa: F811
    with pytest.raises(DataError, match="unlabelled"):
        evaluate.command(run, {"protocol": "attentive", "data": {"root": "bare"}})


def test_words_of_the_command_line_become_lists():
    words = {"protocol": "attentive", "lrs": "[1e-3, 3e-4]", "weight_decays": 0.1, "heads": "null"}
    _, (found,), _ = entry.read(words, collect())
    assert found.settings == settings(lrs=(1e-3, 3e-4), weight_decays=(0.1,), heads=None)
