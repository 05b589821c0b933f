from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import duckdb
import pytest

from steelyard.cli import main
from steelyard.records import ROWS
from warehouse.dictionary import EXAMPLES, PAGE, dictionary, examples
from warehouse.example import example
from warehouse.publish import publish
from warehouse.schema import columns
from warehouse.store import Store

DOCS = Path(__file__).parents[2] / "docs"
HOW_TO = DOCS / "how-to" / "query-the-warehouse.md"
NEEDS_MORE = {"capacity_by_arm", "incident_log"}
"""Views of what the example's studies do not do."""
NOTEBOOK = DOCS / "notebooks" / "warehouse.py"


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
    for view in EXAMPLES:
        part = page.split(f"### {view}\n")[1].split("### ")[0]
        asked, answered = part.split("```sql")[1].split("```")
        assert view in asked
        # No row is an answer too, but not one that shows what the view is for.
        assert view in NEEDS_MORE or answered.count("\n|") > 2, view


def test_links_on_the_pages_lead_somewhere() -> None:
    for page in (PAGE, HOW_TO):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (page.parent / target).exists(), target
        for anchor in re.findall(r"\]\(#([^)]+)\)", text):
            assert f"### {anchor}\n" in text, anchor


def test_every_query_shown_works_on_the_snapshot_and_finds_something(filled: Store, tmp_path: Path) -> None:
    folder = publish(filled, tmp_path / "published")
    shown = queries(HOW_TO)
    assert len(shown) >= 8
    with duckdb.connect(folder / "steelyard.duckdb", read_only=True) as connection:
        for sql in shown:
            text = sql.replace("published/parquet", f"{folder}/parquet")
            assert connection.execute(text).fetchall(), sql


def test_every_view_has_an_example_that_finds_something(filled: Store) -> None:
    views = filled.query("SELECT view_name FROM duckdb_views() WHERE NOT internal").view_name
    assert set(EXAMPLES) == set(views)
    for view, sql in examples("run-1").items():
        asked = sql.replace("'laptop'", "'nightly-chat'").replace("'combined'", "'int8'").replace("chat@c8", "chat@c2")
        assert len(filled.query(asked)), view


def test_python_and_commands_shown_work(
    filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(filled, tmp_path / "var" / "published")
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "var"))
    monkeypatch.chdir(tmp_path)
    text = HOW_TO.read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(block, names)
    try:
        assert len(names["best"]) > 0
        assert names["trend"].height > 0
        assert names["slowest"].height == 5
    finally:
        names["connection"].close()
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("steelyard query ")]
    assert len(commands) >= 2
    for _, *arguments in commands:
        capsys.readouterr()
        assert main(arguments) == 0
        assert capsys.readouterr().out.strip()


def test_the_notebook_runs_on_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with example() as store:
        publish(store, tmp_path / "published")
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path))
    spec = importlib.util.spec_from_file_location("notebook", NOTEBOOK)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _, names = module.app.run()
    try:
        for name in ("nights", "best", "floor", "flips", "latency"):
            assert names[name].height > 0, name
    finally:
        names["warehouse"].close()
