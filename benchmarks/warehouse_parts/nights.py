"""Nights that never were, in the shape of one that was: every row of a real run again, under a new run and date.

Requests are generated, as many as are asked for, because one real night on two cores has six thousand. All else is the
real run's: as many trials, samples, comparisons and verdicts, with estimates that move from night to night.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from steelyard.records import RAW, ROWS, Row
from steelyard.records_trials import RequestRow
from warehouse.schema import columns, quoted

FIRST = date(2024, 1, 1)
TOKENS = 24
"""Token times of a generated request; the real ones have 26 on average."""
_MOVED = {"estimate", "low", "high"}

_REQUESTS = """
SELECT trials.trial_id, i AS request_index, trials.run_id, trials.arm, trials.deployment_digest,
    sha256(trials.load_point || trials.block || '/' || i || trials.run_id) AS prompt_hash,
    due AS scheduled_s, due + 0.0001 * random() AS sent_s, due + first AS first_token_s,
    due + first + {tokens} * gap AS end_s,
    list_transform(range({tokens}), lambda k: due + first + (k + random() * 0.1) * gap) AS token_times_s,
    CAST(32 AS BIGINT) AS prompt_tokens, CAST(32 AS BIGINT) AS input_tokens, CAST({tokens} AS BIGINT) AS output_tokens,
    CASE WHEN i % 5000 = 4999 THEN 'timeout' ELSE 'ok' END AS status, CAST(NULL AS VARCHAR) AS error,
    'length' AS finish_reason, first < 0.11 AS met_slo
FROM (
    SELECT trial_id, run_id, arm, deployment_digest, load_point, block, i, 0.05 * i + 0.01 * random() AS due,
        0.05 + 0.06 * random() AS first, 0.02 + 0.03 * random() AS gap
    FROM night_trials, range({each}) AS t(i)
) AS trials
"""


class Nights:
    """A generator of nights out of a real run of a Parquet tree, by default the one with the most arms."""

    def __init__(self, tree: Path, requests: int, template: str | None = None) -> None:
        self._connection = duckdb.connect(config={"threads": 2, "memory_limit": "512MB"})
        template = template or self._largest(tree)
        self._tables = [row_class for row_class in ROWS if row_class is not RequestRow]
        for row_class in self._tables:
            if not (tree / row_class.TABLE).is_dir():
                # A tree of an older Steelyard has no table that came later.
                made = pa.table({column.name: pa.array([], column.arrow_type) for column in columns(row_class)})
                self._connection.register("made", made)
                self._connection.execute(f"CREATE TABLE {row_class.TABLE} AS SELECT * FROM made")
                continue
            files = f"{tree}/{row_class.TABLE}/" + ("*/*/*.parquet" if row_class in RAW else "data.parquet")
            self._connection.execute(
                f"CREATE TABLE {row_class.TABLE} AS SELECT * FROM read_parquet({quoted(files)}, "
                f"hive_partitioning = false) WHERE run_id = {quoted(template)}"
            )
        [(trials,)] = self._connection.execute("SELECT count(*) FROM trials").fetchall()
        if not trials:
            raise ValueError(f"{tree} has no run {template} with trials")
        self._each = -(-requests // trials)
        self._requests = requests

    def _largest(self, tree: Path) -> str:
        """The run with the most arms."""
        found = self._connection.execute(
            f"SELECT arg_max(run_id, arms) FROM (SELECT run_id, count(*) AS arms "
            f"FROM read_parquet({quoted(f'{tree}/verdicts/data.parquet')}) GROUP BY run_id)"
        ).fetchall()
        return str(found[0][0])

    def __iter__(self) -> Iterator[tuple[str, dict[type[Row], pa.Table]]]:
        """Run after run, a night each, for ever: its id and its rows by table."""
        number = 0
        while True:
            night = FIRST + timedelta(days=number)
            run_id = f"{night:%Y%m%d}-020000-laptop-{number:06x}"
            yield run_id, self._night(run_id, night, number)
            number += 1

    def _night(self, run_id: str, night: date, number: int) -> dict[type[Row], pa.Table]:
        tables = {row_class: self._again(row_class, run_id, night, number) for row_class in self._tables}
        trials = next(table for row_class, table in tables.items() if row_class.TABLE == "trials")
        self._connection.register("night_trials", trials)
        sql = _REQUESTS.format(tokens=TOKENS, each=self._each) + f" LIMIT {self._requests}"
        tables[RequestRow] = self._connection.sql(sql).to_arrow_table()
        self._connection.unregister("night_trials")
        return {row_class: table for row_class, table in tables.items() if table.num_rows}

    def _again(self, row_class: type[Row], run_id: str, night: date, number: int) -> pa.Table:
        shown = []
        # A tree that an older Steelyard exported lacks columns that came later: unknown there.
        there = set(self._connection.table(row_class.TABLE).columns)
        for column in columns(row_class):
            if column.name == "run_id":
                shown.append(f"{quoted(run_id)} AS run_id")
            elif column.name == "trial_id":
                shown.append(f"substr(md5({quoted(run_id)} || trial_id), 1, 16) AS trial_id")
            elif column.name in ("started_at", "finished_at") and row_class.TABLE == "studies":
                hours = 2 if column.name == "started_at" else 3
                shown.append(f"TIMESTAMP '{night}' + INTERVAL {hours} HOUR AS {column.name}")
            elif column.name in _MOVED:
                shown.append(f"{column.name} * {1 + 0.02 * ((number * 7919) % 13 - 6) / 6} AS {column.name}")
            else:
                shown.append(column.name if column.name in there else f"NULL AS {column.name}")
        return self._connection.sql(f"SELECT {', '.join(shown)} FROM {row_class.TABLE}").to_arrow_table()
