"""Batch normalisation is that of the samples of all processes, and the mean of their gradients is that of one process
which has them all."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from jepakit.batchnorm import synchronise
from jepakit.errors import ConfigError
from tests.properties.normed import NORMS, SHARES, network, trained


@pytest.fixture(scope="module")
def processes(root, tmp_path_factory) -> list[dict]:
    """What two processes found."""
    folder = tmp_path_factory.mktemp("normed")
    call = [sys.executable, "-m", "tests.properties.normed"]
    started = [subprocess.Popen([*call, str(rank), str(folder)], cwd=root) for rank in range(len(SHARES))]
    assert [process.wait(120) for process in started] == [0] * len(SHARES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(SHARES))]


def joined(found: list[dict], name: str, like: torch.Tensor) -> torch.Tensor:
    """Of all processes: inputs one after the other, buffers of any of them, the mean of everything else."""
    each = [one[name] for one in found]
    if name.endswith(" x"):
        return torch.cat(each)
    if any(word in name for word in ("running", "tracked")):
        assert all(torch.equal(one, each[0]) for one in each)
        return each[0]
    return torch.stack(each).mean(0)


@pytest.mark.parametrize("norm", NORMS)
def test_two_processes_are_one_with_all_samples(norm, processes):
    alone, found = trained(norm, shared=False), [each[norm] for each in processes]
    assert alone.keys() == found[0].keys() and any("weight" in name for name in alone)
    close = {"rtol": 1e-5, "atol": 1e-6} if norm == "plain" else {"rtol": 1e-12, "atol": 1e-12}
    for name, value in alone.items():
        torch.testing.assert_close(joined(found, name, value), value, **close, msg=lambda said, n=name: f"{n}: {said}")


def test_apart_they_are_something_else(processes):
    """Or the test above would compare nothing."""
    alone, found = trained("double", shared=False), [each["apart"] for each in processes]
    assert (torch.stack([each["0 0.weight"] for each in found]).mean(0) - alone["0 0.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_a_single_process_and_evaluation_are_as_before(norm):
    before, x = network(norm), torch.randn(4, 3, 6, 6, dtype=torch.float32 if norm == "plain" else torch.float64)
    after = synchronise(copy.deepcopy(before))
    assert list(after.state_dict()) == list(before.state_dict()) and type(after[1]) is not type(before[1])
    assert isinstance(after[1], type(before[1]))
    for _ in range(2):
        assert torch.equal(after(x), before(x))
        before.eval()
        after.eval()
    assert all(map(torch.equal, after.state_dict().values(), before.state_dict().values()))


def test_nothing_is_exchanged_but_the_class():
    model = network("double")
    parts = [*model.modules(), *model.parameters(), *model.buffers()]
    assert synchronise(synchronise(model)) is model
    assert all(map(lambda one, other: one is other, [*model.modules(), *model.parameters(), *model.buffers()], parts))
    twin = copy.deepcopy(model)
    assert type(twin[1]) is type(model[1]) and type(model[1]).__name__ == "EveryoneBatchNorm2d"


def test_one_that_does_more_is_refused():
    class Odd(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) + 1

    with pytest.raises(ConfigError, match="^1 is a Odd, which cannot be shared by processes$"):
        synchronise(nn.Sequential(nn.Identity(), Odd(3)))
