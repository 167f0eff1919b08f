"""The paper's numbers beside the runs that they are for (``jepakit.options.Published``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jepakit.errors import ConfigError, nearest
from jepakit.evaluate.recorded import Recorded
from jepakit.evaluate.sheet import Part, text
from jepakit.strict import flatten


def of_recipe(recipe: str, files: Sequence[Path]) -> list[dict[str, Any]]:
    """The numbers of a recipe. Raises ConfigError where it has none, naming those that do."""
    from jepakit.config import compose, prepare

    catalog, chosen = prepare([f"recipe={recipe}"], files)
    numbers = compose(chosen, catalog, complete=False)["published"]
    if not numbers:
        options = [catalog.get("recipe", name) for name in catalog.names("recipe")]
        there = [option.name for option in options if "published" in catalog.body(option)]
        listed = ", ".join(there) or "none"
        raise ConfigError(
            f"published={recipe}: the recipe holds no numbers{nearest(recipe, there)}; with some: {listed}"
        )
    return numbers


def beside(found: Sequence[Recorded], published: Sequence[Mapping] | None) -> Part:
    """A column for each measure that has a number for any of the runs; marks lead to the sources below.

    Args:
        published: numbers of a recipe; None: those in each run's own configuration.
    """
    hits = [
        matching(run.config, run.config.get("published") or [] if published is None else published) for run in found
    ]
    measures = list(dict.fromkeys(each["measure"] for numbers in hits for each in numbers))
    notes = list(dict.fromkeys(_note(each) for numbers in hits for each in numbers))
    rows = [
        [_cell([each for each in own if each["measure"] == measure], notes) for measure in measures] for own in hits
    ]
    records = [{f"published: {_note(each)}": each["score"] for each in numbers} for numbers in hits]
    remarks = [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    if published is not None and not measures:
        remarks = [f"no published number is for runs like these; there are numbers for: {_conditions(published)}"]
    return Part(["paper"] * len(measures), rows, records, remarks)


def matching(config: Mapping[str, Any], numbers: Sequence[Mapping]) -> list[Mapping]:
    """The numbers for a run of this configuration; of one measure those with the most conditions: they say more."""
    flat = flatten(config)
    fit = [each for each in numbers if all(key in flat and flat[key] == value for key, value in each["when"].items())]
    most: dict[str, int] = {}
    for each in fit:
        most[each["measure"]] = max(most.get(each["measure"], 0), len(each["when"]))
    return [each for each in fit if len(each["when"]) == most[each["measure"]]]


def _cell(numbers: Sequence[Mapping], notes: Sequence[str]) -> str:
    return " or ".join(f"{each['score']:g} [{notes.index(_note(each)) + 1}]" for each in numbers) or "-"


def _note(number: Mapping[str, Any]) -> str:
    by = f" (matched by {', '.join(number['when'])})" if number["when"] else ""
    return f"{number['measure']}: {number['source']}{by}"


def _conditions(numbers: Sequence[Mapping[str, Any]]) -> str:
    texts = (", ".join(f"{key}={text(value)}" for key, value in each["when"].items()) for each in numbers)
    return "; ".join(dict.fromkeys(texts))
