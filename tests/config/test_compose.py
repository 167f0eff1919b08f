"""What a command line composes to."""

import dataclasses
import subprocess
import sys

import pytest


def test_defaults_are_those_of_the_dataclasses():
    from jepakit.config import resolve
    from jepakit.options import OptimOptions, TrainerOptions

    config = resolve([])
    assert config["recipe"] is None and config["data"]["name"] == "world"
    assert config["optim"] == dataclasses.asdict(OptimOptions())
    assert config["trainer"] == dataclasses.asdict(TrainerOptions())
    assert list(config["anti_collapse"]) == ["ema"]


def test_a_recipe_chooses_and_sets(resolve):
    config = resolve("recipe=base", "data.root=/x")
    assert config["recipe"] == "base"
    assert config["data"] | {"name": "shelf", "root": "/x", "clip": 1, "batch_size": 16} == config["data"]
    assert config["masker"] == {"name": "stripes", "width": 2, "share": [0.2, 0.4], "way": "rows"}
    assert config["anti_collapse"] == {"still": {"name": "still", "pull": 0.9}}
    assert config["optim"]["lr"] == 5e-4


def test_a_recipe_in_a_sub_folder_extends_another(resolve):
    config = resolve("recipe=ablations/thin", "data.root=/x")
    assert config["recipe"] == "ablations/thin"
    assert config["masker"]["width"] == 1 and config["optim"]["lr"] == 1e-4 and config["data"]["batch_size"] == 16


def test_a_recipe_by_its_file(resolve, tmp_path):
    (tmp_path / "own.yaml").write_text("optim: {lr: 0.5}\n")
    config = resolve(f"recipe={tmp_path}/own.yaml")
    assert config["recipe"] == "own" and config["optim"]["lr"] == 0.5


def test_the_command_line_wins(resolve):
    config = resolve("recipe=base", "data.root=/x", "optim.lr=1", "masker=multiblock", "masker.targets=2")
    assert (
        config["optim"]["lr"] == 1.0 and config["masker"]["name"] == "multiblock" and config["masker"]["targets"] == 2
    )


def test_another_source_keeps_the_common_keys_of_the_recipe(resolve):
    data = resolve("recipe=base", "data=world")["data"]
    assert data["name"] == "world" and data["batch_size"] == 16 and "clip" not in data


@pytest.mark.parametrize("chosen", [["apart"], ["ema", "apart"], ["apart", "ema"]])
def test_strategies_compose_and_replace_the_recipes(resolve, chosen):
    given = chosen[0] if len(chosen) == 1 else f"[{','.join(chosen)}]"
    config = resolve("recipe=base", "data.root=/x", f"anti_collapse={given}", "anti_collapse.apart.push=2")
    assert set(config["anti_collapse"]) == set(chosen) and config["anti_collapse"]["apart"]["push"] == 2.0


def test_a_variant_lies_under_the_name_of_its_strategy(resolve):
    config = resolve("anti_collapse=stiller")
    assert config["anti_collapse"] == {"still": {"name": "still", "pull": 0.99}}


def test_interpolations_resolve_to_plain_values(resolve, monkeypatch):
    monkeypatch.setenv("IMAGES", "/images")
    config = resolve("recipe=base", "data.root=${oc.env:IMAGES}", "optim.final_lr=${optim.lr}")
    assert config["data"]["root"] == "/images" and config["optim"]["final_lr"] == 5e-4


def test_what_is_missing_may_stay_so_where_nothing_is_trained(resolve):
    assert resolve("recipe=base", complete=False)["data"]["root"] == "???"


def test_choices_are_those_of_the_code():
    import torch

    from jepakit.distance import distance
    from jepakit.strict import CHOICES

    guess, truth = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4)
    for name in CHOICES["distance"]:
        plain, weighed = (distance(name, scale)(guess, truth, None)["distance"] for scale in (1.0, 25.0))
        torch.testing.assert_close(weighed, 25 * plain)


def test_names_of_ranges_exist():
    """A check of a key that was renamed would never refuse anything: _refuse_values reads each, so it would raise."""
    from jepakit import strict
    from jepakit.config import resolve

    keys = strict.flatten(resolve([]))
    listed = [*strict.CHOICES, *strict.SPANS, *strict.ABOVE_ZERO.split(), *strict.PAIRS.split()]
    listed += [key for keys_of in strict.AT_LEAST.values() for key in keys_of.split()]
    assert set(listed) <= set(keys)


def test_composing_imports_no_torch():
    code = "import sys; from jepakit.config import resolve; resolve([]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
