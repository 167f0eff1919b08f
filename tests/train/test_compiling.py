"""``trainer.compile``: what it decides, and that after a run's first steps nothing is compiled any more.

Graphs are counted by a backend that computes them operation by operation, so that no compiler is needed; in a process
of its own, where no call's shapes are checked: the checks do not compile.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.fx.experimental._config as symbols
from timm.layers import DropPath
from torch import nn

from jepakit import compiling, doctor
from jepakit.config import resolve
from jepakit.errors import ConfigError, TrainingError
from tests.train import tiny

STEPS, WARM = 40, 2
"""Steps of a run, and those after which every way to call a block has been met."""

COUNTED = """
import functools, json, sys
from pathlib import Path
import torch, torch._dynamo
from jepakit import branch, compiling, train

train.report = lambda *_: []
config, warm, folder = json.loads(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
torch._dynamo.config.fail_on_recompile_limit_hit = True
steps, graphs, shapes = [0], [], set()
ask, train_step = branch.ask, train.Trainer.train_step

def asked(*args):
    masks = ask(*args)
    shapes.update((mask.context.shape[1], mask.target.shape[2]) for mask in masks if mask.context is not None)
    return masks

def stepped(self, taken):
    steps[0] += 1
    torch._dynamo.config.error_on_recompile = steps[0] > warm
    return train_step(self, taken)

def counting(graph, inputs):
    graphs.append(steps[0])
    return graph.forward

branch.ask, train.Trainer.train_step = asked, stepped
compiling.compile_blocks = functools.partial(compiling.compile_blocks, backend=counting)
for name in ("eager", "compiled"):
    steps[0] = 0
    (folder / name).mkdir()
    with torch.compiler.set_stance("force_eager" if name == "eager" else "default"):
        train.run(config, folder / name)
breaks = dict(torch._dynamo.utils.counters["graph_break"])
(folder / "found.json").write_text(json.dumps({"graphs": graphs, "shapes": len(shapes), "breaks": breaks}))
"""

VIDEO = (
    "data=world_moving_plain data.side=32 data.size=32 data.frames=4 encoder.depth=3 encoder.width=24 encoder.heads=2 "
)
VIDEO += "encoder.native=null predictor.depth=2 predictor.width=24 predictor.heads=2 predictor.native=null "
VIDEO += "tokenizer.patch=4 trainer.global_batch=null "
KINDS = {
    "vjepa2": f"recipe=vjepa2_vitl16 {VIDEO} tokenizer.tubelet=2 trainer.precision=bf16",
    "vjepa21": f"recipe=vjepa21_vitl16 {VIDEO} encoder.layers=[0,2] predictor.levels=2 data@branches.image.data=world "
    "branches.image.data.side=32 branches.image.data.size=32 branches.image.data.batch_size=3",
    "lejepa": "recipe=lejepa_vitt4_32px data=world data.side=32 encoder.drop_path=0.1 encoder.model_args.depth=3 "
    "+encoder.model_args.embed_dim=24 +encoder.model_args.num_heads=2",
}
GRAPHS = {"ijepa": 8, "vjepa2": 6 if torch.__version__.startswith("2.11.") else 4, "vjepa21": 4, "lejepa": 2}
"""The most that each method compiles: with a gradient and without; all tokens, some by index, those in a row; with
paths that are dropped and without; of inputs of 16 and of 32 bits."""


def configuration(kind: str) -> dict[str, Any]:
    """Of a tiny run of ``STEPS`` steps with blocks that are compiled, and with scores between them."""
    if kind == "ijepa":
        made = tiny.config(encoder={**tiny.BASE["encoder"], "depth": 4, "drop_path": 0.2}, evaluate__every=STEPS // 2)
        made["masker"] = {"name": "multiblock", "mode": "official"}
        made["predictor"]["depth"] = 3
        made["data"] |= {"size": 48, "side": 48, "batch_size": 2}
    else:
        made = resolve([*KINDS[kind].split(), "data.batch_size=2", "evaluate.every=0", "logger.tensorboard=false"])
        for data in (made["data"], *(branch["data"] or {} for branch in made["branches"].values())):
            data["workers"] = 0
    made["trainer"] |= {"steps": STEPS, "device": "cpu", "threads": 1, "log_every": STEPS // 4, "compile": True}
    return made


@pytest.mark.parametrize("kind", GRAPHS)
def test_nothing_is_compiled_after_the_first_steps(kind: str, tmp_path: Path):
    """However many tokens there are; and what is computed is the same as operation by operation."""
    made = configuration(kind)
    done = script(COUNTED, json.dumps(made), str(WARM), str(tmp_path))
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["breaks"] == {} and 0 < len(found["graphs"]) <= GRAPHS[kind], found
    assert max(found["graphs"]) <= WARM and (kind == "lejepa" or found["shapes"] > 10), found
    eager, compiled = (tiny.lines(tmp_path / name) for name in ("eager", "compiled"))
    losses = [torch.tensor([line["loss"] for line in log if "loss" in line]) for log in (compiled, eager)]
    assert len(losses[0]) == 4
    torch.testing.assert_close(*losses, rtol=2e-2 if made["trainer"]["precision"] == "bf16" else 1e-5, atol=0)
    assert "blocks are compiled" in (tmp_path / "compiled" / "log.txt").read_text()


def script(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own."""
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=280)


