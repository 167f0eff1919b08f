"""Operations and bytes of the parts of a step, and the limits that they are put beside."""

import pytest
import torch
from torch import nn

from jepakit.bench import machine
from jepakit.bench.machine import Limits
from jepakit.bench.roofline import Tally, Work, beside, roofline, tally
from jepakit.bench.sides import of_config
from jepakit.branch import Branch
from jepakit.plan import count
from tests.bench.conftest import method

FLOAT = 4


def counted(work, part="rest") -> Work:
    counts = Tally()
    with torch.no_grad(), counts:
        work()
    return counts.parts.get(part, Work())


def test_a_linear_layer_is_counted_exactly():
    """It reads its tokens, weight and bias and writes its answers; that its weight is turned over moves nothing."""
    layer, tokens = nn.Linear(8, 16), torch.ones(2, 3, 8)
    found = counted(lambda: layer(tokens))
    assert found == Work(flops=2 * 6 * 8 * 16, bytes=FLOAT * (6 * 8 + 8 * 16 + 16 + 6 * 16), calls=1)


@pytest.mark.parametrize("name", ["view", "mT", "empty_like", "detach", "item"])
def test_what_moves_nothing(name):
    one = torch.ones(1, 1)
    does = {"view": lambda: one.view(1), "mT": lambda: one.mT, "empty_like": lambda: torch.empty_like(one)}
    assert counted(does.get(name, lambda: getattr(one, name)())) == Work()


def test_what_changes_a_tensor_reads_and_writes_it():
    one, other = torch.ones(10), torch.ones(10)
    assert counted(lambda: one.add_(other)).bytes == FLOAT * 30
    assert counted(lambda: one.copy_(other)).bytes == FLOAT * 20
    assert counted(lambda: one.zero_()).bytes == FLOAT * 10
    assert counted(lambda: torch._foreach_lerp_([one, one], [other, other], 0.5)).bytes == FLOAT * 60


def test_a_row_that_is_shown_many_times_is_read_once():
    row = torch.ones(1, 5).expand(100, 5)
    assert counted(lambda: row + 1).bytes == FLOAT * (5 + 500)


def test_a_tensor_of_onednns_own():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    scores = torch.ones(4, 8)
    found = counted(lambda: scores.to_mkldnn().softmax(-1).to_dense())
    assert (found.bytes, found.calls) == (FLOAT * 6 * 32, 3)


def test_parts_add_up_to_the_plan(monkeypatch):
    """Of the masks that were drawn; in bf16, since in fp32 attention is computed again backwards, unlike in a plan.
    What is beyond it are short rows of attention, which a CPU fills up to whole vectors."""
    config, drawn, asked = method("ijepa"), [], Branch.asked
    config["trainer"]["precision"] = "bf16"
    monkeypatch.setattr(Branch, "asked", lambda *args: drawn.append(asked(*args)) or drawn[-1])
    monkeypatch.setattr(count, "_typical", lambda *_: drawn[-1])
    with of_config("", config, fixed=True) as side:
        work = tally(side)
    planned = count.step(config)
    forward = {"target": "teacher", "context": "encoder", "predictor": "predictor"}
    expected = {part: planned.forward[name] for part, name in forward.items()} | {"backward": planned.backward}
    assert {name for name, each in work.items() if each.flops} == set(expected)
    for part, flops in expected.items():
        assert flops <= work[part].flops < 1.2 * flops, part
    assert work["optimiser"].bytes >= FLOAT * 7 * planned.trained  # four are read, three written
    assert work["ema"].bytes >= FLOAT * 3 * planned.frozen
    assert side.split.around("target") and not {"data", "masks"} & set(work)


def test_a_part_is_put_beside_the_limit_that_comes_first():
    limits = Limits(flops=100.0, bandwidth=10.0, call=1.0)
    found = beside(Work(flops=200, bytes=10, calls=1), 4.0, limits)
    assert (found["bound"], found["intensity"], found["of_peak"], found["roof"]) == ("products", 20, 0.5, 0.5)
    found = beside(Work(flops=10, bytes=30, calls=1), 6.0, limits)
    assert (found["bound"], found["of_bandwidth"], found["roof"]) == ("memory", 0.5, 0.5)
    reached = 10 / 6.0  # operations a second, of those that its intensity allows
    assert found["roof"] == pytest.approx(reached / min(limits.flops, found["intensity"] * limits.bandwidth))
    assert beside(Work(flops=10, bytes=30, calls=5), 6.0, limits)["bound"] == "calls"


def test_a_side_beside_its_machine(monkeypatch):
    told = Limits(1e9, 1e9, 1e-6)
    monkeypatch.setattr(machine, "limits", lambda device, precision, now: told)
    with of_config("", method("ijepa"), fixed=True) as side:
        side.turn(1)
        found = roofline(side)
    assert found["limits"] == told._asdict() and set(found["parts"]) >= {"target", "context", "backward", "ema"}
    for key in ("flops", "bytes", "calls", "seconds"):
        assert found["step"][key] == pytest.approx(sum(each[key] for each in found["parts"].values()))
