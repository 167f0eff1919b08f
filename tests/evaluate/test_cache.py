"""Features are extracted once: the same again, others for whatever they depend on, and no harm by damage."""

import json

import pytest
import torch

from jepakit import evaluate
from jepakit.evaluate import cache, probes
from jepakit.evaluate.data import Part
from jepakit.evaluate.features import Extracted, Reading, extract

from .fakes import DATA, Blocks, Stripes
from .test_entry import run, sources  # noqa: F401 (fixtures)

READING = Reading(DATA)


def part(source=None, count: int = 20) -> Part:
    return Part(source or Stripes(), torch.arange(count), "")  # type: ignore[arg-type]


def counted(calls: list) -> Extracted:
    calls.append(1)
    return extract(Blocks(), Stripes(20), READING)._replace(skipped=("a: bad",), widths=(16,))


def test_what_is_kept_is_the_same_again(tmp_path):
    kept, calls = cache.Cache(tmp_path / "f", 1.0), []
    first, second = (kept({"a": 1}, lambda: counted(calls)) for _ in range(2))
    assert len(calls) == 1 and torch.equal(first.x, second.x)
    assert (second.skipped, second.widths) == (("a: bad",), (16,)) and torch.equal(first.index, second.index)
    kept({"a": 2}, lambda: counted(calls))
    assert len(calls) == 2


def test_the_oldest_goes_first_and_nothing_is_kept_beyond_the_limit(tmp_path):
    size = 20 * 16 * 4 / 2**30
    kept, calls = cache.Cache(tmp_path, 3.4 * size), []
    for number in (1, 2, 1, 3, 1):
        kept({"a": number}, lambda: counted(calls))
    assert len(calls) == 3 and len(list(tmp_path.glob("*.safetensors"))) <= 2
    cache.Cache(tmp_path / "none", 0.5 * size)({"a": 1}, lambda: counted(calls))
    cache.Cache(tmp_path / "none", 0.0)({"a": 1}, lambda: counted(calls))
    assert not (tmp_path / "none").exists() and len(calls) == 5


def test_damage_is_said_and_mended(tmp_path, capsys):
    kept, calls = cache.Cache(tmp_path, 1.0), []
    kept({}, lambda: counted(calls))
    (file,) = tmp_path.glob("*.safetensors")
    for broken in (file.read_bytes()[:100], b"", b"x" * 500):
        file.write_bytes(broken)
        assert torch.equal(kept({}, lambda: counted(calls)).x, counted([]).x)
        assert "is damaged" in capsys.readouterr().err
    assert len(calls) == 4


def test_a_folder_that_cannot_be_written_loses_no_score(tmp_path, capsys):
    (tmp_path / "f").write_text("a file in the way")
    assert len(cache.Cache(tmp_path / "f", 1.0)({}, lambda: counted([])).y) == 20
    assert "features are not kept" in capsys.readouterr().err


def test_whatever_features_depend_on_is_another_key(tmp_path):
    def digest(what="layers", where=None, reading=READING, weights=""):
        return cache.digest(cache.key(what, where or part(), reading, weights))

    file = tmp_path / "a.png"
    file.write_bytes(b"1")

    class Files(Stripes):
        def describe(self, index):
            return str(file)

    others = [digest(), digest("tokens"), digest(weights="w"), digest(where=part(count=19))]
    others += [digest(where=part(Stripes(seed=5))), digest(where=part(Files()))]
    changes = [{"precision": "bf16"}, {"clips": 2}, {"label": "x"}, {"data": DATA | {"size": 16}}, {"alone": True}]
    others += [digest(reading=READING._replace(**change)) for change in changes]
    file.write_bytes(b"22")
    others.append(digest(where=part(Files())))
    assert len(set(others)) == len(others)
    assert digest(reading=READING._replace(memory=3.0, data=DATA | {"batch_size": 3, "workers": 2})) == digest()


def test_weights_are_told_apart_by_every_bit():
    one, other = Blocks(1), Blocks(1)
    assert cache.weights(one) == cache.weights(other)
    other.weight.data.view(torch.int32)[0, 0] ^= 1
    assert cache.weights(one) != cache.weights(other)


@pytest.mark.parametrize("limit", [2.0, 0.0])
def test_a_second_evaluation_reads_nothing_that_was_read(run, monkeypatch, limit):  # noqa: F811
    reads = []
    plain = probes.layers
    monkeypatch.setattr(probes, "layers", lambda *given: (reads.append(1), plain(*given))[1])
    for protocol in ("knn", "ridge"):
        evaluate.command(run, {"protocol": protocol, "device": "cpu", "cache": limit})
    assert len(reads) == (4 if limit else 8)
    lines = [json.loads(line) for line in (run / "evaluate/results.jsonl").read_text().splitlines()]
    assert lines[0]["rows"][0]["knn"]["test"] == lines[1]["rows"][0]["ridge"]["test"]
