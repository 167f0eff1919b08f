"""What devices can do at most."""

import pytest
import torch

from jepakit.bench import machine
from jepakit.peaks import PEAKS, known, peak
from tests.bench.clocks import Told

DRIVERS = {
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA A100-PCIE-40GB": "a100-40gb",
    "NVIDIA A100 80GB PCIe": "a100-pcie",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA H100 NVL": "h100-nvl",
    "NVIDIA H200": "h200",
    "NVIDIA L40S": "l40s",
    "NVIDIA L4": "l4",
    "Tesla V100-SXM2-16GB": "v100",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "AMD Instinct MI300X": "mi300x",
    "NVIDIA GeForce RTX 4090 Laptop GPU": None,
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb": None,
    "NVIDIA GeForce RTX 3090 Ti": None,
    "NVIDIA H800": None,
    "": None,
}


@pytest.mark.parametrize("name", DRIVERS, ids=str)
def test_devices_are_known_by_the_names_that_drivers_give(name):
    assert known(name) == DRIVERS[name]


@pytest.mark.parametrize("name", PEAKS)
def test_the_table_is_consistent(name):
    found = PEAKS[name]
    assert known(name) == known(name.upper()) == name
    assert found.bf16 is None or found.bf16 > found.fp32 > 1
    assert 8 <= found.memory <= 512 and 200 <= found.bandwidth <= 20000


def test_a_peak_is_in_operations_a_second():
    assert peak("h100", "bf16") == PEAKS["h100"].bf16 * 1e12 and peak("h100", "fp32") == PEAKS["h100"].fp32 * 1e12


def test_what_nobody_has_said_is_none():
    assert peak("v100", "bf16") is None and peak("abacus", "fp32") is None and peak(torch.device("cpu"), "fp32") is None


def test_a_cpu_is_measured_by_its_fastest_product(monkeypatch):
    monkeypatch.setitem(machine.SIDE, "cpu", 16)
    clock, took = Told(), iter([9.0, 3.0, 2.0] + [4.0] * machine.TIMES)
    monkeypatch.setattr(torch, "mm", lambda one, other: clock.passes(next(took)))
    assert machine.measured(torch.device("cpu"), "bf16", clock) == 2 * 16**3 / 2.0


def test_more_threads_have_a_larger_product(monkeypatch):
    sides = []
    monkeypatch.setattr(torch, "mm", lambda one, other: sides.append(len(one)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setitem(machine.SIDE, "cpu", 16)
    assert machine.measured(torch.device("cpu"), "bf16") > 0 and set(sides) == {32}


def test_a_copy_reads_and_writes(monkeypatch):
    monkeypatch.setitem(machine.COPIED, "cpu", 1000)
    clock = Told()
    monkeypatch.setattr(torch.Tensor, "copy_", lambda *_: clock.passes(4.0))
    assert machine.bandwidth(torch.device("cpu"), clock) == 2 * 1000 / 4.0


def test_a_call_is_one_of_many(monkeypatch):
    clock = Told()
    monkeypatch.setattr(torch.Tensor, "add_", lambda *_: clock.passes(3.0))
    assert machine.call(torch.device("cpu"), clock) == 3.0
