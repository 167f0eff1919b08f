"""``jepakit health``: of runs as they are found, and for programs."""

import json
import shutil

import pytest

from jepakit import train
from jepakit.cli import main
from jepakit.health.entry import examine, suggestion, told
from jepakit.health.verdict import Verdict
from tests.health.test_verdict import BOTH, line
from tests.train import tiny

CONFIG = """\
seed: 0
recipe: demo
anti_collapse: {ema: {name: ema, start: 0.2, end: 0.2}}
masker: {name: multiblock}
optim: {lr: 0.1, clip: null, weight_decay: [0.04, 0.4]}
"""
HEALTHY = [line(step=i) for i in range(1, 13)]
GONE = HEALTHY[:5] + [line(step=i, **BOTH, teacher_distance=0.01, step_length=0.01) for i in range(6, 13)]


@pytest.fixture
def run(tmp_path):
    """``run(lines)`` writes the folder of a run."""

    def write(lines, config=CONFIG, typed="jepakit train recipe=demo optim.lr=0.1 run=x 'data.root=/a b'"):
        (tmp_path / "config.yaml").write_text(config)
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
        (tmp_path / "command.txt").write_text(typed + "\n")
        return tmp_path

    return write


def asked(folder, *more) -> int:
    return main(["health", f"run={folder}", "picture=false", *more])


def test_a_healthy_run(run, capsys):
    assert asked(run(HEALTHY)) == 0
    said = capsys.readouterr().out
    assert ": healthy\n" in said and "from step 1: healthy" in said and "likely cause" not in said and "try" not in said
    (rank,) = [each.split() for each in said.splitlines() if each.startswith("  rank ")]
    assert rank[:6] == ["rank", "20", "20", "directions", "in", "which"]


def test_a_sick_run_is_explained_with_the_setting_and_what_to_type(run, capsys):
    assert asked(run(GONE)) == 1
    said = capsys.readouterr().out
    assert ": collapsing\n" in said and "likely cause: EMA too fast" in said and "1.0 steps behind" in said
    assert "in this run: anti_collapse.ema.start=0.2" in said and "from step 7: collapsing (EMA too fast)" in said
    assert "  jepakit train recipe=demo optim.lr=0.1 'data.root=/a b' anti_collapse.ema.start=0.99 " in said


def test_the_same_for_programs(run, tmp_path, capsys):
    out = tmp_path / "new" / "health.json"
    assert asked(run(GONE), f"out={out}") == 1
    found = json.loads(out.read_text())
    assert (found["word"], found["cause"]) == ("collapsing", "EMA too fast")
    assert found["settings"] == {"anti_collapse.ema.start": 0.2, "anti_collapse.ema.end": 0.2}
    assert found["change"] == ["anti_collapse.ema.start=0.99", "anti_collapse.ema.end=0.9995"]
    assert found["command"].startswith("jepakit train recipe=demo") and found["course"][0]["word"] == "healthy"
    assert {"name": "std", "first": 0.5, "now": 0.05}.items() <= found["evidence"][1].items()
    assert f"written to {out}" in capsys.readouterr().out


def test_a_change_takes_the_place_of_what_was_typed(run):
    folder = run(GONE, typed="jepakit train -m recipe=demo optim.lr=1 masker=random masker.ratio=[0.9,0.9] seed=3")
    lower = Verdict("watch", "", change=("optim.lr=0.1",))
    assert suggestion(folder, lower) == (
        "jepakit train recipe=demo masker=random 'masker.ratio=[0.9,0.9]' seed=3 optim.lr=0.1"
    )
    other = Verdict("watch", "", change=("masker=multiblock",))
    assert suggestion(folder, other) == "jepakit train recipe=demo optim.lr=1 seed=3 masker=multiblock"
    assert suggestion(folder, Verdict("healthy", "")) == ""


def test_damaged_logs_and_configurations_are_read_as_far_as_they_go(run, capsys):
    folder = run(GONE, config="seed: [")
    text = (folder / "log.jsonl").read_text()
    (folder / "log.jsonl").write_bytes(b'{"ste\xff\n[1]\n\n{"loss": 1}\n' + text.encode() + b'{"step": 13, "lo')
    assert asked(folder) == 1
    said = capsys.readouterr().out
    assert "config.yaml: damaged, settings are not known" in said and ": collapsing\n" in said
    damaged = [each for each in said.splitlines() if "damaged, passed over" in each]
    assert [each.rpartition("line ")[2].partition(":")[0] for each in damaged] == ["1", "2", "3", "4", "17"]


