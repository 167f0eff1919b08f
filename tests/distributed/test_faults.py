"""What clusters do to jobs costs the steps since the last checkpoint, and nothing else."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.distributed.faults", str(tmp_path_factory.mktemp("faults"))]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def losses(scene: dict[str, Any]) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in scene["log"]]


@pytest.fixture
def whole(scenes) -> list[tuple[int, float]]:
    """The losses of a run that nothing came in the way of."""
    assert scenes["undisturbed"]["codes"] == [0, 0] and [step for step, _ in losses(scenes["undisturbed"])] == [
        *range(1, 7)
    ]
    return losses(scenes["undisturbed"])


def test_it_goes_on_in_any_number_of_processes_and_by_any_strategy(scenes, whole):
    *parts, last = scenes["spread"]
    assert [each["codes"] for each in parts] == [[130] * 4, [130] * 2, [130]] and last["codes"] == [0] * 4
    assert [each["kept"][-1] for each in (*parts, last)] == [f"step-{n:08d}" for n in (2, 4, 5, 6)]
    assert [step for step, _ in losses(last)] == [*range(1, 7)]
    assert [loss for _, loss in losses(last)] == pytest.approx([loss for _, loss in whole], rel=1e-5)


def test_shards_are_exported_as_one_file(scenes):
    found = scenes["shards"]
    assert found["code"] == 0 and found["files"] == 4 and len(found["same"]) > 10 and all(found["same"])


@pytest.mark.parametrize("scene", ["asked", "asked, in the background"])
def test_a_signal_to_one_saves_all(scenes, whole, scene):
    asked, resumed = scenes[scene]
    assert asked["codes"] == [130, 130] and asked["kept"][-1] == "step-00000003"
    assert resumed["codes"] == [0, 0] and losses(resumed) == whole


@pytest.mark.parametrize("scene", ["killed in a step", "killed in a save"])
def test_one_is_killed(scenes, whole, scene):
    killed, resumed = scenes[scene]
    assert killed["codes"][1] == -signal.SIGKILL and killed["codes"][0] != 0
    assert resumed["codes"] == [0, 0] and losses(resumed) == whole
    assert resumed["kept"] == ["step-00000005", "step-00000006"]


@pytest.mark.parametrize("scene", ["flipped byte", "missing shard", "lying manifest", "no manifest"])
def test_all_pass_over_a_damaged_checkpoint(scenes, whole, scene):
    """From the one before it they go on, and compute the same once more."""
    found = scenes[scene]
    assert found["codes"] == [0, 0] and found["said"] == ["", ""] and losses(found) == whole


def test_the_disk_of_one_is_full(scenes, whole):
    full, resumed = scenes["disk full"]
    assert full["codes"] == [2, 2] and full["kept"] == ["step-00000001", "step-00000002"]
    (said,) = set(full["said"])
    assert "step 3 could not be saved in" in said and "rank 1: OSError: " in said and "No space left" in said
    assert resumed["codes"] == [0, 0] and losses(resumed) == whole


def test_the_data_of_one_fails(scenes):
    assert scenes["data"]["codes"] == [2, 2]
    other, own = scenes["data"]["said"]
    assert own == "DataError: the disk of this machine is gone" and other.startswith("Elsewhere: ")


def test_one_computes_what_is_no_number(scenes, whole):
    found = scenes["nan"]
    assert found["codes"] == [0, 0] and [step for step, _ in losses(found)] == [1, 2, 4, 5, 6]
    assert losses(found)[:2] == whole[:2]
    first, second = scenes["nan file"]
    assert first["step"] == second["step"] == 2 and len(first["index"]) == len(second["index"]) == 4
    assert not set(first["index"]) & set(second["index"])
