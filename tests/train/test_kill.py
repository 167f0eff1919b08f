"""SIGKILL at any moment costs the steps since the last checkpoint, and nothing else."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.train import tiny

HERE, SEED = Path(__file__).parent, "0"


def test_killed_again_and_again(tmp_path, undisturbed):
    """Also in the middle of a save: a checkpoint is written after every step."""
    made = tiny.config(trainer__checkpoint_every=1)
    (tmp_path / "config.json").write_text(json.dumps(made))
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, str(HERE / "killed.py"), str(tmp_path / "config.json"), str(folder), SEED]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    ends = json.loads(done.stdout or "[]")
    assert ends and ends[-1] == 0 and ends.count(-signal.SIGKILL) >= 4, (ends, done.stderr)
    log, state = undisturbed()
    assert tiny.lines(folder) == log
    assert tiny.saved(made, folder)[0] == tiny.STEPS and tiny.same(tiny.saved(made, folder)[1], state)
    assert [path.name for path in tiny.checkpoints(folder)] == ["step-00000011", "step-00000012"]
