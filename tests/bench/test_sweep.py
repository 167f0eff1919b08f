"""``jepakit bench sweep=...``: what a sample costs against the values of a setting."""

import json
import xml.etree.ElementTree as ET

import pytest
import torch

from jepakit.bench import memory
from jepakit.bench.entry import asked, data
from jepakit.bench.memory import step_bytes
from jepakit.bench.numbers import growth
from jepakit.bench.plot import draw, layers, tick
from jepakit.bench.sides import of_config
from jepakit.bench.sweep import axis
from jepakit.cli import main
from jepakit.errors import ConfigError
from jepakit.plan.meter import Meter
from tests.bench.conftest import method
from tests.bench.test_command import TINY


def at(value: str, seconds: float = 1.0, parameters: int = 5, context: int = 7) -> dict:
    parts = {"target": seconds / 4, "backward": seconds / 2, "ema": seconds / 4}
    found = {"value": value, "samples": 2, "seconds": {"median": seconds}, "parts": parts, "parameters": parameters}
    return found | {"tokens": {"context": context}, "memory": {"step": 4e6, "planned": 6e6}}


def test_a_line_gives_a_table_figures_and_a_plot(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "TAKEN", 1)
    words = ["sweep=data.batch_size=2,4", "plot=found.svg", "out=found.json", "steps=1", "repeats=1", "fixed=true"]
    assert main(["bench", *TINY.split(), *words]) == 0
    lines = capfd.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("data.batch_size  "))
    assert [line.split()[0] for line in lines[head + 1 : head + 3]] == ["2", "4"] and " x^" in lines[head + 2]
    assert lines[-2:] == ["written to found.json", "written to found.svg"]
    (sweep,) = json.loads((tmp_path / "found.json").read_text())["sweeps"]
    assert sweep["axis"] == sweep["key"] == "data.batch_size" and [each["at"] for each in sweep["points"]] == [2, 4]
    for point in sweep["points"]:
        assert sum(point["parts"].values()) == pytest.approx(point["seconds"]["median"])
        assert point["memory"]["step"] > 0 and point["memory"]["planned"] < sum(point["memory"]["items"].values())
    assert ET.parse(tmp_path / "found.svg").getroot().tag.endswith("svg")


def test_memory_is_that_of_all_tensors_of_a_step():
    """By the allocator's events, beside what is counted operation by operation in the same step."""
    with of_config("", method("ijepa"), fixed=True) as side:
        side.take(2)
        meter = Meter()

        def look(step=side._step):
            with meter:
                return step()

        side._step = look
        found = step_bytes(side, 1)
    assert 0 < found == pytest.approx(meter.most, rel=0.1)


def test_what_is_seen_again_takes_no_memory():
    weight, meter = torch.ones(1000), Meter()
    with meter:
        kept = [weight.view(10, 100), weight.add_(1), weight + 1]
    assert meter.most == 4000 and len(kept) == 3


def test_an_axis_is_the_value_or_what_it_changes():
    assert axis("data.size", [at("32"), at("64")]) == ("data.size", [32, 64])
    assert axis("encoder", [at("small", parameters=3), at("base", parameters=9)]) == (
        "parameters of the encoder",
        [3, 9],
    )
    assert axis("masker.ratio", [at("[.1]", context=4), at("[.2]", context=8)]) == ("tokens of the context", [4, 8])


def test_growth_is_an_exponent():
    points = [{**at("", seconds), "at": place} for place, seconds in ((1, 2.0), (2, 4.0), (4, 16.0), (4, 20.0))]
    assert growth(points) == [None, pytest.approx(1), pytest.approx(2), None]


def test_a_plot_shows_layers_that_add_up_and_is_the_same_each_time(tmp_path):
    points = [{**at("vit_small", 0.5), "at": 1e6}, {**at("vit_base", 1.0), "at": 16e6}]
    assert layers(points) == {"target": [125, 250], "backward": [250, 500], "optimiser, ema": [125, 250]}
    sweep = {"key": "encoder", "axis": "parameters of the encoder", "unit": "img", "points": points}
    assert [tick(sweep, point) for point in points] == ["small\n1.0 M", "base\n16.0 M"]
    one, other = (draw({"sweeps": [sweep, sweep]}, tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert one == other and b"time of an image, ms" in one and b"metadata" not in one


def test_values_are_parted_by_commas_outside_of_brackets():
    first, second = asked(["sweep=masker.target_scale=[.1,.2],[.2,.3]", "sweep=encoder.depth=1,2", "seed=1"], []).sweeps
    assert first.key == "masker.target_scale" and [value for value, _ in first.sides] == ["[.1,.2]", "[.2,.3]"]
    assert [config["encoder"]["depth"] for _, config in second.sides] == [1, 2]
    assert all(config["seed"] == 1 for _, config in (*first.sides, *second.sides))


REFUSED = {
    ("sweep=data.batch_size",): "sweep=data.batch_size names no values to compare: write sweep=data.batch_size=8,16,32",
    ("sweep=data.batch_size=8",): "sweep=data.batch_size=8 names no values to compare",
    ("sweep=seed=1,1",): "sweep=seed=1,1 names a value twice",
    ("sweep=seeed=1,2",): "unknown key 'seeed' (did you mean 'seed'?)",
    ("sweep=steps=1,2",): "sweep=steps=1,2: steps= has no place beside it",
    ("run=runs/a", "sweep=seed=1,2"): "sweep=seed=1,2: run= has no place beside it",
    ("sweep=seed=1,2", "--roofline"): "roofline has no place beside sweep=seed=1,2: time it by itself",
    ("sweep=seed=1,2", "against=seed=3"): "against has no place beside sweep=seed=1,2",
    ("plot=a.svg",): "plot=a.svg: it is sweeps that are drawn: add sweep=",
    ("sweep=seed=1,2", "plot=a.txt"): "plot=a.txt: write a file that ends in .svg or .png or .pdf",
}


@pytest.mark.parametrize("line", REFUSED, ids=" ".join)
def test_one_line_of_reason(line):
    with pytest.raises(ConfigError) as refused:
        asked(list(line), [])
    assert str(refused.value).startswith(REFUSED[line])


def test_decoders_are_not_swept():
    with pytest.raises(ConfigError, match="^bench data has no sweep: it times every decoder"):
        data(["data=world", "sweep=data.size=16,32"], [])
