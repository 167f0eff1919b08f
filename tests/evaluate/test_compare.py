"""Runs side by side: the table, the files, what must be said, and what is refused."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from jepakit.errors import ConfigError
from jepakit.evaluate import sheet
from jepakit.evaluate.compare import command

PAPER = [
    {"measure": "top-1, per cent", "score": 54.2, "source": "Paper, Table 6", "when": {"masker.name": "multiblock"}},
    {"measure": "top-1, per cent", "score": 17.6, "source": "Paper, Table 6", "when": {"masker.name": "random"}},
]
MULTIBLOCK = {"name": "multiblock", "targets": 4}
RANDOM = {"name": "random", "ratio": [0.6, 0.6]}


def cell(score: float) -> dict[str, float]:
    return {"score": score, "low": score - 0.02, "high": score + 0.02}


def result(scores: dict[str, float], **more: Any) -> dict[str, Any]:
    """A line of results.jsonl: each protocol's trained score, with controls at .28 and .2."""
    rows = [{"name": "trained encoder"} | {name: cell(score) for name, score in scores.items()}]
    for name, score in (("random encoder", 0.28), ("raw pixels", 0.2)):
        rows.append({"name": name} | {protocol: cell(score) for protocol in scores})
    data = {part: {"text": f"100 samples, {part} data", "samples": 100, "skipped": []} for part in ("test", "fit")}
    about = {"format": 1, "weights": "target", "label": "class", "classes": 9, "precision": "fp32", "step": 3}
    return about | data | {"protocols": {name: {"kind": name, "version": 1} for name in scores}, "rows": rows} | more


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run("a", results=[...], masker=...)`` makes a run folder by hand."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, results: Any = (), log: Any = (), finished: bool = True, **config: Any) -> Path:
        folder = tmp_path / name
        (folder / "evaluate").mkdir(parents=True)
        plain = {"seed": 0, "recipe": "mine", "masker": MULTIBLOCK, "optim": {"lr": 0.001}, "run": str(folder)} | config
        (folder / "config.yaml").write_text(json.dumps(plain))
        if results:
            lines = [each if isinstance(each, str) else json.dumps(each) for each in results]
            (folder / "evaluate" / "results.jsonl").write_text("".join(f"{line}\n" for line in lines))
        (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in log))
        if finished:
            (folder / "finished").touch()
        return folder

    return make


@pytest.fixture
def said(capsys):
    """``said("a", "b")``: the lines that the command prints."""

    def call(*argv: str) -> list[str]:
        assert command(list(argv), []) == 0
        return capsys.readouterr().out.splitlines()

    return call


@pytest.fixture
def sweep(run) -> str:
    """Three runs of a sweep: two with scores, one never evaluated and not finished."""
    log = [{"step": 2, "rank": 9.0}, {"step": 3, "rank": 8.0, "loss": 0.1}, {"step": 3, "knn": 0.3, "rankme": 12.34}]
    older = result({"linear": 0.11})
    run("sweep-1/0", [older, result({"linear": 0.5, "knn": 0.4})], log, published=PAPER)
    run("sweep-1/1", [result({"linear": 0.29, "knn": 0.35})], log, masker=RANDOM, published=PAPER)
    run("sweep-1/2", log=log[:1], finished=False, masker={"name": "stripes"}, published=PAPER)
    return "sweep-1"


TABLE = """\
run  masker      linear                random  pixels  knn                   random  pixels  knn in training  RankMe  steps          paper
0    multiblock  0.500 [0.480, 0.520]  0.280   0.200   0.400 [0.380, 0.420]  0.280   0.200   0.300            12.3    3              54.2 [1]
1    random      0.290 [0.270, 0.310]  0.280   0.200   0.350 [0.330, 0.370]  0.280   0.200   0.300            12.3    3              17.6 [1]
2    stripes     not evaluated         -       -       not evaluated         -       -       -                -       2, unfinished  -

of 0 alone: masker.targets=4
of 1 alone: masker.ratio=[0.6, 0.6]
linear: NOT clearly better than a control: 1
[1] top-1, per cent: Paper, Table 6 (matched by masker.name)
all tested on 100 samples, test data
all fitted on 100 samples, fit data
in brackets: 95 % interval over the test samples, not over seeds
2: no score of linear, knn: jepakit eval run=sweep-1/2 protocol=linear,knn weights=target label=class
"""  # noqa: E501