# What it decides ------------------------------------------------------------------------------------------------------


def test_auto_compiles_on_a_gpu_where_triton_works(monkeypatch: pytest.MonkeyPatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert compiling.chosen("auto", cpu) == (False, "it does not pay on a CPU")
    assert compiling.chosen(True, cpu) == (True, "trainer.compile=true")
    assert compiling.chosen(False, cuda) == (False, "trainer.compile=false")
    monkeypatch.setattr(compiling, "refused", lambda device: "")
    assert compiling.chosen("auto", cuda) == (True, "Triton works here")
    monkeypatch.setattr(compiling, "refused", lambda device: "no Triton")
    assert compiling.chosen("auto", cuda) == (False, "no Triton")


def test_a_run_says_what_became_of_it(monkeypatch: pytest.MonkeyPatch):
    cpu, cuda, bare = torch.device("cpu"), torch.device("cuda", 0), nn.Linear(2, 2)
    monkeypatch.setattr(compiling, "refused", lambda device: "no Triton")
    assert compiling.prepared(bare, "auto", cpu) == (False, "") == compiling.prepared(bare, False, cuda)
    assert compiling.prepared(bare, "auto", cuda) == (False, "blocks are not compiled: no Triton")
    assert compiling.prepared(bare, True, cpu) == (
        False,
        "nothing is compiled: no part of the model is a stack of blocks",
    )


def test_the_option_is_a_word_or_a_switch():
    for value, read in (("auto", "auto"), ("true", True), ("false", False)):
        assert resolve([f"trainer.compile={value}"])["trainer"]["compile"] is read or read == "auto"
    with pytest.raises(ConfigError, match=r"^trainer.compile=atuo is no choice \(did you mean 'auto'\?\); there are: "):
        resolve(["trainer.compile=atuo"])
    with pytest.raises(ConfigError, match=r"^trainer.compile: Value '3' .*bool, str"):
        resolve(["trainer.compile=3"])


def test_doctor_says_what_auto_does_here(capsys: pytest.CaptureFixture):
    doctor.command()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("compile auto")]
    here = "it does not pay on a CPU (cpu)" if not torch.cuda.is_available() else "(cuda)"
    assert len(rows) == 1 and rows[0].endswith(here)


@pytest.mark.gpu
def test_something_can_be_compiled_here():
    assert compiling.refused(torch.device("cuda")) == ""


# What it says where it fails ------------------------------------------------------------------------------------------

FAILING = """
import json, sys
from pathlib import Path
import torch
from jepakit import train
from jepakit.compiling import refused
from jepakit.errors import TrainingError

print(refused(torch.device("cpu")))
try:
    train.run(json.loads(sys.argv[1]), Path(sys.argv[2]))
except TrainingError as error:
    print(error)
"""


def test_a_compiler_that_is_not_there_is_said(tmp_path: Path):
    """By the trial that decides, and by a run that was told to compile."""
    made = tiny.config(trainer__compile=True, trainer__steps=2)
    where = {"CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    (folder := tmp_path / "run").mkdir()
    done = script(FAILING, json.dumps(made), str(folder), **where)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[0].startswith("it was tried, and failed: "), done.stderr[-2000:]
    assert lines[-1].startswith("a block could not be compiled (") and "/nowhere/c++" in lines[-1]
    assert lines[-1].endswith("; trainer.compile=false goes on without")


def test_other_errors_are_passed_on():
    with pytest.raises(ZeroDivisionError), compiling.explained():
        _ = 1 // 0
    with pytest.raises(TrainingError, match="a block could not be compiled"), compiling.explained():
        raise torch._dynamo.exc.InternalTorchDynamoError("a graph that cannot be")


# Dropped paths --------------------------------------------------------------------------------------------------------


class Stack(nn.Module):
    """One block that is nothing but a dropped path, with a parameter."""

    def __init__(self, rate: float):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), DropPath(rate))])

    @property
    def path(self) -> Any:
        return self.blocks[0][1]


def test_paths_are_dropped_as_before(monkeypatch: pytest.MonkeyPatch):
    """As often, with the same mean, and never in evaluation; parameters, buffers and names stay."""
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", torch._dynamo.config.recompile_limit)
    monkeypatch.setattr(symbols, "use_duck_shape", symbols.use_duck_shape)
    model, x = Stack(0.25), torch.ones(4000, 3, 2)
    names = list(model.state_dict())
    assert compiling.compile_blocks(model) == 1 and list(model.state_dict()) == names
    assert torch._dynamo.config.recompile_limit >= compiling.LIMIT
    torch.manual_seed(0)
    y = model.path(x)
    assert y.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert (y == y[:, :1, :1]).all() and (y[:, 0, 0] == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert model.path.eval()(x) is x
    certain, none = Stack(1.0), Stack(0.0)
    compiling.compile_blocks(nn.ModuleList([certain, none]))
    assert not certain.path(x).any() and none.path(x) is x
