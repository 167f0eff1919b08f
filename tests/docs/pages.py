"""Reading the pages: code, commands, transcripts, tables, links, the tree."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README, ARCHITECTURE = ROOT / "README.md", ROOT / "ARCHITECTURE.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*/README.md")])


class Block(NamedTuple):
    """A piece of code: its language ("" if none is named), its lines, and the number of its first line."""

    language: str
    lines: list[str]
    number: int


def blocks(page: Path) -> list[Block]:
    """Fenced blocks, and paragraphs that are indented by four."""
    found, fence, before = [], "", ""
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if line.startswith("```"):
            fence = "" if fence else line
            if fence:
                found.append(Block(line[3:], [], number + 1))
        elif fence:
            found[-1].lines.append(line)
        elif line.startswith("    "):
            if not before.startswith("    "):
                found.append(Block("", [], number))
            found[-1].lines.append(line[4:])
        before = line
    assert not fence, f"{page}: a block is not closed"
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def code(page: Path) -> str:
    """All that is set as code, inline or in blocks."""
    inline = re.findall(r"`([^`\n]+)`", prose(page))
    return "\n".join([*inline, *(line for block in blocks(page) for line in block.lines)])


def commands(page: Path) -> list[tuple[str, str]]:
    """Every ``jepakit ...`` line of a block that shows no output, and where it stands."""
    return [
        (f"{page.relative_to(ROOT)}:{block.number + offset}", line)
        for block in blocks(page)
        if block.language != "console"
        for offset, line in enumerate(block.lines)
        if line.startswith("jepakit ")
    ]


def transcripts(page: Path) -> list[tuple[str, str, str]]:
    """Every ``$ jepakit ...`` of a console block: where it stands, the command, and what follows it."""
    found = []
    for block in blocks(page):
        if block.language == "console":
            for offset, line in enumerate(block.lines):
                if line.startswith("$ "):
                    found.append([f"{page.relative_to(ROOT)}:{block.number + offset}", line[2:], ""])
                else:
                    found[-1][2] += line + "\n"
    return [(where, line, said) for where, line, said in found]


def table(page: Path, heading: str) -> list[list[str]]:
    """The rows of the table whose first column is called ``heading``."""
    lines = page.read_text("utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def links(page: Path) -> list[str]:
    """Targets of links, without what lies in the web."""
    return [to for to in re.findall(r"\]\(([^)]+)\)", prose(page)) if not to.startswith("http")]


def tree(page: Path) -> dict[str, str]:
    """Paths of the tree, folders with a slash at the end, and what is said of each."""
    (block,) = (block for block in blocks(page) if block.language == "tree")
    found, above = {}, [""]
    for line in block.lines:
        name, _, purpose = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        del above[depth + 1 :]
        found[above[-1] + name] = purpose.strip()
        if name.endswith("/"):
            above.append(above[-1] + name)
    return found
