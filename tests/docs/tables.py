"""The tables of options in the plugins' pages, generated: ``python -m tests.docs.tables`` writes them anew."""

import json
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from jepakit.catalog import Catalog
from jepakit.optionfiles import GROUPS
from jepakit.plugins import OWN, Component, discover

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- generated: options -->\n", "<!-- end -->"


def own_pages() -> dict[str, Path]:
    """The page of each plugin that comes with jepakit and lies in ``plugins/``."""
    pages = {each.name: ROOT / "plugins" / each.module / "README.md" for each in discover().statuses}
    return {name: page for name, page in pages.items() if page.parent.is_dir()}


def generated(plugin: str) -> str:
    """What stands between the marks of a plugin's page: its components' arguments, then its variants."""
    found = discover()
    own = [each for each in found.components.values() if (each.plugin, each.distribution) == (plugin, OWN)]
    components = [each for each in own if each.kind in GROUPS.values()]
    return "\n".join(line for each in components for line in _component(each, Catalog(found))) + "\n"


def _component(component: Component, catalog: Catalog) -> Iterator[str]:
    group = next(group for group, kind in GROUPS.items() if kind == component.kind)
    key = f"{group}.{component.name}" if group == "anti_collapse" else group
    yield from (f"`{group}={component.name}`", "", "| setting | type | default |", "|---|---|---|")
    for each in component.arguments():
        default = "needed" if each.default is MISSING else f"`{json.dumps(each.default)}`"
        yield f"| `{key}.{each.name}` | {_type(each.annotation)} | {default} |"
    yield ""
    variants = [option for option in catalog.options.values() if _varies(option, group, component, catalog)]
    if variants:
        yield from ("| variant | sets |", "|---|---|")
        for option in variants:
            body: Any = OmegaConf.to_container(catalog.body(option))
            sets = ", ".join(
                f"{name} {json.dumps(value).strip(chr(34))}" for name, value in body.items() if name != "name"
            )
            yield f"| `{group}={option.name}` | {sets} |"
        yield ""


def _varies(option: Any, group: str, component: Component, catalog: Catalog) -> bool:
    return option.group == group and bool(option.file) and catalog.body(option)["name"] == component.name


def _type(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else annotation
    return str(text).replace("typing.", "").replace("|", "or").replace("NoneType", "None")


def split(page: Path) -> tuple[str, str, str]:
    """A page before, within and after its marks."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    within, _, after = rest.partition(END)
    return before, within, after


if __name__ == "__main__":
    for name, path in own_pages().items():
        head, _, tail = split(path)
        path.write_text(head + BEGIN + generated(name) + END + tail, "utf-8")
