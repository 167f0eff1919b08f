"""Protocols are files: what they say, what they may be like, what is stamped, and what is refused."""

import json

import pytest

from jepakit import evaluate
from jepakit.catalog import collect
from jepakit.errors import ConfigError
from jepakit.evaluate import entry
from jepakit.evaluate.protocol import KINDS, chosen, listed, load

from .test_entry import run, sources  # noqa: F401 (fixtures)

CATALOG = collect()
NAMES = CATALOG.names("protocol")


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_whole_and_its_stamp_says_all(name):
    found = load(CATALOG, name)
    stamp = json.loads(json.dumps(found.stamp()))
    assert stamp["protocol"] == name and stamp["kind"] in KINDS and stamp["version"] >= 1
    assert callable(found.score) and "measure" in stamp and "changed" not in stamp
    assert found.reads in entry.TABLES


def test_all_are_known_by_name():
    asked = {"knn", "ridge", "logistic", "linear", "linear_ijepa", "attentive", "count", "distance", "flow"}
    assert asked | {"lowshot", "finetune", "segment", "depth"} <= set(NAMES)
    assert [each.name for each in chosen(CATALOG, "all", {})] == ["knn", "ridge"]
    assert [each.name for each in chosen(CATALOG, "knn,ridge,knn", {})] == ["knn", "ridge"]
    assert listed("[knn, linear]") == listed(["knn", "linear"]) == ["knn", "linear"]
    assert (load(CATALOG, "count").label, load(CATALOG, "distance").label) == ("count", "distance_bin")
    assert load(CATALOG, "count").settings == load(CATALOG, "linear").settings


def test_one_of_ones_own(tmp_path, run):  # noqa: F811
    (tmp_path / "mine.yaml").write_text("like: knn\nversion: 7\nk: 5\n")
    found = load(CATALOG, str(tmp_path / "mine.yaml"))
    assert (found.name, found.kind, found.version, found.settings.k) == ("mine", "knn", 7, 5)
    assert found.settings.temperature == load(CATALOG, "knn").settings.temperature
    evaluate.command(run, {"protocol": str(tmp_path / "mine.yaml"), "device": "cpu"})
    line = json.loads((run / "evaluate/results.jsonl").read_text())
    assert line["protocols"]["mine"]["version"] == 7 and line["rows"][0]["mine"]["test"] == 60
    assert (line["protocols"]["mine"]["encoder"], line["protocols"]["mine"]["resolution"]) == ("target", 8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\n", "kind=None; there are: knn"),
        ("kind: kn\nversion: 1\n", "did you mean 'knn'"),
        ("like: knn\n", "it needs a version"),
        ("kind: knn\nversion: 1\nk: 5\n", "it does not say layer, temperature; like=NAME"),
        ("like: knn\nversion: 1\nkk: 5\n", "unknown key 'kk' .did you mean 'k'"),
        ("like: knn\nversion: 1\nk: 0\n", "k=0: it must be above 0"),
        ("like: knn\nversion: 1\nlayer: lst\n", "layer=lst .did you mean 'last'"),
        ("like: knnn\nversion: 1\n", "no protocol 'knnn' .did you mean 'knn'"),
        ("like: ridge\nversion: 1\nheld_out: 1.5\n", "held_out=1.5: a share between 0 and 1"),
        ("[1, 2]", "holds no keys and values"),
    ],
)
def test_files_that_are_not_whole_are_refused(tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load(CATALOG, str(tmp_path / "mine.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"protocol": ""}, "protocol= needs a name: attentive, "),
        ({"protocol": []}, "protocol= needs a name"),
        ({"protocol": "lineer"}, "no protocol 'lineer' .did you mean 'linear'"),
        ({"protocol": "mine.yaml"}, "there is no such file"),
        ({"protocol": "knn", "alphas": 1}, "unknown option 'alphas'.*for protocol=knn also: layer, k, temperature"),
        ({"protocol": "knn,ridge", "held_uot": 0.1}, "did you mean 'held_out'"),
    ],
)
def test_words_that_no_protocol_knows(words, said):
    with pytest.raises(ConfigError, match=said):
        entry.read(words, CATALOG)


def test_settings_go_to_those_that_have_them_and_are_stamped_as_changed():
    _, (knn, ridge, linear), _ = entry.read({"protocol": "knn,ridge,linear", "held_out": "0.3", "k": 20}, CATALOG)
    assert (ridge.settings.held_out, linear.settings.held_out) == (0.3, 0.3) and knn.changed == ()
    assert ridge.changed == linear.changed == ("held_out",) and linear.stamp()["changed"] == ["held_out"]


def test_protocols_that_read_alike_share_a_table(run, capsys):  # noqa: F811
    evaluate.command(run, {"protocol": "knn,attentive,ridge", "device": "cpu", "epochs": 1, "lrs": [1e-3]})
    lines = [json.loads(line) for line in (run / "evaluate/results.jsonl").read_text().splitlines()]
    assert [list(line["protocols"]) for line in lines] == [["knn", "ridge"], ["attentive"]]
    assert capsys.readouterr().out.count("trained encoder  ") == 2
