"""``trainer.cuda_graphs``: a teacher that is played from a recording gives what a teacher that computes gives.

No GPU is needed. What stands in for CUDA's graphs keeps each operation with the tensors that it read and wrote, and
replays it on these same tensors: what a recording must not rely on (another input, parameters that lie elsewhere, a
result that is kept) goes as wrong as it would there.
"""

import contextlib
import copy
import gc
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from jepakit import cudagraphs, doctor, train
from jepakit.bench.roofline import tally
from jepakit.bench.sides import of_config
from jepakit.build import build
from jepakit.compiling import compile_blocks
from jepakit.config import resolve
from jepakit.cudagraphs import GAIN, LIMIT, Replayed, chosen, install, paused
from jepakit.device import autocast
from jepakit.errors import ConfigError
from tests.train import tiny

CUDA = torch.device("cuda", 0)
CURRENT = ["main"]
"""The stream that kernels go to."""


class Graph(TorchDispatchMode):
    """A graph, and the mode that captures it."""

    made: list["Graph"] = []

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[Any, ...]] = []
        self.plays, self.shared = 0, None
        Graph.made.append(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.kept.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        self.plays += 1
        opaque: dict[int, Tensor] = {}  # oneDNN's, which have no address: what was made anew in their place
        for func, *given, out in self.kept:
            args, kwargs = tree_map(lambda each: opaque.get(id(each), each), given)
            again = func(*args, **kwargs)
            if func.is_view or func._schema.is_mutable:
                continue  # it lies where it lay
            for one, other in zip(_tensors(out), _tensors(again), strict=True):
                if one.is_mkldnn:
                    opaque[id(one)] = other
                else:
                    one.copy_(other)

    def pool(self) -> int:
        return id(self) if self.shared is None else self.shared


def _tensors(tree: Any) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]


@contextlib.contextmanager
def capture(graph: Graph, stream: str, pool: Any = None, capture_error_mode: str = "global") -> Iterator[None]:
    """As PyTorch before 2.15 does it: where something fails within, its own stream stays the current one."""
    assert capture_error_mode == "thread_local" and not gc.isenabled()
    graph.shared, CURRENT[:] = pool, [stream]
    with graph:
        yield
    CURRENT[:] = ["main"]


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in for a GPU's graphs, and a clock by which they are twice as fast."""
    monkeypatch.setattr(Graph, "made", [])
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "side")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: CURRENT[0])
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: CURRENT.__setitem__(0, stream))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices, fork=torch.random.fork_rng: fork([]))
    _ticks(monkeypatch, 2.0, 1.0)


def _ticks(monkeypatch: pytest.MonkeyPatch, computed: float, played: float) -> None:
    """Have a call that is computed and one that is played take so long, by turns."""
    steps = itertools.cycle((0.0, computed, 0.0, played))
    monkeypatch.setattr(cudagraphs.time, "perf_counter", Clock(steps))


class Clock:
    def __init__(self, steps: Iterator[float]):
        self.steps, self.now = steps, 0.0

    def __call__(self) -> float:
        self.now += next(self.steps)
        return self.now


class Small(nn.Module):
    """A module with a method that is worth recording."""

    replays = ("trunk",)

    def __init__(self, extra: Callable[[Tensor], Tensor] = lambda x: x):
        super().__init__()
        self.layer, self.extra, self.calls = nn.Linear(3, 3), extra, 0

    def trunk(self, x: Tensor, turn: Tensor | None, end: int) -> Tensor:
        self.calls += 1
        x = self.layer(x) if turn is None else self.layer(x) * turn
        return self.extra(x[:, :end].contiguous())


@pytest.fixture
def said() -> list[str]:
    return []


def small(said: list[str], extra: Callable[[Tensor], Tensor] = lambda x: x, always: bool = False) -> Any:
    module = Small(extra)
    install(nn.Sequential(module), said.append, always)
    return module


# A run ----------------------------------------------------------------------------------------------------------------


def run(folder: Path, **changes: Any) -> list[float]:
    """The losses of seven steps in which the teacher moves a long way."""
    encoder = {**tiny.BASE["encoder"], "depth": 3, "drop_path": 0.0, **changes.pop("encoder", {})}
    made = tiny.config(encoder=encoder, evaluate__every=3, trainer__steps=7, **changes)
    made["anti_collapse"]["ema"] |= {"start": 0.5, "end": 0.9}
    folder.mkdir()
    train.run(made, folder)
    return [line["loss"] for line in tiny.lines(folder) if "loss" in line]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("positions", ["sincos_2d", "rope"])
