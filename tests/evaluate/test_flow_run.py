"""A run with a branch that infers motion: trained, scored on its own pairs and on others, and drawn."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from jepakit.cli import main
from jepakit.data.world_pairs import WorldPairs
from jepakit.evaluate.features import samples
from jepakit.pictures.report import _flow
from jepakit.plugins import discover
from jepakit.runs import open_run
from jepakit.train import Trainer

PLUGIN = Path(__file__).with_name("drift.py")
RECIPE = """\
defaults:
  - /data@branches.motion.data: world_pairs
  - /predictor@branches.motion.predictor: drift
  - override /data: world
  - override /tokenizer: patch
  - override /masker: pair
  - override /encoder: vit
  - override /predictor: identity
  - override /anti_collapse: [ema]
data: {length: 16, side: 16, size: 16, batch_size: 4, workers: 0}
views: {one: {}, other: {}}
tokenizer: {patch: 8}
encoder: {width: 16, depth: 1, heads: 2}
branches:
  content: {}
  motion:
    views: {now: {frame: 0}, next: {frame: 1}}
    data: {length: 16, side: 16, size: 16, batch_size: 4, workers: 0, things: 0}
    predictor: {right: 0.5}
trainer: {steps: 2, device: cpu, precision: fp32, threads: 1}
evaluate: {every: 0}
logger: {tensorboard: false}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, without the pictures of its end."""
    folder = tmp_path_factory.mktemp("flow")
    (folder / "both.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:  # what conftest's fixture does for each test
        patch.setenv("JEPAKIT_PLUGIN_FILES", "")
        patch.setattr("jepakit.train.report", lambda *_: [])
        assert main(["train", f"recipe={folder}/both.yaml", f"run={folder}/run", "--plugin", str(PLUGIN)]) == 0
    return folder / "run"


def scored(run: Path, *more: str) -> dict:
    """The newest result, after another evaluation."""
    assert main(["eval", f"run={run}", "protocol=flow", "pictures=0", *more, "--plugin", str(PLUGIN)]) == 0
    return json.loads((run / "evaluate/results.jsonl").read_text().splitlines()[-1])


def test_its_own_pairs_are_the_held_out_ones_of_its_branch(run):
    found = scored(run, "limit=5", "speeds=[0.5,1]")
    assert found["test"]["text"] == "5 pairs of 2,000, the run's held-out data" and found["label"] == "world_pairs"
    cells = {row["name"]: row["flow"] for row in found["rows"]}
    source = WorldPairs(16, 16, things=0).held_out_source()
    truths = [source.truth(index) for index in samples(2000, 5).tolist()]
    for name, right in (("trained model", 0.5), ("untrained model", 0.5), ("zero flow", 0.0)):
        errors = [(each.flow - torch.tensor([right, 0]).view(2, 1, 1)).norm(dim=0).mean().item() for each in truths]
        assert cells[name]["score"] == pytest.approx(sum(errors) / 5, rel=1e-5)
    assert cells["zero flow"]["pairs"] == 5 and "s0.5-1" in cells["zero flow"]["measures"]


def test_other_pairs_are_scored_by_name(run, capsys):
    found = scored(run, "data.name=world_pairs", "data.length=3", "data.side=24", "data.split=test", "size=16")
    assert found["test"]["text"] == "3 pairs, the data given" and found["test"]["given"]["side"] == "24"
    assert found["rows"][2]["flow"]["pixels"] == 3 * 24 * 24 and found["protocols"]["flow"]["size"] == 16
    capsys.readouterr()
    assert main(["eval", f"run={run}", "protocol=flow", "data.name=world", "--plugin", str(PLUGIN)]) == 2
    assert "data=world has no pairs of frames with true flow" in capsys.readouterr().err


def test_the_report_has_a_sheet_of_its_flow(run, tmp_path):
    discover([PLUGIN])
    trainer = Trainer(open_run(run).config, run)
    trainer.log.close()
    assert [branch.name for branch in trainer.branches] == ["content", "motion"]
    assert _flow(trainer.branches[:1], tmp_path / "none.png", trainer.device) == []
    (drawn,) = _flow(trainer.branches, tmp_path / "flow.png", trainer.device)
    with Image.open(drawn) as image:
        assert image.convert("L").getextrema()[0] < 100
