"""Every recipe with every component: what is registered is what is tried, so this grows by itself."""

import functools

import pytest

from jepakit.catalog import Catalog
from jepakit.config import compose
from jepakit.optionfiles import GROUPS
from jepakit.plugins import discover
from jepakit.strict import flatten


@functools.cache
def catalog() -> Catalog:
    return Catalog(discover())


SHIPPED = sorted(name for name in catalog().names("recipe"))
OPTIONS = [(group, name) for group in GROUPS for name in catalog().names(group)]


@pytest.mark.parametrize("recipe", [None, *(name for name in SHIPPED if not name.startswith("ablations/"))])
def test_every_option_composes_over_every_recipe(recipe):
    base = [f"recipe={recipe}"] if recipe else []
    chosen = compose(base, catalog(), complete=False)
    for group, name in OPTIONS:
        config = compose([*base, f"{group}={name}"], catalog(), complete=False)
        component = catalog().component(group, name)
        node = config[group]
        assert list(node) == [component] if group == "anti_collapse" else node["name"] == component
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
