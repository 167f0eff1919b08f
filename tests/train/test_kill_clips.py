"""SIGKILL while a video JEPA trains on real clips: what goes on is the run that was never stopped."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jepakit import train
from jepakit.config import resolve
from tests.train import tiny

HERE, SEED, KILLS, STEPS = Path(__file__).parent, "0", "3", 4
SMALL = (
    *("recipe=vjepa_vitt16_small", "encoder.width=48", "encoder.depth=1", "encoder.heads=2", "predictor.width=24"),
    *("predictor.depth=1", "predictor.heads=2", "data.size=64", "data.frames=2", "data.stride=2", "data.batch_size=2"),
    *("data.workers=0", "evaluate.every=0", "logger.tensorboard=false", f"trainer.steps={STEPS}"),
    *("trainer.precision=fp32", "trainer.device=cpu", "trainer.threads=1", "trainer.log_every=1"),
    *("trainer.checkpoint_every=1", "data.max_bad=1.0"),
)

DAMAGED = {"audio_only_looking.mp4", "not_a_video.mp4", "zero_bytes.mp4"}


@pytest.fixture
def clips(real_data: Path, tmp_path: Path) -> Path:
    """A few real videos, and every damaged one."""
    root = tmp_path / "clips"
    root.mkdir()
    good = sorted((real_data / "videos").glob("*.mkv"))[:3]
    for path in (*good, *(real_data / "odd" / "videos").iterdir()):
        (root / path.name).symlink_to(path)
    return root


def test_killed_among_clips_that_cannot_be_read(clips, tmp_path):
    made = resolve([*SMALL, f"data.root={clips}"])
    for name in ("killed", "through"):
        (tmp_path / name).mkdir()
    (tmp_path / "config.json").write_text(json.dumps(made))
    paths = (HERE / "killed.py", tmp_path / "config.json", tmp_path / "killed")
    command = [sys.executable, *map(str, paths), SEED, KILLS]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    ends = json.loads(done.stdout or "[]")
    assert ends and ends[-1] == 0 and ends.count(-signal.SIGKILL) >= 2, (ends, done.stderr)
    assert train.run(made, tmp_path / "through") == 0
    assert tiny.lines(tmp_path / "killed") == tiny.lines(tmp_path / "through")
    (step, state), (_, expected) = (tiny.saved(made, tmp_path / name) for name in ("killed", "through"))
    assert step == STEPS and tiny.same(state, expected)
    listed = (tmp_path / "through" / "quarantine.jsonl").read_text().splitlines()
    bad = {Path(json.loads(line)["path"]).name for line in listed}
    assert DAMAGED <= bad <= DAMAGED | {"truncated_third.mkv"}  # of that one, frames before the end can be read
