"""A page of one file: everything that it shows is inside of it. Whatever it is given goes through ``escaped``."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from jepakit.pictures.look import LOOK

KINDS = {".png": "image/png", ".webp": "image/webp", ".gif": "image/gif", ".apng": "image/apng"}

HEAVY, QUALITY = 400_000, 90
"""Bytes from which a picture is kept as WebP, if that is smaller, and its quality."""

DOTS = 300 / 96
"""Dots of a picture for each of the page's pixels: it is as large as in print."""


class Section(NamedTuple):
    """A part of the page: its anchor, its title, and its blocks of HTML."""

    anchor: str
    title: str
    blocks: Sequence[str]


def escaped(text: object) -> str:
    """Any text as HTML."""
    return html.escape(str(text), quote=True)


def page(title: str, head: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole file: ``head`` are the blocks above the table of contents."""
    links = "".join(f'<li><a href="#{each.anchor}">{escaped(each.title)}</a></li>' for each in sections)
    body = "\n".join(_section(each) for each in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escaped(title)}</title>\n<style>{LOOK}</style>\n</head>\n<body>\n"
        f"<header>\n{chr(10).join(head)}\n</header>\n"
        f'<nav aria-label="Contents"><h2>Contents</h2><ol>{links}</ol></nav>\n<main>\n{body}\n</main>\n'
        "</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    blocks = "\n".join(section.blocks)
    return f'<section id="{section.anchor}">\n<h2>{escaped(section.title)}</h2>\n{blocks}\n</section>'


def paragraph(text: object, kind: str = "") -> str:
    """A paragraph of plain words."""
    return f"<p{_kind(kind)}>{escaped(text)}</p>"


def title(text: object) -> str:
    """The heading of the page."""
    return f"<h1>{escaped(text)}</h1>"


def card(kind: str, word: object, lines: Sequence[object]) -> str:
    """A word that stands out, and what is behind it; ``kind`` is good, watch or bad."""
    rest = "".join(f"<p>{escaped(line)}</p>" for line in lines)
    return f'<div class="verdict {kind}"><p class="word">{escaped(word)}</p>{rest}</div>'


def code(lines: Iterable[object]) -> str:
    """Lines as they are."""
    return f"<pre>{escaped(chr(10).join(map(str, lines)))}</pre>"


def heading(text: object) -> str:
    """A heading within a section."""
    return f"<h3>{escaped(text)}</h3>"


def bullets(lines: Iterable[object], kind: str = "") -> str:
    """A list."""
    return f"<ul{_kind(kind)}>{''.join(f'<li>{escaped(line)}</li>' for line in lines)}</ul>"


def commands(lines: Iterable[tuple[object, object]]) -> str:
    """What can be typed, each after the words that say what for."""
    rows = "".join(f"<dt>{escaped(what)}</dt><dd><code>{escaped(line)}</code></dd>" for what, line in lines)
    return f'<dl class="commands">{rows}</dl>'


def facts(known: Mapping[str, object]) -> str:
    """Names with their values; several lines of a value stand below one another."""
    rows = []
    for name, value in known.items():
        lines = value if isinstance(value, list | tuple) else [value]
        rows.append(f"<dt>{escaped(name)}</dt><dd>{'<br>'.join(map(escaped, lines))}</dd>")
    return f'<dl class="facts">{"".join(rows)}</dl>'


def table(head: Sequence[object], rows: Sequence[Sequence[object]], caption: str = "", kind: str = "") -> str:
    """A table whose first column names the rows; cells that are ``Raw`` are HTML already."""
    top = "".join(f'<th scope="col">{escaped(each)}</th>' for each in head)
    body = "".join(
        f'<tr><th scope="row">{_cell(first)}</th>{"".join(f"<td>{_cell(each)}</td>" for each in rest)}</tr>'
        for first, *rest in rows
    )
    words = f"<caption>{escaped(caption)}</caption>" if caption else ""
    inside = f"{words}<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table{_kind(kind)}>{inside}</table></div>'


class Raw(str):
    """HTML that is put into a table as it is."""


def _cell(value: object) -> str:
    return value if isinstance(value, Raw) else escaped(value)


def details(summary: object, blocks: Sequence[str]) -> str:
    """What is opened by a click, and in print."""
    return f"<details><summary>{escaped(summary)}</summary>\n{''.join(blocks)}\n</details>"


def figure(path: Path, alt: str, caption: str) -> str:
    """A picture in the page, with words for who cannot see it and what to look for."""
    kind, data, (width, height) = _embedded(path)
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    size = f'width="{round(width / DOTS)}" height="{round(height / DOTS)}"'
    if path.suffix != ".png":
        size = f'width="{width}" height="{height}"'
    image = f'<img src="{source}" {size} alt="{escaped(alt)}">'
    return f"<figure>{image}<figcaption>{escaped(caption)}</figcaption></figure>"


def _embedded(path: Path) -> tuple[str, bytes, tuple[int, int]]:
    """Type, bytes and size of a picture; a heavy one that does not move as WebP, where that is smaller."""
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        if len(data) > HEAVY and path.suffix == ".png":
            small = io.BytesIO()
            image.convert("RGB").save(small, "WEBP", quality=QUALITY, method=2)
            if small.tell() < len(data):
                return KINDS[".webp"], small.getvalue(), image.size
        return KINDS[path.suffix], data, image.size


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
