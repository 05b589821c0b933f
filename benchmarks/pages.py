"""Pages of the documentation with a part that a bench writes, and text around it that it leaves alone."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs" / "explanation"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def renew(page: Path, generated: str) -> None:
    """Write `generated` between the marks of a page.

    Elsewhere than in the documentation the text around it is taken from there. ValueError if it has not exactly one
    pair of marks.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    text = (page if page.is_file() else DOCS / page.name).read_text("utf-8")
    page.write_text(renewed(text, generated), "utf-8")


def renewed(text: str, generated: str) -> str:
    """`text` with what stands between its marks replaced. ValueError if it has not exactly one pair of marks."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the page needs one {BEGIN} and one {END} after it")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{generated.strip()}\n{END}{rest.split(END)[1]}"
