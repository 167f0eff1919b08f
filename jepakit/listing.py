"""What the command line lists: a table on a terminal, aligned plain lines everywhere else."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from jepakit.catalog import Catalog
from jepakit.plugins import OWN, Plugins, Status


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headings. Colours obey NO_COLOR."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        made = Table(*headings, box=None, pad_edge=False)
        for row in rows:
            made.add_row(*map(Text, row))
        Console().print(made)
        return
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def value(item: Any) -> str:
    """A setting's value as it would be written on the command line; of a list of records their number."""
    if isinstance(item, list) and item and isinstance(item[0], dict):
        return f"[{len(item)} of them]"
    return json.dumps(item) if not isinstance(item, str) else item


def settings(origins: dict[str, tuple[Any, str]]) -> None:
    """Every setting with its value and who gave it."""
    table(("key", "value", "origin"), [(key, value(item), origin) for key, (item, origin) in origins.items()])


def plugins(found: Plugins, verbose: bool = False) -> None:
    """A line for each plugin; with ``verbose`` all that each brings, and why one failed."""
    rows = [(each.name, _brings(each, found), each.distribution, each.version, state(each)) for each in found.statuses]
    table(("name", "brings", "distribution", "version", "state"), rows)
    if verbose:
        catalog = Catalog(found)
        for status in found.statuses:
            print()
            _detail(status, found, catalog)
        own = [name for name in catalog.names("recipe") if catalog.get("recipe", name).plugin == OWN]
        print(f"\nrecipes of jepakit: {', '.join(own) or 'none'}")
        for owners in catalog.contested.values():
            print(f"conflict: {owners}")


def _brings(status: Status, found: Plugins) -> str:
    by_kind: dict[str, list[str]] = {}
    for each in found.components.values():
        if each.plugin == status.name and each.distribution == status.distribution:
            by_kind.setdefault(each.kind, []).append(each.name)
    return " ".join(f"{kind}={','.join(names)}" for kind, names in by_kind.items()) or "-"


def state(status: Status) -> str:
    """What became of a plugin, and why."""
    return status.state if not status.detail else f"{status.state}: {status.detail}"


def _detail(status: Status, found: Plugins, catalog: Catalog) -> None:
    print(f"{status.name}: {state(status)}")
    print(f"  from {status.distribution} {status.version}, module {status.module}")
    for each in found.components.values():
        if each.plugin == status.name and each.distribution == status.distribution:
            print(f"  {each.kind} {each.name}: {each.target}")
    for (group, name), option in catalog.options.items():
        if option.plugin == status.name and option.file:
            print(f"  {group}={name}: {option.file}")
    for line in status.traceback.strip().splitlines()[-8:]:
        print(f"  | {line}")
