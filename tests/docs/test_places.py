"""The tree is the tree, and links lead somewhere."""

from pathlib import Path

import pytest

from tests.docs.pages import PAGES, README, ROOT, links, tree

TREE = tree(README)
SOURCES = ("jepakit", "plugins", "configs", "recipes")


def source_files() -> list[str]:
    """Every file that is installed, and the folders of tests."""
    files = (path for top in SOURCES for path in (ROOT / top).rglob("*") if path.is_file())
    kept = [
        path for path in files if "__pycache__" not in path.parts and path.suffix in (".py", ".yaml", ".typed", ".md")
    ]
    folders = [path for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"]
    return [path.relative_to(ROOT).as_posix() for path in kept] + [
        f"{path.relative_to(ROOT).as_posix()}/" for path in folders
    ]


@pytest.mark.parametrize("path", TREE)
def test_path_of_the_tree_exists(path):
    found = list(ROOT.glob(path.rstrip("/")))
    assert found and all(each.is_dir() == path.endswith("/") for each in found)
    assert TREE[path], f"{path}: not a word on what it is for"


def test_tree_leaves_nothing_out():
    left_out = [path for path in source_files() if not any(Path(path).match(each.rstrip("/")) for each in TREE)]
    assert not left_out, f"no line in the README's tree: {', '.join(left_out)}"
    assert len(source_files()) > 50


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        assert (page.parent / path).exists(), f"{page.name}: there is no {path}"
        assert not anchor, "links to sections are not checked: leave them out"
