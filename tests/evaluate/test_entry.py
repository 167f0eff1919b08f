import json

import pytest
import yaml

from jepakit import evaluate
from jepakit.catalog import collect
from jepakit.errors import ConfigError, DataError
from jepakit.evaluate import data, entry, probes, table
from jepakit.evaluate.data import divide, same
from jepakit.evaluate.protocol import chosen

from .fakes import DATA, Blocks, Stripes

CONFIG = {"data": DATA | {"root": "train"}, "run": "runs/x", "recipe": None, "seed": 0}


@pytest.fixture
def sources(monkeypatch):
    """Sources by root, instead of folders; what is asked for is what the test says."""
    known = {"train": Stripes(), "other": Stripes(90, seed=5), "more": Stripes(300, seed=9)}
    known |= {"bare": Stripes(30, labelled=False), "foreign": Stripes(100, seed=7)}
    known["foreign"].classes = {"class": ("a", "b", "c")}
    monkeypatch.setattr(data, "open_source", lambda node: known[node["root"]])
    monkeypatch.setattr(data, "override", lambda config, given: config["data"] | given)
    return known


@pytest.fixture
def run(tmp_path, sources, monkeypatch):
    """A run folder whose model is two small backbones."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.setattr(probes, "load", lambda run, config, weights: probes.Models(Blocks(1), Blocks(2), 7))
    monkeypatch.setattr("jepakit.runs.open_run", lambda path: type("Run", (), {"config": CONFIG}))
    return tmp_path


def test_a_run_is_scored_beside_its_controls(run, capsys):
    assert evaluate.command(run, {"protocol": "all", "device": "cpu"}) == 0
    out = capsys.readouterr().out
    for words in ("trained encoder", "random encoder", "raw pixels", "knn", "ridge", "the run's held-out data"):
        assert words in out
    (path,) = (run / "evaluate").glob("knn+ridge-*.json")
    found = json.loads(path.read_text())
    assert [row["name"] for row in found["rows"]] == list(table.ROWS)
    assert found["step"] == 7 and found["weights"] == "target" and found["view"]["size"] == 8
    assert found["protocols"]["knn"]["k"] == 20 and found["test"]["samples"] == 60
    cell = found["rows"][0]["ridge"]
    assert cell["low"] <= cell["score"] <= cell["high"] and cell["test"] == 60 and cell["fit"] == 200
    assert [json.loads(line) for line in (run / "evaluate/results.jsonl").read_text().splitlines()] == [found]
    assert not list((run / "evaluate").glob("*.partial"))


def test_results_are_never_overwritten_and_repeat(run):
    for _ in range(2):
        evaluate.command(run, {"protocol": "knn", "device": "cpu"})
    one, two = (json.loads(path.read_text()) for path in (run / "evaluate").glob("*.json"))
    assert one["rows"] == two["rows"]


def test_bad_samples_are_reported(run, sources, capsys):
    sources["train"].bad = (3, 5)
    evaluate.command(run, {"protocol": "knn", "device": "cpu"})
    assert "2 fit samples could not be read; first: stripes 0/3: made so" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "linaer"}, "did you mean 'linear'"),
        ({"weights": "teacher"}, "target, online"),
        ({"protcol": "knn"}, "did you mean 'protocol'"),
        ({"k": "many"}, "k=many: it must be a whole number"),
        ({"k": 0}, "above 0"),
        ({"device": "cdua"}, "did you mean 'cuda'"),
    ],
)
def test_mistakes_are_named(run, options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate.command(run, options)


def test_unlabelled_data_is_refused(run):
    with pytest.raises(DataError, match="unlabelled"):
        evaluate.command(run, {"data": {"root": "bare"}})


def test_words_of_the_command_line_become_values():
    words = {"limit": "null", "k": "5", "temperature": "0.1", "data": {"root": "x"}}
    common, (knn, ridge), given = entry.read(words, collect())
    assert (common.limit, knn.settings.k, knn.settings.temperature, given) == (None, 5, 0.1, {"root": "x"})
    assert knn.changed == ("k", "temperature") and ridge.changed == ()
    assert knn.stamp()["changed"] == ["k", "temperature"]


def test_fit_and_test_data_come_from_where_they_should(sources):
    def found(given=None, fit_root=None, limit=None):
        return divide(CONFIG, given or {}, fit_root, "class", limit)

    plain = found()
    assert same(plain.fit.source, sources["train"]) and len(plain.test.rows) == 60
    given = found({"root": "other"}, limit=50)
    assert given.fit.source is sources["train"] and given.test.source is sources["other"]
    assert given.test.text == "50 samples of 90, the data given"
    foreign = found({"root": "foreign"})
    assert foreign.fit.source is foreign.test.source is sources["foreign"] and "fixed 80%" in foreign.fit.text
    assert found({"root": "other"}, fit_root="more").fit.source is sources["more"]


def test_test_data_never_fits(sources):
    own = divide(CONFIG, {"root": "train"}, None, "class", None)
    assert not set(own.fit.rows.tolist()) & set(own.test.rows.tolist()) and len(own.fit.rows) == 160
    with pytest.raises(DataError, match="the test data itself"):
        divide(CONFIG, {"root": "other"}, "other", "class", None)
    with pytest.raises(DataError, match="not those of the test data"):
        divide(CONFIG, {"root": "other"}, "foreign", "class", None)


def test_no_better_than_a_control_is_said():
    cell = {"score": 0.5, "low": 0.45, "high": 0.55, "fit": 1, "test": 1}
    good = cell | {"score": 0.7, "low": 0.65, "high": 0.75}
    about = {part: {"text": "", "skipped": []} for part in ("fit", "test")} | {"label": "motion", "classes": 8}
    about |= {"weights": "target", "view": {"size": 8}}
    for first, said in ((good, 0), (cell, 2)):
        rows = [{"name": name, "width": 1, "knn": first if i == 0 else cell} for i, name in enumerate(table.ROWS)]
        outcome = table.result(rows, chosen(collect(), "knn", {}), about)
        assert sum("NOT clearly better" in remark for remark in table.remarks(outcome)) == said
        assert table.remarks(outcome)[0].startswith("top-1 for label motion, one of 8 values: chance is 0.125")


def test_numbers_that_json_cannot_hold_become_null():
    assert table.finite({0.1: [float("nan"), 1.0, {"a": float("inf")}]}) == {"0.1": [None, 1.0, {"a": None}]}
