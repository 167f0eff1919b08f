"""``jepakit bench``: what is printed and written, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from jepakit.bench.entry import OWN, asked
from jepakit.bench.split import PARTS, REST
from jepakit.cli import main
from jepakit.errors import ConfigError

TINY = "data=world data.length=40 data.side=16 data.size=16 data.batch_size=8 data.workers=0 tokenizer=patch4 "
TINY += "masker=multiblock masker.min_keep=0 encoder=vit encoder.width=32 encoder.depth=1 encoder.heads=2 "
TINY += "predictor=vit_predictor predictor.width=16 predictor.depth=1 predictor.heads=2 "
TINY += "trainer.precision=fp32 trainer.device=cpu trainer.threads=1"


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture):
    """``cli("bench", "steps=1")`` runs one line in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*argv: str) -> SimpleNamespace:
        code = main(argv)
        return SimpleNamespace(code=code, lines=capfd.readouterr().out.splitlines())

    return call


def test_one_recipe(cli, tmp_path):
    said = cli(
        "bench", *TINY.split(), "steps=2", "repeats=2", "out=found.json", "--profile", "trace.json", "--roofline"
    )
    assert said.code == 0 and said.lines[0] == TINY
    assert [line.split()[0] for line in said.lines[3:14]] == [*PARTS, REST, "step"]
    for start in ("speed", "FLOPs a step", "achieved", "peak", "MFU"):
        assert any(line.startswith(start) for line in said.lines), start
    assert {path.name for path in tmp_path.iterdir()} == {"found.json", "trace.json"}
    traced = {each.get("name") for each in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert set(PARTS) <= traced
    assert any(line.startswith("roofline: ") for line in said.lines)
    (side,) = json.loads((tmp_path / "found.json").read_text())["sides"]
    assert set(side["roofline"]["parts"]) <= {*PARTS, REST} and side["roofline"]["step"]["flops"] > 0
    assert sum(part["share"] for part in side["parts"].values()) == pytest.approx(1)
    assert side["step"]["count"] == 4 and len(side["step"]["rounds"]) == 2
    assert side["samples_per_second"]["median"] == pytest.approx(8 / side["step"]["seconds"]["median"])
    assert side["mfu"] == pytest.approx(side["flops_per_step"] / side["step"]["seconds"]["median"] / side["peak"])


def test_two_side_by_side(cli, tmp_path):
    (tmp_path / "theirs.py").write_text("def prepare(config, device, part):\n    return lambda number: 8\n")
    words = [
        "clock=cpu",
        "fixed=true",
        "against=encoder.depth=2 data.batch_size=4",
        "against=theirs.py",
        "steps=1",
        "repeats=6",
    ]
    said = cli("bench", *TINY.split(), *words)
    assert said.code == 0
    assert said.lines[1].endswith("encoder.depth=2 data.batch_size=4") and "data.batch_size=8" not in said.lines[1]
    head = next(line for line in said.lines if line.startswith("part"))
    assert head.split() == [
        "part",
        *(word for each in "ABC" for word in (each, "ms", each, "quartiles", each, "share")),
    ]
    steps = next(line for line in said.lines if line.startswith("steps"))
    assert steps.split() == "steps 6 of 8 img 6 of 4 img 6 of 8 img".split()
    flops = next(line for line in said.lines if line.startswith("FLOPs a step"))
    assert flops.split()[-1] == "-"  # nobody counts those of a file
    assert [line[:27] for line in said.lines[-2:]] == ["A is " + line[5:27] for line in said.lines[-2:]]
    assert said.lines[-4].startswith("all times are CPU time") and said.lines[-3].startswith("the same batches")
    assert "times as fast as B per sample [" in said.lines[-2] and "(with 97 % confidence, 6 pairs" in said.lines[-2]
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".py"} <= {"__pycache__"}


def test_a_run_beside_what_began_it(tmp_path, monkeypatch):
    from jepakit import runs
    from jepakit.catalog import collect
    from jepakit.config import resolve

    monkeypatch.chdir(tmp_path)
    runs.create(resolve([*TINY.split(), "seed=3"]), collect().plugins, ["train"], Path("runs/a"))
    ours, theirs = asked(["run=runs/a", f"against={'runs/a'}"], []).sides
    assert ours[0] == theirs[0] == "run=runs/a" and ours[1]["seed"] == theirs[1]["seed"] == 3


def test_both_ways_of_writing():
    line = ["seed=1", "--steps", "3", "--repeats=2", "--against", "seed=2", "against=seed=3"]
    found = asked(line, [])
    assert (found.steps, found.repeats, found.out) == (3, 2, None)
    assert [label for label, _ in found.sides] == ["seed=1", "seed=2", "seed=3"]
    assert [config["seed"] for _, config in found.sides] == [1, 2, 3]


REFUSED = {
    ("steps=0",): "steps=0 is no number of steps: write steps=1 or more",
    ("clock=sun",): "clock=sun is no choice: clock=wall, or clock=cpu for CPU time of the process",
    ("fixed=perhaps",): "fixed=perhaps is no choice: fixed=true takes the same batches again and again",
    (
        "roofline=1",
    ): "roofline=1 is no choice: roofline=true says of each part how near to the machine's limits it comes",
    ("repeats=two",): "repeats=two is no number of repeats: write repeats=1 or more",
    ("steps=1", "steps=2"): "steps is given twice: steps=1 and steps=2",
    ("seeed=1",): "unknown key 'seeed' (did you mean 'seed'?)",
    ("recipe=dmo",): "no recipe 'dmo' (did you mean 'demo'?)",
    ("against=dmo",): "no recipe 'dmo' (did you mean 'demo'?)",
    ("against=",): "against= what? a recipe, a run folder, 'key=value ...', or a Python file",
    ("against=theirs.py",): "against=theirs.py: there is no such file",
    ("against=./runs",): "against=./runs: it is no run's folder, no Python file (.py) and no recipe (.yaml)",
    ("against=seed=1 steps=2",): "against='seed=1 steps=2': steps=2 has no place in it",
    ("--step", "3"): f"bench knows no '--step' (did you mean 'steps'?); there are: --{', --'.join(OWN)}",
    ("--steps",): "--steps needs a value: --steps VALUE",
    ("out=found.txt",): "out=found.txt: write a file that ends in .json",
    ("out=nowhere/found.json",): "out=nowhere/found.json: there is no folder nowhere",
    ("run=nowhere",): "run=nowhere: there is no run; there are no runs yet",
    ("run=runs/a", "seed=1"): "seed=1 has no place beside run=runs/a, which has its own configuration",
    ("data=folder",): "data.root is not set, and data=folder has no default: add data.root=VALUE",
}


@pytest.mark.parametrize("line", REFUSED, ids=" ".join)
def test_one_line_of_reason(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        asked(list(line), [])
    assert str(refused.value).startswith(REFUSED[line]) and not list(tmp_path.iterdir())
