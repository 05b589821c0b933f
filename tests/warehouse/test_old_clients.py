"""The snapshot as DuckDB 1.2 reads it: analysts do not upgrade when we do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb

from warehouse.dictionary import examples
from warehouse.publish import publish
from warehouse.store import Store

CLIENT = Path(sys.prefix) / "clients" / "duckdb-1.2"
_ASK = """
import json, sys
import duckdb
snapshot, questions = sys.argv[1], json.load(sys.stdin)
with duckdb.connect(snapshot, read_only=True) as connection:
    answers = {
        name: [list(map(str, row)) for row in connection.execute(sql).fetchall()] for name, sql in questions.items()
    }
json.dump({"version": duckdb.__version__, "answers": answers}, sys.stdout)
"""


def test_duckdb_1_2_gives_the_answers_that_ours_gives(filled: Store, tmp_path: Path) -> None:
    assert CLIENT.is_dir(), "scripts/setup installs it"
    snapshot = publish(filled, tmp_path / "published") / "steelyard.duckdb"
    with duckdb.connect(snapshot, read_only=True) as connection:
        names = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE NOT internal "
            "UNION SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1"
        ).fetchall()
        questions = {f"rows of {name}": f"SELECT count(*) FROM {name}" for (name,) in names}
        questions |= examples("run-1")
        questions["comments"] = (
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal ORDER BY 1, 2"
        )
        ours = {
            name: [list(map(str, row)) for row in connection.execute(sql).fetchall()] for name, sql in questions.items()
        }
    environment = {**os.environ, "PYTHONPATH": str(CLIENT)}
    told = subprocess.run(
        [sys.executable, "-c", _ASK, snapshot], input=json.dumps(questions), env=environment, check=True,
        capture_output=True, text=True, cwd=tmp_path,
    ).stdout  # fmt: skip
    theirs = json.loads(told)
    assert theirs["version"] == "1.2.0"
    assert theirs["answers"] == ours
    assert len(names) > 40
