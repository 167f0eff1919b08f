"""Statistics are those of all processes: each has the loss of the whole batch, and the mean of their gradients is its
gradient, whether samples are gathered or moments summed."""

import subprocess
import sys

import jepakit_sigreg.statistics
import pytest
import torch

from jepakit import statistics
from tests.properties.ranks import WORLD, cases, drawn, total


def test_all_processes_have_the_loss_and_the_gradient_of_the_whole_batch(root, tmp_path):
    call = [sys.executable, "-m", "tests.properties.ranks"]
    started = [subprocess.Popen([*call, str(rank), str(tmp_path)], cwd=root) for rank in range(WORLD)]
    assert [process.wait(120) for process in started] == [0] * WORLD
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    for number, (strategy, count, width, _) in enumerate(cases()):
        x, weight = drawn(count * WORLD, width)
        loss = total(strategy, x, weight)
        (gradient,) = torch.autograd.grad(loss, weight)
        for here, there in (each[number] for each in found):
            torch.testing.assert_close(here, loss.detach(), rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(there, gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", range(len(cases())))
def test_the_smaller_of_two_ways_is_chosen(monkeypatch, case):
    """Gathered, samples of all are at hand; what is summed is asked of each process by itself."""
    strategy, count, width, gathered = cases()[case]
    ways: list[str] = []
    monkeypatch.setattr(statistics, "processes", lambda: WORLD)
    for module in (statistics, jepakit_sigreg.statistics):
        monkeypatch.setattr(module, "everyone", lambda x: ways.append("gathered") or torch.cat([x, x]), raising=False)
    monkeypatch.setattr(statistics, "everywhere", lambda x: ways.append("summed") or 2 * x)
    total(strategy, *drawn(count, width))
    assert set(ways) == {"gathered" if gathered else "summed"}
