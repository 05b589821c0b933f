"""One self-contained page a run, made from recorded rows alone.

`build` is the whole public face; `facts.Facts` is what it reads. `markdown` and `terminal` show the same rows
where a page is too much: in Dagster's metadata and at the end of `steelyard run`.
"""

from __future__ import annotations

from pathlib import Path

from steelyard.reports.facts import Contract, Facts

__all__ = ["Contract", "Facts", "build"]


def build(facts: Facts, out: Path) -> Path:
    """Write the report of one run to `out` and return it. See `steelyard.reports.page.build`."""
    from steelyard.reports.page import build as write

    return write(facts, out)
