"""New runs, runs that go on, and sweeps: what is asked of the trainer and what the folder holds."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from .conftest import STUBS

BASE = ("recipe=base", "data.root=/x", "--config-dir", str(STUBS / "options"), "--plugin", str(STUBS / "stub.py"))


def test_a_run_folder_holds_its_records(cli, trained):
    said = cli("train", *BASE, "seed=3")
    assert said.code == 0
    ((config, folder),) = trained
    assert folder.parent == Path("runs") and folder.name.startswith("base-") and said.out == f"jepakit: run {folder}\n"
    assert OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")) == config
    assert config["run"] == str(folder) and config["recipe"] == "base" and config["seed"] == 3
    assert (folder / "command.txt").read_text() == f"jepakit train {' '.join([*BASE[:4], 'seed=3', *BASE[4:]])}\n"
    plugins = {each["name"]: each for each in json.loads((folder / "plugins.json").read_text())}
    assert (
        plugins["vit"]["state"] == plugins["stub"]["state"] == "loaded" and plugins["vit"]["distribution"] == "jepakit"
    )
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torch"] and environment["cpus"] >= 1
    assert set(json.loads((folder / "git.json").read_text())) == {"working_directory", "jepakit"}
    assert (folder / "finished").exists()


def test_git_state_of_the_working_directory(cli, trained, tmp_path):
    import subprocess

    def git(*words: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@x")
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    (tmp_path / "notes").write_text("one\n")
    git("add", "notes")
    git("commit", "-q", "-m", "one")
    (tmp_path / "notes").write_text("one\ntwo\n")
    cli("train")
    state = json.loads((trained[0][1] / "git.json").read_text())["working_directory"]
    assert (
        state["commit"] == git("rev-parse", "HEAD").strip() and state["dirty"] is True and "notes" in state["changes"]
    )


def test_two_runs_in_one_second_get_two_folders(cli, trained):
    cli("train", "seed=1")
    cli("train", "seed=1")
    assert trained[0][1] != trained[1][1]


def test_run_names_the_folder_of_a_new_run(cli, trained):
    assert cli("train", *BASE, "run=out/first").code == 0
    assert trained[0][1] == Path("out/first") and trained[0][0]["run"] == "out/first"


def test_a_folder_with_something_else_in_it_is_left_alone(cli, trained, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    said = cli("train", *BASE, "run=mine")
    assert said.err == "jepakit: error: run=mine: the folder is not empty, and holds no run; name another\n"
    assert not trained and [each.name for each in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_unfinished_run_is_not_marked(cli, trained):
    trained.code = 130
    assert cli("train").code == 130
    assert not (trained[0][1] / "finished").exists()


def test_a_run_of_an_earlier_version_goes_on_and_says_what_is_new(cli, trained):
    cli("train", *BASE, "run=r")
    config = OmegaConf.load("r/config.yaml")
    del config["start"], config["trainer"]["scaling"], config["masker"]["way"]
    Path("r/config.yaml").write_text(OmegaConf.to_yaml(config))
    for line in (("run=r",), (*BASE, "run=r")):
        Path("r/config.yaml").write_text(OmegaConf.to_yaml(config))
        said = cli("train", *line)
        assert said.code == 0, said.err
        news = "masker.way, start.parts, start.weights, trainer.scaling"
        assert f"jepakit: new since the run began, at their defaults: {news}\n" in said.out
        assert trained[-1][0] == trained[0][0]


def test_a_run_goes_on_with_its_own_configuration(cli, trained):
    cli("train", *BASE, "run=r", "optim.lr=0.25")
    said = cli("train", "run=r", "trainer.epochs=9", "data.workers=1")
    assert said.code == 0, said.err
    (before, _), (after, folder) = trained
    assert folder == Path("r") and after["optim"]["lr"] == 0.25
    assert after["trainer"] == before["trainer"] | {"epochs": 9.0} and after["data"] == before["data"] | {"workers": 1}
    assert said.out.splitlines() == [
        "jepakit: run r goes on",
        "jepakit: data.workers changes from None to 1",
        "jepakit: trainer.epochs changes from 2.0 to 9.0",
    ]
    assert (folder / "command.txt").read_text().splitlines()[1] == "jepakit train run=r trainer.epochs=9 data.workers=1"
    assert OmegaConf.load(folder / "config.yaml").trainer.epochs == 9.0


REFUSED = {
    "seed=4": "seed cannot change within a run (r): start a new run",
    "masker=multiblock": "masker=multiblock cannot change within a run (r): start a new run",
    "masker.width=3": "masker.width cannot change within a run (r): start a new run",
    "distance=l1": "distance cannot change within a run (r): start a new run",
    "masker.widht=3": "unknown key 'masker.widht' (did you mean 'width'?); known: width, share, way",
    "optim.lr=fast": "optim.lr: Value 'fast' of type 'str' could not be converted to Float",
    "data.batch_size=0": "data.batch_size=0 is out of range: it has to be at least 1",
    "seed=1,2": "seed=1,2 has no place where a run is continued",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_cannot_change_within_a_run(cli, trained, override):
    cli("train", *BASE, "run=r")
    before = Path("r/config.yaml").read_text()
    said = cli("train", "run=r", override)
    assert (said.code, said.err) == (2, f"jepakit: error: {REFUSED[override]}\n")
    assert len(trained) == 1 and Path("r/config.yaml").read_text() == before


def test_a_run_that_is_misspelt(cli):
    cli("train", *BASE, "run=runs/first")
    said = cli("train", "run=runs/fist")
    line = "run=runs/fist: there is no run (did you mean 'runs/first'?); there are: runs/first"
    assert (said.code, said.err) == (2, f"jepakit: error: {line}\n")


def test_the_same_line_again_goes_on(cli, trained):
    trained.code = 130
    cli("train", *BASE, "run=r")
    assert cli("train", *BASE, "run=r").out == "jepakit: run r goes on\n"
    said = cli("train", *BASE, "run=r", "seed=5")
    line = "run=r is there already, with seed=0 in place of 5: name another folder, or continue it with run=r alone"
    assert (said.code, said.err) == (2, f"jepakit: error: {line}\n") and len(trained) == 2


def test_resume_auto(cli, trained):
    said = cli("train", *BASE, "resume=auto")
    assert "no unfinished run of recipe base with this configuration: a new one begins" in said.out
    trained.code = 130
    cli("train", *BASE, "seed=1")  # unfinished
    unfinished = trained[1][1]
    cli("train", *BASE, "seed=2")  # unfinished, but another
    assert f"run {unfinished} goes on" in cli("train", *BASE, "seed=1", "resume=auto", "trainer.epochs=3").out
    assert trained[-1][1] == unfinished and trained[-1][0]["trainer"]["epochs"] == 3.0
    assert "a new one begins" in cli("train", *BASE, "seed=7", "resume=auto").out


def test_another_version_of_a_plugin_is_told(cli, trained):
    cli("train", "--plugin", str(STUBS / "stub.py"), *BASE[:4], "run=r")
    file = Path("r/plugins.json")
    plugins = json.loads(file.read_text())
    next(each for each in plugins if each["name"] == "vit")["version"] = "0.0.9"
    file.write_text(json.dumps([*plugins, plugins[0] | {"name": "gone"}]))
    import jepakit

    said = cli("train", "run=r")
    assert said.code == 0
    assert f"jepakit: warning: plugin 'vit' was version 0.0.9, now {jepakit.__version__}\n" in said.err
    assert "jepakit: warning: plugin 'gone' was loaded, now missing\n" in said.err


# Hydra's flags ------------------------------------------------------------------------------------------------------


def test_cfg_prints_and_leaves_nothing(cli, trained, tmp_path):
    said = cli("train", *BASE, "--cfg", "job", "optim.lr=0.125")
    shown = OmegaConf.create(said.out)
    assert said.code == 0 and shown.optim.lr == 0.125 and shown.masker.name == "stripes"
    assert not trained and not list(tmp_path.iterdir())


def test_a_sweep_runs_every_job_in_a_folder_of_its_own(cli, trained, tmp_path):
    said = cli("train", "-m", *BASE, "masker=stripes,multiblock", "seed=1,2")
    assert said.code == 0, said.err
    assert [(config["masker"]["name"], config["seed"]) for config, _ in trained] == [
        ("stripes", 1),
        ("stripes", 2),
        ("multiblock", 1),
        ("multiblock", 2),
    ]
    folders = [folder for _, folder in trained]
    assert len({folder.parent for folder in folders}) == 1 and [each.name for each in folders] == list("0123")
    assert folders[0].parent.name.startswith("sweep-") and folders[0].parent.parent == Path("runs")
    assert all((folder / "config.yaml").exists() for folder in folders)
    assert [each.name for each in tmp_path.iterdir()] == ["runs"] and not list(tmp_path.rglob(".hydra"))
    assert "job 4 of 4: recipe=base data.root=/x masker=multiblock seed=2" in said.out


def test_a_sweep_is_checked_before_its_first_job(cli, trained, tmp_path):
    said = cli("train", "-m", *BASE, "optim.lr=0.1,-1")
    assert said.err == "jepakit: error: optim.lr=-1.0 is out of range: it has to be at least 0\n"
    assert said.code == 2 and not trained and not list(tmp_path.iterdir())


def test_a_sweep_over_strategies(cli, trained):
    assert cli("train", "-m", *BASE, "anti_collapse=still,[still,apart]").code == 0
    assert [list(config["anti_collapse"]) for config, _ in trained] == [["still"], ["still", "apart"]]


def test_an_interrupt_ends_a_sweep(cli, trained):
    trained.code = 130
    with pytest.raises(SystemExit) as left:
        cli("train", "-m", "seed=1,2")
    assert left.value.code == 130 and len(trained) == 1
