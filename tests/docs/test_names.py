"""What can be chosen, called or implemented is named in the pages, and what they show of the code is the code."""

import ast
import itertools
import re

import pytest

from jepakit import hookspecs, runs
from jepakit.catalog import Catalog
from jepakit.cli import VERBS
from jepakit.optionfiles import GROUPS, PROTOCOL
from jepakit.plugins import OWN, discover
from tests.docs.pages import ARCHITECTURE, README, ROOT, blocks, code, table
from tests.docs.tables import generated, own_pages, split

FAMILY = [
    "I-JEPA",
    "V-JEPA",
    "V-JEPA 2",
    "V-JEPA 2.1",
    "V-JEPA 2-AC",
    "VICReg",
    "VICRegL",
    "LeJEPA",
    "C-JEPA",
    "MC-JEPA, content",
    "MC-JEPA, motion",
    "ablations",
    "new mixes",
]
PAGES_OF = own_pages()
CHECKER = ROOT / "tests" / "third_party" / "jepakit-checker"


def named(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


@pytest.mark.parametrize("verb", VERBS)
def test_verb_is_shown(verb):
    assert named(f"jepakit {verb}", code(README)) or verb == "demo" and named("make demo", code(README))


def test_hooks_are_named():
    hooks = [name for name in vars(hookspecs) if name.startswith("jepakit_")]
    assert hooks and all(named(hook, code(README)) for hook in hooks)


@pytest.mark.parametrize("kind", hookspecs.KINDS)
def test_kind_has_a_contract(kind):
    assert kind in [row[0] for row in table(ARCHITECTURE, "kind")] and named(kind, README.read_text("utf-8"))


def test_components_and_variants_are_named():
    found = discover()
    options = [each for each in Catalog(found).options.values() if each.plugin in (OWN, *PAGES_OF, "data")]
    assert {each.group for each in options} == {*GROUPS, "recipe", PROTOCOL}
    for each in options:
        pages = [README, *([PAGES_OF[each.plugin]] if each.plugin in PAGES_OF else [])]
        assert any(named(each.name, code(page)) for page in pages), f"{each.group}={each.name} is on no page"
    for each in found.components.values():
        assert named(each.name, code(README)), f"{each} is not in the README"


@pytest.mark.parametrize("plugin", PAGES_OF)
def test_settings_of_a_plugin_are_those_of_its_code(plugin):
    assert split(PAGES_OF[plugin])[1] == generated(plugin), "write it anew: python -m tests.docs.tables"


def test_family_table():
    rows = table(README, "system")
    assert [row[0] for row in rows] == FAMILY
    today = {row[0]: re.findall(r"`([\w/]+)`", row[-1]) for row in rows}
    there = [name for name in Catalog(discover()).names("recipe")]
    assert sorted(name for names in today.values() for name in names) == there, "the column 'today' lists the recipes"
    assert all(row[-1] in ("-", "the same") for row in rows if not today[row[0]])
    assert all(today[above[0]] for above, row in itertools.pairwise(rows) if row[-1] == "the same")


def test_figure_is_that_of_the_code():
    classes = [
        each for each in ast.parse((ROOT / "jepakit/jepa.py").read_text("utf-8")).body if type(each) is ast.ClassDef
    ]
    (jepa,) = (each for each in classes if each.name == "Jepa")
    drawn = "\n".join(line.strip() for line in (ast.get_docstring(jepa) or "").splitlines())
    first = blocks(README)[0]
    assert len(first.lines) > 5 and "\n".join(line.strip() for line in first.lines) in drawn
    assert first.number < 15, "it is on the first screen"


def test_third_party_masker_is_the_tested_one():
    shown = {each.language: "\n".join(each.lines) + "\n" for each in blocks(README)}
    assert shown["python"] == (CHECKER / "jepakit_checker.py").read_text("utf-8")
    assert shown["toml"] == (CHECKER / "pyproject.toml").read_text("utf-8")


def test_every_method_of_a_contract_is_in_the_architecture():
    contracts = ast.parse((ROOT / "jepakit/protocols.py").read_text("utf-8")).body
    members = [
        each.name if isinstance(each, ast.FunctionDef) else ast.unparse(each.target)
        for contract in contracts
        if isinstance(contract, ast.ClassDef)
        for each in contract.body
        if isinstance(each, (ast.FunctionDef, ast.AnnAssign))
    ]
    public = {name for name in members if not name.startswith("_")}
    assert len(public) > 5
    assert not {name for name in public if not named(name, code(ARCHITECTURE))}


def test_what_a_plugin_may_import():
    allowed = re.findall(r'"\*\* -> (jepakit\.\w+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    (said,) = re.findall(r"a plugin imports (.+?),\s+and nothing else", ARCHITECTURE.read_text("utf-8"), re.DOTALL)
    assert sorted(re.findall(r"`(jepakit\.\w+)`", said)) == sorted(allowed)


def test_every_record_of_a_run_is_listed():
    listed = " ".join(row[0] for row in table(README, "file"))
    assert all(named(name, listed) for name in (*runs.RECORDS, "log.jsonl", "quarantine.jsonl", "finished"))
