"""Pages parsed as a browser would, and a text that an attacker might put into them."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from typing import Any

HOSTILE = "</title></svg><script>alert('x')</script><img src=\"http://evil/\" onerror=alert(1)>&amp;"
VOID = {"meta", "br", "img", "link", "input", "hr"}
# HTML allows leaving out these end tags.
OPTIONAL = {"li", "tr", "td", "th", "p", "thead", "tbody"}


def plots(page: str) -> dict[str, Any]:
    """Of a page that plotly.js draws: title -> views and layout."""
    found = re.findall(r"<h3>(.*?)</h3>.*?<script type=\"application/json\">(.*?)</script>", page, re.S)
    return {html.unescape(title): json.loads(spec) for title, spec in found}


class Page(HTMLParser):
    """A page's tags with their attributes, its text, and end tags that do not match the last open start tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.unbalanced, self.open = "", [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID | OPTIONAL:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in OPTIONAL and (not self.open or self.open.pop() != tag):
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, name: str, css: str | None = None) -> int:
        classes = [(attributes.get("class") or "").split() for tag, attributes in self.tags if tag == name]
        return sum(css is None or css in each for each in classes)