def test_a_run_has_the_same_losses(positions: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The scores in between are computed: they are of other shapes."""
    monkeypatch.setattr(train, "report", lambda *_: [tmp_path])
    settings: Any = {"encoder": {"positions": positions}, "trainer__precision": precision}
    computed = run(tmp_path / "computed", **settings)
    monkeypatch.setattr(cudagraphs, "chosen", lambda *_: (True, ""))
    assert run(tmp_path / "played", **settings) == computed and len(set(computed)) == 7
    assert len(Graph.made) == 2  # where masks ask for all tokens, all blocks; else all but the last
    assert sum(graph.plays - 1 - cudagraphs.ROUNDS for graph in Graph.made) == 7
    text = (tmp_path / "played" / "log.txt").read_text()
    assert text.count("the teacher's blocks, 8 x 16 x 32, are played from a recording (a CUDA graph), 2.00 times") == 2


def test_a_teacher_that_drops_paths_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It gives something else each time; and what it would have dropped it drops, as if nothing had been tried."""
    monkeypatch.setattr(train, "report", lambda *_: [tmp_path])
    computed = run(tmp_path / "computed", encoder={"drop_path": 0.3})
    monkeypatch.setattr(cudagraphs, "chosen", lambda *_: (True, ""))
    assert run(tmp_path / "tried", encoder={"drop_path": 0.3}) == computed
    assert (
        "no CUDA graph of the teacher's blocks, 8 x 16 x 32: played, they give"
        in (tmp_path / "tried" / "log.txt").read_text()
    )


def test_a_teacher_that_sees_blocks_alone_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They are of other lengths in every step."""
    monkeypatch.setattr(train, "report", lambda *_: [tmp_path])
    monkeypatch.setattr(cudagraphs, "chosen", lambda *_: (True, ""))
    run(tmp_path / "run", anti_collapse={"ema": {"name": "ema", "mask": "input"}})
    assert not Graph.made


def test_the_roofline_sees_what_would_be_played(monkeypatch: pytest.MonkeyPatch):
    made = tiny.config(encoder={**tiny.BASE["encoder"], "depth": 3, "drop_path": 0.0})
    found = []
    for records in (False, True):
        monkeypatch.setattr(cudagraphs, "chosen", lambda *_, records=records: (records, ""))
        with of_config("tiny", made) as side:
            side.take(1)
            found.append({name: work.flops for name, work in tally(side).items()})
    assert found[0] == found[1] and Graph.made


# A recording ----------------------------------------------------------------------------------------------------------


def test_what_is_played_reads_its_input_and_the_parameters_where_they_lie(said: list[str]):
    module = small(said)
    calls = 0
    with torch.no_grad():
        for number in range(4):
            x = torch.randn(2, 3)
            torch.testing.assert_close(module.trunk(x, None, 3), module.layer(x), rtol=0, atol=0)
            module.layer.weight.mul_(0.5)
            assert number == 0 or module.calls == calls
            calls = module.calls
    assert said == ["the teacher's blocks, 2 x 3, are played from a recording (a CUDA graph), 2.00 times as fast"]


def test_each_kind_of_call_has_its_own(said: list[str]):
    """By shapes, types, words and whether there is autocast; they share the memory of what lies between."""
    module, turn = small(said), torch.full((1, 3), 2.0)
    kinds: list[Any] = [((2, 3), None, 3), ((5, 3), None, 3), ((2, 3), turn, 3), ((2, 3), None, 2)]
    with torch.no_grad():
        for _ in range(2):
            for shape, *rest in kinds:
                x = torch.randn(shape)
                torch.testing.assert_close(module.trunk(x, *rest), Small.trunk(module, x, *rest), rtol=0, atol=0)
            with torch.autocast("cpu", torch.bfloat16):
                assert module.trunk(torch.randn(2, 3), None, 3).dtype == torch.bfloat16
    assert len(Graph.made) == 5 and len({graph.pool() for graph in Graph.made}) == 1


def test_weights_of_16_bits_are_made_again_each_time(said: list[str]):
    """Those of parameters with a gradient autocast keeps for the length of a step, outside of what is recorded."""
    module = small(said)
    assert module.layer.weight.requires_grad
    for _ in range(3):
        x = torch.randn(2, 3)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(module.trunk(x, None, 3), Small.trunk(module, x, None, 3))
            module.layer.weight.mul_(0.5)
    assert len(Graph.made) == 1


def test_parameters_that_have_moved_elsewhere_are_recorded_again(said: list[str]):
    module, x = small(said), torch.randn(2, 3)
    with torch.no_grad():
        module.trunk(x, None, 3)
        module.layer.weight.data = torch.eye(3)
        torch.testing.assert_close(module.trunk(x, None, 3), x + module.layer.bias, rtol=0, atol=0)
    assert len(Graph.made) == 2


def test_there_is_an_end_to_kinds(said: list[str]):
    module = small(said)
    with torch.no_grad():
        for count in [*range(1, LIMIT + 4), 1]:
            x = torch.randn(count, 3)
            torch.testing.assert_close(module.trunk(x, None, 3), module.layer(x), rtol=0, atol=0)
    assert len(Graph.made) == LIMIT and Graph.made[0].plays == 2 + cudagraphs.ROUNDS + 1
    assert [line for line in said if "more than" in line] == [
        f"the teacher's blocks are called in more than {LIMIT} ways: those that follow are not recorded"
    ]


def test_with_a_gradient_or_paused_it_computes(said: list[str]):
    module = small(said)
    assert module.trunk(torch.randn(2, 3), None, 3).requires_grad
    with torch.no_grad(), paused():
        module.trunk(torch.randn(2, 3), None, 3)
    assert not Graph.made and not Replayed.paused and not said


def test_a_copy_computes_by_itself(said: list[str]):
    module, x = small(said), torch.randn(2, 3)
    with torch.no_grad():
        module.trunk(x, None, 3)
        copied = copy.deepcopy(module)
        copied.layer.weight.zero_()
        torch.testing.assert_close(copied.trunk(x, None, 3), copied.layer.bias.expand(2, 3), rtol=0, atol=0)
        torch.testing.assert_close(module.trunk(x, None, 3), module.layer(x), rtol=0, atol=0)
    assert not isinstance(copied.trunk, Replayed)


# What is not worth it -------------------------------------------------------------------------------------------------


def test_what_gives_something_else_is_computed(said: list[str]):
    """A number that Python counts is no part of a recording."""
    count = itertools.count()
    module = small(said, lambda x: x + next(count))
    with torch.no_grad():
        found = [module.trunk(torch.zeros(2, 3), None, 3)[0, 0].item() for _ in range(3)]
    assert found[1] - found[0] == pytest.approx(1) == found[2] - found[1]
    assert said == ["no CUDA graph of the teacher's blocks, 2 x 3: played, they give something else"]


def test_what_is_no_faster_is_computed(said: list[str], monkeypatch: pytest.MonkeyPatch):
    _ticks(monkeypatch, GAIN - 0.01, 1.0)
    module, bold = small(said), small([], always=True)
    with torch.no_grad():
        for each in (module, bold):
            each.trunk(torch.randn(2, 3), None, 3)
            each.trunk(torch.randn(2, 3), None, 3)
    assert said == ["no CUDA graph of the teacher's blocks, 2 x 3: it is 1.04 times as fast"]
    assert [graph.plays for graph in Graph.made] == [1 + cudagraphs.ROUNDS, 1 + cudagraphs.ROUNDS + 2]


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted"), torch.OutOfMemoryError("out of memory")])
def test_what_cannot_be_recorded_is_computed(error: Exception, said: list[str], monkeypatch: pytest.MonkeyPatch):
    @contextlib.contextmanager
    def failing(*_: Any, stream: str, **__: Any) -> Iterator[None]:
        CURRENT[:] = [stream]
        yield
        raise error

    monkeypatch.setattr(torch.cuda, "graph", failing)
    module = small(said)
    with torch.no_grad():
        for _ in range(2):
            x = torch.randn(2, 3)
            torch.testing.assert_close(module.trunk(x, None, 3), module.layer(x), rtol=0, atol=0)
    assert said == [
        f"no CUDA graph of the teacher's blocks, 2 x 3: {type(error).__name__}: {error} "
        "(trainer.cuda_graphs=false does not try)"
    ]
    assert CURRENT == ["main"] and gc.isenabled()


def test_other_errors_are_not_hidden(said: list[str]):
    def wrong(x: Tensor) -> Tensor:
        raise ZeroDivisionError

    module = small(said, wrong)
    with torch.no_grad(), pytest.raises(ZeroDivisionError):
        module.trunk(torch.randn(2, 3), None, 3)


# What it decides ------------------------------------------------------------------------------------------------------


def test_auto_tries_on_a_gpu():
    cpu = torch.device("cpu")
    assert chosen("auto", cpu) == chosen(True, cpu) == (False, "they are a GPU's")
    assert chosen("auto", CUDA)[0] == (torch.__version__ >= cudagraphs.MENDED) and chosen(True, CUDA) == (
        True,
        "trainer.cuda_graphs=true",
    )
    assert chosen(False, CUDA) == (False, "trainer.cuda_graphs=false")


def test_auto_leaves_it_where_pytorch_cannot_go_on_after_a_failure(monkeypatch: pytest.MonkeyPatch):
    for version, tries in (("2.11.0", False), ("2.12.1", False), ("2.13.0", True), ("2.15.0+cu132", True)):
        monkeypatch.setattr(torch, "__version__", TorchVersion(version))
        assert chosen("auto", CUDA)[0] is tries and chosen(True, CUDA)[0]
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.11.0"))
    assert chosen("auto", CUDA)[1] == "PyTorch 2.11.0 cannot go on after one that fails, 2.13 can"


def test_a_run_says_what_became_of_it(said: list[str]):
    def prepared(asked: bool | str, device: torch.device, whole: bool = True) -> tuple[str, int]:
        jepa = build(tiny.config(), 3).jepa
        answer = cudagraphs.prepare(jepa, asked, device, whole, said.append)
        return answer, sum(isinstance(vars(each).get("trunk"), Replayed) for each in jepa.modules())

    cpu = torch.device("cpu")
    assert prepared("auto", cpu) == prepared(False, CUDA) == ("", 0)
    assert prepared(True, cpu) == ("no CUDA graphs: they are a GPU's", 0)
    assert prepared("auto", CUDA, whole=False) == ("no CUDA graphs: parameters lie in shards", 0)
    assert prepared("auto", CUDA) == ("", 1) and not said


def test_doctor_says_what_auto_does(capsys: pytest.CaptureFixture[str]):
    doctor.command()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("CUDA graphs auto")]
    assert len(rows) == 1 and ("none: they are a GPU's (cpu)" in rows[0] or torch.cuda.is_available())


def test_the_option_is_a_word_or_a_switch():
    for value, read in (("auto", "auto"), ("true", True), ("false", False)):
        assert resolve([f"trainer.cuda_graphs={value}"])["trainer"]["cuda_graphs"] == read
    with pytest.raises(ConfigError, match=r"^trainer.cuda_graphs=atuo is no choice \(did you mean 'auto'\?\)"):
        resolve(["trainer.cuda_graphs=atuo"])


@pytest.mark.gpu
@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu(precision: str, compiles: bool, monkeypatch: pytest.MonkeyPatch, said: list[str]):
    """The real thing: the same bits, while the parameters move."""
    monkeypatch.undo()
    made = tiny.config(encoder={**tiny.BASE["encoder"], "depth": 3})
    backbone = build(made, 3).jepa.target_backbone.to(CUDA).requires_grad_(False).eval()
    if compiles:
        compile_blocks(backbone)
    install(backbone, said.append, always=True)
    pixels = torch.randn(4, 3, 1, 16, 16, device=CUDA)
    with torch.no_grad():
        for _ in range(3):
            with autocast(CUDA, precision):
                played = backbone(pixels)
                with paused():
                    assert torch.equal(played, backbone(pixels))
            for each in backbone.parameters():
                each.mul_(0.9)
            pixels = pixels.flip(0)
    assert len(said) == 1 and "are played from a recording" in said[0], said


@pytest.mark.gpu
@pytest.mark.skipif(torch.__version__ < cudagraphs.MENDED, reason="PyTorch cannot go on after a recording that fails")
def test_a_gpu_goes_on_after_a_recording_that_failed(monkeypatch: pytest.MonkeyPatch, said: list[str]):
    """What the host has to see cannot be recorded; graphs that are garbage are in nobody's way."""
    monkeypatch.undo()
    good, bad, gone = (Small(extra).to(CUDA) for extra in (torch.sin, lambda x: x * x.sum().item(), lambda x: x))
    stream, x = torch.cuda.current_stream(), torch.randn(2, 3, device=CUDA)
    with torch.no_grad():
        for module in (good, gone):
            install(module, said.append, always=True)
            module.trunk(x, None, 3)
        del module, gone  # its graph goes with it, while the next one is recorded
        install(bad, said.append, always=True)
        assert torch.equal(bad.trunk(x, None, 3), Small.trunk(bad, x, None, 3))
        assert torch.equal(good.trunk(-x, None, 3), Small.trunk(good, -x, None, 3))
    assert torch.rand(2, device=CUDA).isfinite().all() and torch.cuda.current_stream() == stream
    assert [" are played from a recording" in line for line in said] == [True, True, False]
