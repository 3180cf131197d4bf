"""Pages as a browser would read them, and the text that an attacker would put into them."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = "</title></svg><script>alert('x')</script><img src=\"http://evil/\" onerror=alert(1)>&amp;"
VOID = {"meta", "br", "img", "link", "input", "hr"}
# End tags that HTML lets one leave out.
OPTIONAL = {"li", "tr", "td", "th", "p", "thead", "tbody"}


class Page(HTMLParser):
    """Tags with their attributes, the text, and end tags that meet no start tag or leave something open."""

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
