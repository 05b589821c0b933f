from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from steelyard.errors import InfrastructureError
from steelyard.records import RAW, ROWS
from warehouse import schema
from warehouse.schema import MIGRATIONS, OWN_TABLES, Script, columns, migrate, migrations
from warehouse.store import Store


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


@pytest.fixture
def migrated(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    migrate(connection)
    return connection


def test_sql_and_records_agree_in_both_directions(migrated: duckdb.DuckDBPyConnection) -> None:
    in_sql: dict[str, list[tuple[str, str, bool, str]]] = {}
    for table, *column in migrated.execute(
        "SELECT c.table_name, column_name, data_type, is_nullable, c.comment FROM duckdb_columns() c "
        "JOIN duckdb_tables() t ON t.table_name = c.table_name WHERE NOT c.internal "
        "ORDER BY c.table_name, column_index"
    ).fetchall():
        if table not in OWN_TABLES:
            in_sql.setdefault(table, []).append(tuple(column))
    in_records = {
        row.TABLE: [(each.name, each.duckdb_type, each.nullable, each.comment) for each in columns(row)] for row in ROWS
    }
    assert in_sql == in_records


def test_keys_agree(migrated: duckdb.DuckDBPyConnection) -> None:
    keys = dict(
        migrated.execute(
            "SELECT table_name, constraint_column_names FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'"
        ).fetchall()
    )
    found = {table: tuple(names) for table, names in keys.items()}
    assert found == {row.TABLE: row.KEY for row in ROWS if row not in RAW} | {
        table: (name,) for table, name in OWN_TABLES.items()
    }


def test_everything_has_a_comment(migrated: duckdb.DuckDBPyConnection) -> None:
    bare = migrated.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND coalesce(comment, '') = ''"
        " UNION ALL SELECT table_name, '' FROM duckdb_tables() WHERE NOT internal AND coalesce(comment, '') = ''"
        " UNION ALL SELECT view_name, '' FROM duckdb_views() WHERE NOT internal AND coalesce(comment, '') = ''"
    ).fetchall()
    assert bare == []


def test_a_comment_carries_the_unit(migrated: duckdb.DuckDBPyConnection) -> None:
    (comment,) = migrated.execute(
        "SELECT comment FROM duckdb_columns() WHERE table_name = 'trials' AND column_name = 'ttft_p50_s'"
    ).fetchall()[0]
    assert comment.endswith("[s]")


def test_migrating_twice_does_nothing(migrated: duckdb.DuckDBPyConnection) -> None:
    assert migrate(migrated) == []


def test_an_edited_applied_migration_is_an_error(migrated: duckdb.DuckDBPyConnection) -> None:
    first, *rest = migrations()
    with pytest.raises(InfrastructureError, match=r"0001_measurements.sql was edited"):
        migrate(migrated, [Script(first.name, first.sql + "\n-- harmless?"), *rest])


def test_line_ends_of_a_checkout_are_no_edit(migrated: duckdb.DuckDBPyConnection) -> None:
    assert migrate(migrated, [Script(each.name, each.sql.replace("\n", "\r\n")) for each in migrations()]) == []


def test_a_file_from_a_newer_steelyard_is_refused(connection: duckdb.DuckDBPyConnection) -> None:
    migrate(connection, [*migrations(), Script("9999_future.sql", "CREATE TABLE future (a BIGINT)")])
    with pytest.raises(InfrastructureError, match=r"9999_future.sql.*newer"):
        migrate(connection)


def test_a_new_migration_runs_on_top_of_old_data(migrated: duckdb.DuckDBPyConnection) -> None:
    migrated.execute("INSERT INTO prices VALUES ('r', 'p', 1, 's', DATE '2026-01-01', NULL, true, 0)")
    more = [*migrations(), Script("0999_more.sql", "ALTER TABLE prices ADD COLUMN region VARCHAR")]
    assert "0999_more.sql" in migrate(migrated, more)
    assert migrated.execute("SELECT run_id, region FROM prices").fetchall() == [("r", None)]


def test_a_late_migration_with_a_low_number_is_refused(migrated: duckdb.DuckDBPyConnection) -> None:
    first, *rest = migrations()
    with pytest.raises(InfrastructureError, match="only run forward"):
        migrate(migrated, [first, Script("0001a_late.sql", "SELECT 1"), *rest])


def test_a_failed_migration_leaves_no_trace(migrated: duckdb.DuckDBPyConnection) -> None:
    broken = Script("0999_broken.sql", "CREATE TABLE half (a BIGINT); SELECT nonsense;")
    with pytest.raises(InfrastructureError, match=r"0999_broken.sql could not be applied"):
        migrate(migrated, [*migrations(), broken])
    assert migrated.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'half'").fetchall() == [(0,)]
    assert migrate(migrated) == []


def test_gaps_in_the_numbers_are_an_error(tmp_path: Path) -> None:
    for path in MIGRATIONS.glob("*.sql"):
        shutil.copy(path, tmp_path)
    (tmp_path / "0002_judgement.sql").unlink()
    with pytest.raises(InfrastructureError, match="without a gap"):
        migrations(tmp_path)


def test_changed_views_are_written_again_and_dropped_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "views.sql"
    changed.write_text("CREATE VIEW single AS SELECT run_id FROM studies; COMMENT ON VIEW single IS 'One.';")
    with Store.open(tmp_path / "w.duckdb") as store:
        before = store.scalar("SELECT count(*) FROM duckdb_views() WHERE NOT internal")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "VIEWS", changed)
        with Store.open(tmp_path / "w.duckdb") as store:
            names = store.query("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal")
            assert names.to_numpy().tolist() == [["single", "One."]]
    with Store.open(tmp_path / "w.duckdb") as store:
        assert store.scalar("SELECT count(*) FROM duckdb_views() WHERE NOT internal") == before > 1