def test_table(sweep, said):
    assert said(sweep) == TABLE.splitlines()
    assert said(f"{sweep}/0", f"{sweep}/1", f"{sweep}/2", sweep) == TABLE.splitlines()


def test_pace_is_the_median_of_the_log(run, said):
    for name, speeds in {"a": (90.0, 5.0, 100.4), "b": (80.0, None)}.items():
        run(name, [result({"linear": 0.5})], [{"step": i, "images_per_second": v} for i, v in enumerate(speeds, 1)])
    header, first, second, *_ = said("a", "b")
    place = header.index("samples/s")
    assert (first[place:].split()[0], second[place:].split()[0]) == ("90", "80")


def test_markdown_and_csv(sweep, said, tmp_path):
    assert said(sweep, "out=t.md", "protocol=linear")[-1] == "written to t.md"
    lines = Path("t.md").read_text().splitlines()
    assert lines[0] == "| run | masker | linear | random | pixels | knn in training | RankMe | steps | paper |"
    assert (
        lines[2].startswith("| 0 | multiblock | 0.500 [0.480, 0.520] | 0.280 |")
        and lines[6] == "* of 0 alone: masker.targets=4"
    )
    said(sweep, "out=t.csv")
    rows = list(csv.DictReader(Path("t.csv").read_text().splitlines()))
    assert [row["masker"] for row in rows] == ["multiblock", "random", "stripes"]
    assert [row["linear"] for row in rows] == ["0.5", "0.29", ""] and rows[0][
        "knn random encoder high"
    ] == "0.30000000000000004"
    assert [row["published: top-1, per cent: Paper, Table 6 (matched by masker.name)"] for row in rows] == [
        "54.2",
        "17.6",
        "",
    ]
    assert rows[0]["linear test"] == "100 samples, test data" and rows[2]["finished"] == "False"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["sweep-1", "t.csv", "t.md"]


