"""A job that is started in the folder of one that trains: refused before it has changed a byte of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from jepakit import lock, runs
from jepakit.catalog import collect
from jepakit.config import resolve
from jepakit.errors import ConfigError
from jepakit.launch import train

HOLDER = Path(__file__).with_name("holder.py")


@pytest.fixture
def busy(tmp_path: Path):
    """The folder of a run that another process trains."""
    folder = tmp_path / "run"
    runs.create(resolve(["recipe=demo"]), collect().plugins, ["train", "recipe=demo"], folder)
    runs.finish(folder)
    command = [sys.executable, str(HOLDER), str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().startswith("held")
    yield folder
    process.communicate()


@pytest.mark.parametrize("line", [["trainer.epochs=20"], ["recipe=demo"], ["recipe=demo", "trainer.epochs=20"]])
def test_it_is_refused_and_nothing_is_written(line, busy):
    before = {path.name: path.read_bytes() for path in busy.iterdir()}
    with pytest.raises(ConfigError, match=f"^run={busy}: process .* trains there; wait until it ends"):
        train([f"run={busy}", *line])
    assert {path.name: path.read_bytes() for path in busy.iterdir()} == before and lock.NAME in before


def test_a_run_holds_its_folder_and_lets_it_go(tmp_path, monkeypatch):
    """A new one, also where it fails and is taken back."""
    seen = []

    def run(config, folder):
        seen.append((folder / lock.NAME).exists())
        raise ConfigError("no") if len(seen) == 1 else SystemExit

    monkeypatch.setattr("jepakit.train.run", run)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="^no$"):
        train(["recipe=demo", "run=mine"])
    assert seen == [True] and not Path("mine").exists()
    with pytest.raises(SystemExit):
        train(["recipe=demo", "run=mine"])
    assert seen == [True, True] and not (Path("mine") / lock.NAME).exists()
