"""The paper's comparisons: sweeps of one line whose jobs differ in what is compared, beside the paper's numbers."""

import functools
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from jepakit.catalog import Catalog
from jepakit.config import compose, jobs, prepare
from jepakit.errors import ConfigError
from jepakit.evaluate.published import matching
from jepakit.evaluate.recorded import settings
from jepakit.optionfiles import GROUPS

FEW, PROBE = "top-1 with 1 % of the labels of ImageNet-1k, per cent", "linear probe on ImageNet-1k, per cent"
TABLES: dict[str, tuple[int, str, list[tuple[Any, dict[str, float]]]]] = {  # table, swept key, values with scores
    "masking": (
        6,
        "masker",
        [("multiblock", {FEW: 54.2}), ("rasterized", {FEW: 15.5}), ("block", {FEW: 20.2}), ("random", {FEW: 17.6})],
    ),
    "target_space": (7, "anti_collapse", [("ema", {FEW: 66.9}), ("pixels", {FEW: 40.7})]),
    "target_scale": (
        8,
        "masker.target_scale",
        [
            ([0.075, 0.2], {FEW: 19.2}),
            ([0.1, 0.2], {FEW: 39.2}),
            ([0.125, 0.2], {FEW: 42.4}),
            ([0.15, 0.2], {FEW: 54.2}),
            ([0.2, 0.25], {FEW: 38.9}),
            ([0.2, 0.3], {FEW: 33.6}),
        ],
    ),
    "context_scale": (
        9,
        "masker.context_scale",
        [
            ([0.4, 1.0], {FEW: 31.2}),
            ([0.65, 1.0], {FEW: 47.1}),
            ([0.75, 1.0], {FEW: 49.3}),
            ([0.85, 1.0], {FEW: 54.2}),
        ],
    ),
    "target_count": (10, "masker.targets", [(1, {FEW: 9.0}), (2, {FEW: 22.0}), (3, {FEW: 48.5}), (4, {FEW: 54.2})]),
    "target_masking": (11, "anti_collapse.ema.mask", [("output", {FEW: 67.3}), ("input", {FEW: 56.1})]),
    "predictor_depth": (12, "predictor.depth", [(6, {FEW: 64.0}), (12, {FEW: 66.9})]),
    "weight_decay": (
        13,
        "optim.weight_decay",
        [([0.04, 0.4], {FEW: 69.4, PROBE: 77.8}), ([0.05, 0.05], {FEW: 70.7, PROBE: 76.4})],
    ),
    "predictor_width": (14, "predictor.width", [(384, {FEW: 70.7}), (1024, {FEW: 68.4})]),
}
EPOCHS = {"target_space": 500, "predictor_depth": 500, "weight_decay": 600, "predictor_width": 600}
MODELS = {"vit_base": 768, "vit_large": 1024, "vit_huge": 1280}
BASES = {6: "vit_base", 8: "vit_base", 9: "vit_base", 10: "vit_base", 11: "vit_huge"}


@functools.cache
def catalog() -> Catalog:
    return prepare([])[0]


@functools.cache
def runs_of(name: str) -> list[dict[str, Any]]:
    """The configurations of a comparison's jobs, each composed and checked as ``jepakit train -m`` does."""
    return [compose(job, catalog()) for job in jobs([f"recipe=ablations/{name}", "data.root=/x"], catalog())]


