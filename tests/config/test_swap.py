"""Every recipe with every component: what is registered is what is tried, so this grows by itself."""

import functools
from typing import Any

import pytest

from jepakit.catalog import Catalog
from jepakit.config import compose
from jepakit.optionfiles import GROUPS
from jepakit.plugins import discover
from jepakit.strict import flatten


@functools.cache
def catalog() -> Catalog:
    return Catalog(discover())


@functools.cache
def alone() -> dict[str, Any]:
    """What there is where nothing is chosen."""
    return compose([], catalog(), complete=False)


SHIPPED = sorted(name for name in catalog().names("recipe"))
SHARE = 4
"""Neighbouring recipes that share the sets of options."""
OPTIONS = [(group, name) for group in GROUPS for name in catalog().names(group)]


def together() -> list[dict[str, str]]:
    """Sets of options, one of every group: each option is in one of them at least."""
    names = {group: catalog().names(group) for group in GROUPS}
    most = max(map(len, names.values()))
    return [{group: found[number % len(found)] for group, found in names.items()} for number in range(most)]


RECIPES = [None, *(name for name in SHIPPED if not name.startswith("ablations/"))]


@pytest.mark.parametrize("number", range(len(RECIPES)), ids=map(str, RECIPES))
def test_every_recipe_composes_with_options_of_every_group(number):
    """All groups at once; of the sets of options every recipe has a few, and neighbours between them have all."""
    base = [f"recipe={RECIPES[number]}"] if RECIPES[number] else []
    for options in together()[number % SHARE :: SHARE]:
        config = compose([*base, *(f"{group}={name}" for group, name in options.items())], catalog(), complete=False)
        for group, name in options.items():
            component = catalog().component(group, name)
            node = config[group]
            assert list(node) == [component] if group == "anti_collapse" else node["name"] == component


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_an_option_changes_its_own_group_alone(group, name):
    chosen, config = alone(), compose([f"{group}={name}"], catalog(), complete=False)
    untouched = [other for other in GROUPS if other != group]
    assert {key: config[key] for key in untouched} == {key: chosen[key] for key in untouched}


def test_every_component_is_an_option():
    kinds = {kind: group for group, kind in GROUPS.items()}
    registered = {(kinds[kind], name) for kind, name in discover().components if kind in kinds}
    assert registered <= set(OPTIONS)


@pytest.mark.parametrize("recipe", SHIPPED)
def test_a_recipe_sets_only_what_the_core_owns(recipe):
    from omegaconf import OmegaConf

    from jepakit.options import DataOptions

    body = OmegaConf.to_container(catalog().body(catalog().get("recipe", recipe)))
    common = {f"data.{key}" for key in DataOptions.__dataclass_fields__}
    for key in flatten({key: value for key, value in body.items() if key != "defaults"}):
        assert key in common or key.partition(".")[0] not in GROUPS, f"{recipe} sets {key}: choose a variant instead"
