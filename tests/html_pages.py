"""Pages of results, checked while they are read."""

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """A page, checked while it is read: all tags closed, no other file named, every picture described."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)
        assert set(self.links) <= {f"#{one}" for one in self.ids}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"] or "")
        if tag == "a":
            self.links.append(values["href"] or "")
        if tag == "img":
            assert values.get("alt")
            assert (values["src"] or "").startswith("data:image/png;base64,")
        if tag == "svg":
            assert values.get("role") == "img"
            assert values.get("aria-label")
        assert not {"src", "href"} & values.keys() or tag in ("a", "img")
        assert tag not in ("script", "link", "iframe", "object")
        assert all("url(" not in (value or "") and "@import" not in (value or "") for value in values.values())

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def page(path: Path) -> Page:
    text = path.read_text()
    assert re.findall(r"https?://[^\"' ]+", text.replace("http://www.w3.org/2000/svg", "")) == []
    assert "url(" not in text
    return Page(text)