def test_terminal(sweep, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    command([sweep], [])
    shown = capsys.readouterr().out
    assert "54.2 [1]" in shown and "0.500 [0.480, 0.520]" in shown and "[1] top-1" in shown


def test_settings_that_differ(run, said):
    lrs = [{"optim": {"lr": 0.001 * (i + 1), **{name: i for name in "abcd"}}} for i in range(2)]
    for i, more in enumerate(lrs):
        more["trainer"] = {"device": "cpu" if i else "cuda"}
        run(f"r{i}", [result({"any_protocol": 0.5})], seed=i, masker=MULTIBLOCK | {"targets": i}, **more)
    lines = said("r0", "r1")
    assert lines[0].split()[:6] == ["run", "seed", "masker.targets", "optim.lr", "optim.a", "any_protocol"]
    assert "also different: optim.b: 0, 1" in lines and "also different: trainer.device: cuda, cpu" in lines


def test_what_cannot_be_compared_is_said(run, said):
    run("a", [result({"knn": 0.5})], [{"step": 9}])
    other = {"text": "50 samples, other data", "samples": 50, "skipped": ["x"]}
    stamps = {"knn": {"kind": "knn", "version": 2, "k": 7}}
    run("b", [result({"knn": 0.5}, test=other, protocols=stamps, step=9)], [{"step": 9}])
    run("c", [result({"knn": 0.5}, weights="online")])
    lines = said("a", "b", "c")
    assert lines[0].split("  ")[1].strip() == "knn (target, class)" and "knn (online, class)" in lines[0]
    where = "knn (target, class): NOT comparable,"
    assert f"{where} test differs: a: 100 samples, test data; b: 50 samples, other data" in lines
    assert f"{where} protocol.version differs: a: 1; b: 2" in lines
    assert "knn (target, class): a was scored at step 3, and went on to 9" in lines
    assert (
        not any(line.startswith("all tested on") for line in lines) and "all fitted on 100 samples, fit data" in lines
    )
    assert "c: no score of knn: jepakit eval run=c protocol=knn weights=target label=class" in lines


def test_results_of_before_protocols_were_files_stay_comparable(run, said):
    old = {"knn": {"version": 1, "k": 20}, "linear": {"version": 1, "classifier": "ridge regression"}}
    view = {"size": 32, "mean": [0.5], "std": [0.5]}
    run("a", [result({"knn": 0.5, "linear": 0.6}, protocols=old, view=view)])
    today = {"encoder": "target", "resolution": 32, "layer": "last"}
    new = {name: {"protocol": name, "kind": name, "version": 1, **today} for name in ("knn", "ridge")}
    run("b", [result({"knn": 0.5, "ridge": 0.6}, protocols=new)])
    lines = said("a", "b")
    assert "ridge" in lines[0] and "linear" not in lines[0] and not any("NOT comparable" in line for line in lines)
    assert lines[1].count("0.600") == lines[2].count("0.600") == 1


def test_damaged_lines_are_passed_over_aloud(run, said):
    run("a", ['{"format": 1, "prot', {"format": 1, "protocols": {"knn": 1}}, {"format": 2}, result({"knn": 0.5})])
    run("b")
    lines = said("a", "b")
    file = "a/evaluate/results.jsonl"
    assert [line for line in lines if file in line] == [
        f"{file}, line 1: damaged, passed over",
        f"{file}, line 2: not a whole result, passed over",
        f"{file}, line 3: format 2 is not read here, passed over",
    ]
    assert lines[1].split()[:2] == ["a", "0.500"] and lines[2].split()[:3] == ["b", "not", "evaluated"]


def test_runs_without_any_score(run, said):
    run("a", log=[{"step": 1, "rank": None}], seed=1)
    run("b", log=[{"step": 1, "rank": 4.0}])
    lines = said("a", "b")
    assert [line.split("  ")[0] for line in lines[1:3]] == ["a", "b"] and "nan" in lines[1] and "4.0" in lines[2]
    assert lines[0].split("  ")[-1].strip() == "scores" and lines[1].endswith("not evaluated")
    assert "b: never evaluated: jepakit eval run=b" in lines


def test_numbers_of_a_recipe(run, said):
    numbers = [*PAPER, {"measure": "top-1, per cent", "score": 9.0, "source": "Table 10", "when": {}}]
    Path("paper.yaml").write_text(json.dumps({"published": numbers}))
    run("a", [result({"knn": 0.5})])
    run("b", [result({"knn": 0.5})], masker={"name": "stripes"})
    lines = said("a", "b", "published=paper.yaml")
    assert lines[1].endswith("54.2 [1]") and lines[2].endswith("9 [2]")
    assert "[2] top-1, per cent: Table 10" in lines
    assert said("a", "published=paper.yaml")[1].endswith("54.2 [1]")
    Path("paper.yaml").write_text(json.dumps({"published": PAPER[1:]}))
    assert "no published number is for runs like these; there are numbers for: masker.name=random" in said(
        "a", "b", "published=paper.yaml"
    )


REFUSED = {
    "": "compare needs runs: jepakit compare runs/A runs/B, or the folder of a sweep",
    "sweep-1/0": "sweep-1/0 is one run: name others, or a recipe that has numbers for it, published=NAME",
    "sweep-1/9": "sweep-1/9: there is no such folder (did you mean 'sweep-1/1'?)",
    "sweep-1 empty": "empty is neither a run nor a sweep: no config.yaml in it",
    "sweep-1 broken": "broken/config.yaml is damaged: ",
    "sweep-1 protocol=lineer": "no run has a score of protocol=lineer (did you mean 'linear'?); there are: knn, linear",
    "sweep-1 publish=x": "compare knows no 'publish' (did you mean 'published'?); known: RUN ..., published=",
    "sweep-1 --out": "compare knows no '--out' (did you mean 'out'?); known: RUN ..., published=, protocol=, out=",
    "sweep-1 out=a.md out=b.md": "out is given twice",
    "sweep-1 out=": "out=: write out=VALUE",
    "sweep-1 out=a.txt": "out=a.txt: the suffix says the format: .md or .csv",
    "sweep-1 out=no/a.md": "out=no/a.md: there is no folder no",
    "sweep-1 out=old.md": "out=old.md is there already, and is not written over: name another file",
    "sweep-1 published=demo": "published=demo: the recipe holds no numbers; with some: ablations/context_scale, ",
    "sweep-1 published=dem": "no recipe 'dem' (did you mean 'demo'?); there are: ",
}


@pytest.mark.parametrize("line", REFUSED)
def test_refused(line, run, tmp_path):
    run("sweep-1/0", [result({"knn": 0.5, "linear": 0.5})])
    run("sweep-1/1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("a: [")
    (tmp_path / "old.md").write_text("old")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        command(line.split(), [])
    assert str(caught.value).startswith(REFUSED[line]) and "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "old.md").read_text() == "old"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ConfigError, match="cannot be written: No space left on device"):
        sheet.write(sheet.Sheet(["a"], [["1"]], [], [{"a": 1}]), tmp_path / "t.md")
    assert not list(tmp_path.iterdir())
