"""What a reader, or a hostile answer, can find in a page; and rows changed one at a time."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

from steelyard.reports import Facts

VOID_TAGS = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Balanced tags, every attribute, the ids, and the text a reader sees in a section."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.problems: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        if self.open:
            self.problems.append(f"never closed: {self.open}")

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"{tag} closed at {self.getpos()}")

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "title", "desc"):
            self.text.append(data)

    @property
    def seen(self) -> str:
        return " ".join(" ".join(self.text).split())


def swapped(rows, change, where):
    """`rows` with `change` applied to those `where` holds; there must be one."""
    assert any(where(row) for row in rows)
    return [dataclasses.replace(row, **change) if where(row) else row for row in rows]


def bare(facts: Facts, **keep) -> Facts:
    """Only the study and the arms of `facts`, and what is kept."""
    return Facts(study=keep.pop("study", facts.study), arms=keep.pop("arms", facts.arms), **keep)


def verdict_section(text: str) -> str:
    return text[text.index('<h2 id="verdicts"') : text.index('<h2 id="gates"')]
