"""What the command line says to a mistake: one line, exit code 2, no traceback, nothing left behind."""

import subprocess
import sys

import pytest

from jepakit import cli

VERBS = f"there are: {', '.join(cli.VERBS)}"
SHOWN = "there are: config, masks, views, curves, flow, predictions"
LINES = {
    ("trian",): f"no verb 'trian' (did you mean 'train'?); {VERBS}",
    ("train", "seeed=1"): "unknown key 'seeed' (did you mean 'seed'?); known: seed, run, distance, "
    "distance_weight, distance_levels, data, views, tokenizer, masker, encoder, predictor, anti_collapse, "
    "branches, optim, trainer, start, logger, evaluate, health, published, recipe",
    ("train", "+optim.lrr=1"): "unknown key 'optim.lrr' (did you mean 'lr'?); known: lr, start_lr, final_lr, decay, "
    "warmup, stretch, weight_decay, betas, eps, momentum, clip, clip_each, clip_after",
    ("train", "seed=one"): "seed: Value 'one' of type 'str' could not be converted to Integer",
    ("train", "seed=1", "seed=2"): "seed is given twice: seed=1 and seed=2",
    ("train", "run=a", "run=b"): "run is given twice: run=a and run=b",
    ("train", "run=nowhere"): "run=nowhere: there is no run; there are no runs yet",
    ("train", "resume=yes"): "resume=yes is no choice: write resume=auto, or run=FOLDER to continue a certain run",
    ("train", "data=folder"): "data.root is not set, and data=folder has no default: add data.root=VALUE",
    ("train", "-m", "seed=1,two"): "seed: Value 'two' of type 'str' could not be converted to Integer",
    (
        "train",
        "-m",
        "run=x",
        "seed=1,2",
    ): "run= names one folder, but a sweep (-m) makes one for each job; leave it out",
    ("train", "seed=1,2"): "seed=1,2 is several values: add -m to try each, or write [...] for a list",
    ("train", "--cfg", "job", "+seeed=1"): "unknown key 'seeed' (did you mean 'seed'?); known: seed, run, distance, "
    "distance_weight, distance_levels, data, views, tokenizer, masker, encoder, predictor, anti_collapse, "
    "branches, optim, trainer, start, logger, evaluate, health, published, recipe",
    ("train", "--fog"): "unrecognized arguments: --fog; see jepakit train --help",
    ("train", "--config-name", "x"): "--config-name has no place here: choose with recipe=NAME or --config-dir DIR",
    ("train", "--plugin"): "--plugin needs a file: --plugin my_masker.py",
    ("train", "--plugin", "/nowhere.py"): "--plugin /nowhere.py: there is no such file",
    ("eval",): "eval needs a run: jepakit eval run=runs/... protocol=knn",
    ("eval", "run=x", "+protocol=knn"): "+protocol=knn has no place here: write protocol=VALUE",
    ("eval", "run=nowhere"): "run=nowhere: there is no run; there are no runs yet",
    ("show",): f"show what?; {SHOWN}",
    ("show", "mask"): f"show knows no 'mask' (did you mean 'masks'?); {SHOWN}",
    ("plugins", "--verbos"): "plugins knows no '--verbos' (did you mean '--verbose'?); there are: --verbose, --matrix "
    "[kind=name ...]",
    ("plugins", "--matrix", "maskr=x"): "the matrix has no 'maskr' (did you mean 'masker'?); it has: data, tokenizer, "
    "encoder, masker, predictor, anti_collapse",
    ("data", "chek"): "data knows no 'chek' (did you mean 'check'?); there are: check",
    ("data", "check"): "data.root is not set, and data=folder has no default: add data.root=VALUE",
    ("new", "maskr", "x"): "new knows no 'maskr' (did you mean 'masker'?); there are: masker, tokenizer, encoder, "
    "predictor, anti_collapse",
    ("new", "masker"): "new masker needs a name: jepakit new masker NAME [FOLDER]",
    ("bench", "steps=0"): "steps=0 is no number of steps: write steps=1 or more",
    ("doctor", "now"): "doctor takes no arguments, but was given 'now'",
    ("-sc", "qery=bash"): "-sc qery=bash: write -sc install=bash (did you mean 'query'?)",
}


@pytest.mark.parametrize("argv", LINES, ids=" ".join)
def test_one_line_and_code_2(cli, trained, argv, tmp_path):
    said = cli(*argv)
    assert (said.code, said.err) == (2, f"jepakit: error: {LINES[argv]}\n")
    assert not trained and not list(tmp_path.iterdir())


def test_a_mistake_that_shows_before_training_leaves_no_folder(cli, trained, tmp_path):
    from jepakit.errors import DataError

    trained.error = DataError("data.root=/nowhere: there is no such folder")
    said = cli("train", "data=folder", "data.root=/nowhere")
    assert (said.code, said.err) == (2, "jepakit: error: data.root=/nowhere: there is no such folder\n")
    assert len(trained) == 1 and list((tmp_path / "runs").iterdir()) == []


def test_a_bug_is_no_mistake_of_the_users(cli, trained):
    trained.error = KeyError("a bug")
    with pytest.raises(KeyError):
        cli("train")


def test_full_errors_on_request(cli, monkeypatch):
    from jepakit.errors import ConfigError

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError):
        cli("train", "seeed=1")


def test_an_interrupt_is_quiet(cli, trained):
    trained.error = KeyboardInterrupt()
    said = cli("train")
    assert said.code == 130 and said.err == ""


@pytest.mark.parametrize("command", [["-m", "jepakit"], ["-m", "jepakit.cli"]])
def test_a_closed_pipe_is_quiet(command, root):
    code = f"{sys.executable} {' '.join(command)} show config | true"
    done = subprocess.run(code, shell=True, capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", ["jepakit", "jepakit.cli"])
def test_an_error_from_the_outside(module, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", module, "train", "seeed=1"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("jepakit: error: unknown key 'seeed'") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_missing_and_empty_folders_of_images(cli, name, tmp_path):
    """The data's own lines: nothing is replaced by a stub here."""
    (tmp_path / "empty").mkdir()
    said = cli("data", "check", f"data.root={tmp_path / name}")
    assert said.code == 2 and said.err.startswith("jepakit: error: ") and said.err.count("\n") == 1
    assert name in said.err and said.out == ""
