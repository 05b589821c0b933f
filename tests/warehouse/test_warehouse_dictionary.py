from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from steelyard.records import ROWS
from warehouse.dictionary import EXAMPLES, PAGE, dictionary
from warehouse.publish import publish
from warehouse.schema import columns
from warehouse.store import Store

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "query-the-warehouse.md"


def queries(page: Path) -> list[str]:
    return re.findall(r"```sql\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == dictionary(), "run python -m warehouse.dictionary"


def test_every_table_column_and_view_is_on_the_page() -> None:
    page = dictionary()
    for row_class in ROWS:
        part = page.split(f"### {row_class.TABLE}\n")[1].split("### ")[0]
        for column in columns(row_class):
            assert f"| `{column.name}` | {column.duckdb_type}" in part
    for view, sql in EXAMPLES.items():
        part = page.split(f"### {view}\n")[1].split("### ")[0]
        assert sql.strip() in part
        assert view in sql


def test_links_on_the_pages_lead_somewhere() -> None:
    for page in (PAGE, HOW_TO):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (page.parent / target).exists(), target
        for anchor in re.findall(r"\]\(#([^)]+)\)", text):
            assert f"### {anchor}\n" in text, anchor


@pytest.mark.parametrize("page", [PAGE, HOW_TO], ids=lambda page: page.stem)
def test_every_query_shown_works_on_the_snapshot_and_finds_something(filled: Store, tmp_path: Path, page: Path) -> None:
    folder = publish(filled, tmp_path / "published")
    shown = queries(page)
    assert len(shown) >= 8
    with duckdb.connect(folder / "steelyard.duckdb", read_only=True) as connection:
        for sql in shown:
            text = sql.replace("published/parquet", f"{folder}/parquet")
            assert connection.execute(text).fetchall(), sql
