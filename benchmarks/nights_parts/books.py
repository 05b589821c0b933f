"""Whether the books of many nights are right: nothing lost, nothing doubled, every verdict as in an undisturbed night.

And an analyst who asks all the while: a query that fails while the night writes, publishes or dies is a finding.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb

log = logging.getLogger(__name__)

VERDICTS = """
    SELECT run_id, arm,
        CASE WHEN role = 'identity' AND verdict <> 'promote' THEN 'not promoted' ELSE verdict END
    FROM verdicts
"""

KEYS = {
    "trials": "arm, load_point, block", "requests": "trial_id, request_index", "suites": "arm, suite",
    "samples": "arm, suite, doc_hash", "comparisons": "arm, metric, scope", "gate_results": "arm, gate, scope",
    "verdicts": "arm", "unit_costs": "arm, load_point", "promotions": "arm", "arms": "arm",
}  # fmt: skip


def counted(snapshot: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Rows, and distinct keys among them, by run and table."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    with duckdb.connect(snapshot, read_only=True) as connection:
        for table, key in KEYS.items():
            sql = f"SELECT run_id, count(*), count(DISTINCT ({key})) FROM {table} GROUP BY run_id"
            for run_id, rows, keys in connection.sql(sql).fetchall():
                found.setdefault(run_id, {})[table] = (rows, keys)
    return found


def runs(snapshot: Path) -> dict[str, str]:
    """Status by run."""
    with duckdb.connect(snapshot, read_only=True) as connection:
        return dict(connection.sql("SELECT run_id, status FROM studies ORDER BY started_at").fetchall())


def verdicts(snapshot: Path) -> dict[str, dict[str, str]]:
    """Verdict by arm, by run. Of the baseline against itself only whether it was promoted: whether noise refutes a gain
    that is none, or leaves it open, is chance with a real engine, killed or not.
    """
    found: dict[str, dict[str, str]] = {}
    with duckdb.connect(snapshot, read_only=True) as connection:
        for run_id, arm, verdict in connection.sql(VERDICTS).fetchall():
            found.setdefault(run_id, {})[arm] = verdict
    return found


def findings(snapshot: Path, reference: str) -> Counter[str]:
    """What is wrong with any run beside the undisturbed run `reference`: lost, doubled, other verdicts, unfinished."""
    wrong: Counter[str] = Counter()
    tables, decided, status = counted(snapshot), verdicts(snapshot), runs(snapshot)
    for run_id in status:
        wrong["unfinished"] += status[run_id] != "complete"
        wrong["verdicts_differ"] += decided.get(run_id) != decided[reference]
        for arm in decided[reference]:
            if (other := decided.get(run_id, {}).get(arm)) != decided[reference][arm]:
                log.warning("run %s: %s is %s, in the reference %s", run_id, arm, other, decided[reference][arm])
        for table, (rows, _) in tables[reference].items():
            has, keys = tables.get(run_id, {}).get(table, (0, 0))
            wrong["doubled"] += has - keys
            wrong["lost"] += max(0, rows - keys)
    return wrong


class Analyst:
    """Asks the snapshot again and again through a connection that stays open for a whole night."""

    def __init__(self, snapshot: Path) -> None:
        self._snapshot = snapshot
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.queries = 0
        self.errors: list[str] = []

    def __enter__(self) -> Analyst:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        try:
            with duckdb.connect(self._snapshot, read_only=True) as connection:
                while not self._over.is_set():
                    connection.sql("SELECT count(*), avg(end_s) FROM requests").fetchall()
                    connection.sql("SELECT study, arm, state FROM promotions_in_force").fetchall()
                    self.queries += 2
                    time.sleep(0.2)
        except duckdb.Error as error:
            self.errors.append(str(error))
