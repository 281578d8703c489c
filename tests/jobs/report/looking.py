"""What a browser would make of a report, without one: its elements, addresses and texts."""

import json
import re
from html.parser import HTMLParser
from typing import Any

#: All that the template has. Whatever else there is came from data.
ELEMENTS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "link",
        "style",
        "script",
        "body",
        "header",
        "main",
        "footer",
        "nav",
        "section",
    ),
    *(
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "a",
        "ul",
        "ol",
        "li",
        "dl",
        "dt",
        "dd",
        "div",
        "span",
        "bdi",
        "strong",
        "code",
        "br",
    ),
    *(
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "details",
        "summary",
        "article",
        "figure",
        "figcaption",
    ),
    *("img", "video", "button", "progress", "fieldset", "legend", "label", "input", "mark"),
    *("svg", "desc", "path", "circle", "rect", "line", "polyline", "polygon", "text"),
}


class Seen(HTMLParser):
    """A page as it is parsed."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            attributes, before = self.scripts[-1]
            self.scripts[-1] = attributes, before + data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def island(self) -> Any:
        """The summary that the page carries."""
        [found] = [text for attributes, text in self.scripts if attributes.get("id") == "summary"]
        return json.loads(found)

    def check(self) -> None:
        """It has the template's elements alone, runs the template's script alone, and asks nobody for anything."""
        assert {tag for tag, _ in self.elements} <= ELEMENTS
        assert [attributes.get("type") for attributes, _ in self.scripts] == [None, "application/json", None]
        for tag, attributes in self.elements:
            assert not [name for name in attributes if name.startswith("on") or name == "style"], (
                tag,
                attributes,
            )
            for name in (
                "src",
                "href",
                "poster",
                "srcset",
                "data",
                "action",
                "formaction",
                "xlink:href",
                "ping",
            ):
                if name in attributes:
                    value = attributes[name] or ""
                    assert re.match(r"data:(image/(png|jpeg)|video/mp4);base64,|data:,$|#[a-z-]+$", value), (
                        tag,
                        value[:80],
                    )
        [policy] = [
            a["content"] or "" for t, a in self.elements if a.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "http:" not in policy