def test_every_table_has_its_recipe():
    there = [name for name in catalog().names("recipe") if name.startswith("ablations/")]
    assert there == sorted(f"ablations/{name}" for name in TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_jobs_differ_in_what_is_compared_and_nothing_else(name):
    _, key, rows = TABLES[name]
    found = [settings(config) for config in runs_of(name)]
    assert [each[key] for each in found] == [value for value, _ in rows]
    rest = [{other: value for other, value in each.items() if not other.startswith(key)} for each in found]
    assert all(each == rest[0] for each in rest)
    assert key not in GROUPS or len({each[key] for each in found}) == len(found)


@pytest.mark.parametrize("name", TABLES)
def test_numbers_are_the_papers(name):
    table, _, rows = TABLES[name]
    configs = runs_of(name)
    numbers = configs[0]["published"]
    for config, (_, scores) in zip(configs, rows, strict=True):
        assert {each["measure"]: each["score"] for each in matching(config, numbers)} == scores
    for each in numbers:
        assert sum(each in matching(config, numbers) for config in configs) == 1
        assert f"(arXiv 2301.08243), Table {table}" in each["source"]


@pytest.mark.parametrize("name", TABLES)
def test_models_and_lengths_are_the_papers(name):
    config = runs_of(name)[0]
    assert config["encoder"]["width"] == MODELS[BASES.get(TABLES[name][0], "vit_large")]
    assert config["trainer"]["epochs"] == EPOCHS.get(name, 300)
    assert config["tokenizer"]["patch"] == 16 and config["data"]["size"] == 224


# A sweep that lives in a recipe -------------------------------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path):
    """``sweep(*overrides)``: the command lines of a recipe that tries two maskers, or of what the line makes of it."""
    (tmp_path / "mine.yaml").write_text("hydra: {sweeper: {params: {masker: 'multiblock,random', seed: '1,2'}}}\n")

    def commands(*overrides: str, recipe: str = f"recipe={tmp_path}/mine.yaml") -> list[list[str]]:
        found, given = prepare([recipe, *overrides])
        each = jobs(given, found)
        for job in each:
            compose(job, found)
        return each

    return commands


def test_a_recipe_brings_its_sweep(sweep):
    assert [(job[0], job[1]) for job in sweep()] == [
        ("masker=multiblock", "seed=1"),
        ("masker=multiblock", "seed=2"),
        ("masker=random", "seed=1"),
        ("masker=random", "seed=2"),
    ]


def test_the_command_line_narrows_it_and_adds_to_it(sweep):
    found = [job[:2] + job[3:] for job in sweep("seed=3", "optim.lr=0.1,0.2")]
    assert found == [
        [f"masker={masker}", "seed=3", f"optim.lr={lr}"] for masker in ("multiblock", "random") for lr in (0.1, 0.2)
    ]


def test_hydra_runs_the_jobs_that_were_checked(tmp_path, monkeypatch, capsys):
    from jepakit.launch import train

    done: list[str] = []
    run = SimpleNamespace(run=lambda config, folder: done.append(config["masker"]["name"]) or 0)
    monkeypatch.setitem(sys.modules, "jepakit.train", run)
    monkeypatch.chdir(tmp_path)
    assert train("-m recipe=ablations/masking data.root=/x masker=random,block".split()) == 0
    assert done == ["random", "block"] and "job 2 of 2: masker=block" in capsys.readouterr().out
    assert len(list(tmp_path.glob("runs/sweep-*/*/config.yaml"))) == 2


def test_it_is_checked_before_it_starts(tmp_path, sweep):
    with pytest.raises(ConfigError, match="no masker 'randon' .did you mean 'random'"):
        sweep("masker=randon,block")
    (tmp_path / "bad.yaml").write_text("hydra: {sweeper: {params: {masker.name: 'a,b'}}}\n")
    with pytest.raises(ConfigError, match="write masker=NAME"):
        sweep(recipe=f"recipe={tmp_path}/bad.yaml")
    (tmp_path / "worse.yaml").write_text("hydra: {sweeper: {params: [1, 2]}}\n")
    with pytest.raises(ConfigError):
        sweep(recipe=f"recipe={tmp_path}/worse.yaml")


def test_without_m_a_run_must_be_chosen():
    one = ["recipe=ablations/masking", "data.root=/x"]
    with pytest.raises(ConfigError, match="^recipe=ablations/masking is a sweep, masker=.*: add -m .* masker=VALUE$"):
        compose(one, catalog())
    assert compose([*one, "masker=block"], catalog())["masker"]["name"] == "block"
    assert compose(one, catalog(), complete=False)["recipe"] == "ablations/masking"


def test_two_sweeps_at_once_are_refused():
    both = jobs(["recipe=ablations/masking,ablations/target_count", "data=folder", "data.root=/x"], catalog())
    with pytest.raises(ConfigError, match="^recipe=ablations/masking is a sweep"):
        compose(both[0], catalog())
