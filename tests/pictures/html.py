"""Reads a page as a browser would, and finds fault with it."""

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "line", "circle", "link", "input", "hr"}


class Page(HTMLParser):
    """What is in a page; ``faults`` lists tags that are not closed, or closed in the wrong order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        if self.open:
            self.words.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for each, attrs in self.tags if each == tag]


def checked(path: Path) -> Page:
    """A page that holds all that it shows, whose parts can be reached and told by who cannot see."""
    text = path.read_text("utf-8")
    page = Page(text)
    assert page.faults == []
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    outside = ("src", "srcset", "href", "action", "data", "background", "poster")
    given = [value for _, attrs in page.tags for name, value in attrs.items() if name in outside]
    assert all(value.startswith(("data:image/", "#")) for value in given)
    assert "@import" not in text and "url(" not in text
    anchors = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(anchors)) == len(anchors)
    assert [attrs["href"][1:] for attrs in page.all("a")] == anchors
    assert all(len(image["alt"]) > 20 and image["width"] and image["height"] for image in page.all("img"))
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    return page