def test_values_that_are_no_numbers_do_no_harm(run):
    odd = [each | {"known": None, "cosine": None, "lr": "x", "grad_norm": [1], "alpha": True} for each in HEALTHY]
    assert asked(run(odd)) == 0
    missing = [{k: v for k, v in each.items() if k in ("step", "rank", "std")} for each in HEALTHY]
    assert asked(run(missing)) == 0


def test_a_log_of_before_there_were_more_figures(run, capsys):
    old = [{"step": i, "loss": 1.0, "rank": 14.0, "std": 0.5, "cosine": 0.9, "cosine_mean": 0.5} for i in range(12)]
    assert asked(run(old)) == 0
    assert "known" not in capsys.readouterr().out


def test_steps_that_were_skipped_to_the_end(run, capsys):
    folder = run(HEALTHY)
    (folder / "nonfinite-step-00000012.json").write_text("{}")
    assert asked(folder) == 1
    assert "loss or features are not finite at step 12" in capsys.readouterr().out
    (folder / "nonfinite-step-00000012.json").rename(folder / "nonfinite-step-00000005.json")
    assert asked(folder) == 0, "it came back"


def test_what_a_run_was_rolled_back_from_is_told_and_does_not_count(run, capsys):
    back = {"step": 5, "rollback": 1, "rolled_back_from": 12, "lr_scale": 0.5, "reason": "."}
    after = [line(step=i, rollback=1) for i in range(6, 16)]
    assert asked(run([*GONE, back, *after])) == 0
    said = capsys.readouterr().out
    assert ": healthy\n" in said and "from step 7: collapsing" in said and "from step 6: healthy" in said


def test_branches_have_verdicts_of_their_own(run, capsys):
    own = [{f"clip/{k}": v for k, v in each.items() if k != "step"} for each in GONE]
    both = [
        {**one, **{k: v for k, v in other.items() if "grad_norm" not in k}}
        for one, other in zip(HEALTHY, own, strict=False)
    ]
    assert asked(run(both, CONFIG + "branches: {image: {data: null}, clip: {data: null}}\n")) == 0
    assert "branch clip: collapsing: all samples have nearly the same features" in capsys.readouterr().out


def test_a_long_log_is_judged_in_a_moment(run):
    found = examine(run([line(step=i) for i in range(1, 4001)]), {})
    assert found.verdict.word == "healthy" and 250 < len(found.words) <= 301 and found.words[-1][0] == 4000


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["outt=x"], "health knows no 'outt' (did you mean 'out'?); known: run=FOLDER, out=FILE.json, picture=false"),
        (["out=x.txt"], "what is written is JSON, give it a name that ends in .json"),
    ],
)
def test_mistakes_are_one_line(more, said, run, capsys):
    assert asked(run(HEALTHY), *more) == 2
    assert said in capsys.readouterr().err


def test_no_run_and_no_log(run, tmp_path, capsys):
    assert main(["health"]) == 2 and main(["health", "run=/nowhere"]) == 2
    folder = run([])
    assert asked(folder) == 2
    assert "holds no line: there is nothing to judge yet" in capsys.readouterr().err


def test_a_real_run_unfinished_and_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "report", lambda *_: [])
    folder = tmp_path / "run"
    folder.mkdir()
    made = tiny.config(trainer__steps=3)
    assert train.run(made, folder) == 0
    assert train.run(tiny.config(), folder) == 0
    (folder / "config.yaml").write_text(json.dumps(tiny.config()))
    assert asked(folder) == 0
    rows = {
        each.split()[0] for each in capsys.readouterr().out.splitlines() if each.startswith("  ") and "  " in each[3:]
    }
    assert {"known", "copy_nearest", "teacher_distance", "step_length", "grad_norm/predictor", "pixel_alike"} <= rows
    shutil.rmtree(folder / "checkpoints")
    assert told(examine(folder, tiny.config()))[0].startswith("run "), "the log is all that it takes"
