"""Sweeps whose jobs are handed to a cluster's queue: submitit, with its local executor."""

from pathlib import Path

from tests.launch.commands import JEPAKIT, TINY, Command, kill_marked
from tests.train import tiny

OWN = """\
import jepakit
from jepakit_multiblock.multiblock import Multiblock

class Mine(Multiblock):
    pass

@jepakit.hookimpl
def jepakit_register(registrar):
    registrar.masker("mine", Mine)
"""


def test_jobs_train_in_processes_of_their_own_with_a_plugin_by_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    settings = [word.replace("masker=multiblock", "masker=mine") for word in TINY]
    swept = ["hydra/launcher=submitit_local", "hydra.sweep.dir=sweep", "trainer.steps=2", "optim.lr=1e-3,5e-4"]
    running = Command(Path("sweep"), [*JEPAKIT, "train", "-m", *settings, "--plugin", "own.py", *swept])
    try:
        assert running.end() == 0, running.said()
    finally:
        kill_marked(running.mark)
    for number, rate in enumerate((1e-3, 5e-4)):
        folder = Path("sweep", str(number))
        config = tiny_config(folder)
        assert config["optim"]["lr"] == rate and config["masker"]["name"] == "mine"
        assert len(tiny.lines(folder)) == 2 and (folder / "finished").exists()


def tiny_config(folder: Path) -> dict:
    from jepakit.runs import open_run

    return open_run(folder).config
