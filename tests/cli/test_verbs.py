"""The verbs beside train hand over what was said, typed and checked."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from .conftest import STUBS

OWN = ("--config-dir", str(STUBS / "options"), "--plugin", str(STUBS / "stub.py"))


@pytest.fixture
def asked(monkeypatch):
    """What the stand-ins for the modules that do the work were called with."""
    import jepakit

    calls = []

    def stand_in(module: str, function: str, answer):
        def call(*given):
            calls.append(given)
            return answer

        fake = SimpleNamespace(**{function: call})
        monkeypatch.setitem(sys.modules, f"jepakit.{module}", fake)
        monkeypatch.setattr(jepakit, module, fake, raising=False)

    stand_in("evaluate", "command", 0)
    stand_in("pictures", "command", Path("masks.png"))
    stand_in("demo", "command", 0)
    return calls


def test_eval(cli, asked):
    cli("train", "run=r", "recipe=base", "data.root=/x", *OWN)
    assert cli("eval", "run=r", "protocol=linear", "data.batch_size=8", "data.root=/y", "fit_root=/z").code == 0
    options = {"protocol": "linear", "fit_root": "/z", "data": {"batch_size": 8, "root": "/y"}}
    assert asked == [(Path("r"), options, [])]
    said = cli("eval", "run=r", "data.rot=/y")
    assert said.code == 2 and said.err.startswith("jepakit: error: unknown key 'data.rot' (did you mean 'root'?)")
    assert cli("eval", "run=r", "data=folder", "data.root=/y").code == 0
    assert asked[-1] == (Path("r"), {"data": {"name": "folder", "root": "/y"}}, [])
    assert cli("eval", "run=r", "protocol=knn,linear").code == 0 and asked[-1][1]["protocol"] == ["knn", "linear"]


def test_show_masks(cli, asked):
    assert cli("show", "masks", "seed=3", "out=here.png").out == "masks.png\n"
    ((what, config, out),) = asked
    assert what == "masks" and config["seed"] == 3 and out == Path("here.png")


def test_show_curves_of_a_run(cli, asked):
    cli("train", "recipe=base", "data.root=/x", "run=r", *OWN)
    assert cli("show", "curves", "run=r").out == "masks.png\n"
    ((what, config, out),) = asked
    assert what == "curves" and config["run"] == "r" and config["recipe"] == "base" and out is None
    said = cli("show", "curves", "run=r", "seed=3")
    assert said.err == "jepakit: error: seed=3 has no place beside run=r, which has its own configuration\n"


def test_demo(cli, asked):
    assert cli("demo", "trainer.steps=2").code == 0
    assert cli("demo", "video", "seed=1").code == 0
    assert asked == [(["trainer.steps=2"],), (["video", "seed=1"],)]


def test_new_writes_a_plugin_that_is_found(cli):
    said = cli("new", "masker", "dots", "plugin")
    assert said.code == 0, said.err
    written = [Path(line) for line in said.out.splitlines()]
    assert written and all(path.is_file() for path in written)
    module = next(path for path in written if path.suffix == ".py" and "jepakit_register" in path.read_text())
    assert "masker=dots" in cli("plugins", "--plugin", str(module)).out


def test_doctor(cli, tmp_path):
    from importlib.metadata import version

    said = cli("doctor")
    rows = dict(line.split(maxsplit=1) for line in said.out.splitlines() if not line.startswith("plugin "))
    assert said.code == 0 and rows["torch"] == version("torch") and rows["decoder"] and "decoder pillow" in said.out
    assert "plugin vit" in said.out and f"GiB free for {tmp_path}/runs" in rows["disk"]


def test_doctor_tells_of_a_plugin_that_failed(cli, tmp_path):
    (tmp_path / "broken.py").write_text("import not_there_at_all\n")
    said = cli("doctor", "--plugin", "broken.py")
    assert said.code == 1 and "failed: ModuleNotFoundError: No module named 'not_there_at_all'" in said.out
