"""Every command line of the pages runs as it stands there, short of training."""

import re
import shlex
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, blocks, commands, prose, transcripts

LINES = dict(found for page in PAGES for found in commands(page))
SHOWN = {where: (line, said) for page in PAGES for where, line, said in transcripts(page)}
RECIPES = {
    f"{page.name}:{each.number}": each.lines for page in PAGES for each in blocks(page) if each.language == "yaml"
}


@pytest.mark.parametrize("where", LINES)
def test_command_runs(where, jepakit, run, files, untrained):
    words = shlex.split(LINES[where], comments=True)
    if "recipe=" not in LINES[where]:
        for name in re.findall(r"(?:run=| )runs/(\w+)", LINES[where]):
            run(name, trained=words[1] in ("features", "export") or "predictions" in words)
    files(words)
    done = jepakit(LINES[where])
    assert done.code == (1 if words[1] == "inspect" else 0), done.said  # what is inspected here is no ViT-H
    assert bool(untrained) == (shlex.split(LINES[where])[1] == "train" and "--cfg" not in LINES[where])


@pytest.mark.parametrize("where", SHOWN)
def test_output_is_what_is_shown(where, jepakit):
    line, shown = SHOWN[where]
    said = _plain(jepakit(line).said)
    pattern = ".*".join(map(re.escape, _plain(shown).split("...")))
    assert re.fullmatch(pattern, said, re.DOTALL), f"{where} shows\n{shown}\nand it says\n{said}"


@pytest.mark.parametrize("where", RECIPES)
def test_recipe_composes(where, here):
    from jepakit.config import resolve

    Path("mine.yaml").write_text("\n".join(RECIPES[where]), "utf-8")
    assert resolve(["recipe=mine.yaml"])["recipe"] == "mine"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.parent.name + "/" + page.name))
def test_verbs_in_prose_exist(page):
    from jepakit.cli import VERBS

    for verb in re.findall(r"`jepakit ([a-z]+)", prose(page)):
        assert verb in VERBS, f"{page}: there is no verb {verb}"


def test_pages_show_all_kinds_of_lines():
    """The parsing above finds what it is made for."""
    words = {tuple(shlex.split(line, comments=True)[1:3]) for line in LINES.values()}
    verbs = {verb for verb, *_ in words}
    assert verbs >= {"train", "eval", "show", "data", "new"} and ("train", "-m") in words
    assert len(SHOWN) > 5 and RECIPES


def _plain(text: str) -> str:
    """Without the spaces at ends of lines."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip()
