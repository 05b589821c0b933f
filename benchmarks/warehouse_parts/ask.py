"""`python -m benchmarks.warehouse_parts.ask SNAPSHOT ROUNDS`: how long every documented view takes, as JSON.

A process of its own, as an analyst's is: what the writer holds in memory must not answer for it. Each query is asked of
a connection opened for it. Beside the queries on raw rows the same question is asked of the same Parquet in plain SQL.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path

import duckdb

from warehouse.dictionary import examples
from warehouse.snapshot import tree_of

# The documented questions on raw rows, as somebody would put them who has the files and no views.
BARE = {
    "request_evidence": """
SELECT requests.arm, trials.load_point, trials.block, count(*), count(*) FILTER (WHERE requests.status <> 'ok'),
    median(requests.first_token_s - requests.sent_s), median(requests.end_s - requests.sent_s)
FROM read_parquet('{tree}/requests/*/*/*.parquet') AS requests
JOIN read_parquet('{tree}/trials/data.parquet') AS trials USING (run_id, trial_id)
WHERE requests.run_id = '{run}' AND trials.valid
GROUP BY ALL ORDER BY ALL""",
    "flips": """
WITH s AS (
    SELECT * FROM read_parquet('{tree}/samples/*/*/*.parquet')
    WHERE run_id = '{run}'
)
SELECT ours.arm, ours.suite, ours.prompt, ours.target, theirs.answer, ours.answer
FROM s AS ours JOIN s AS theirs USING (suite, doc_hash, prompt_hash)
WHERE theirs.arm = 'baseline' AND ours.arm <> 'baseline' AND ours.score < theirs.score
ORDER BY ours.arm, ours.suite""",
    "metric_trend": """
SELECT CAST(s.started_at AS DATE), c.estimate, c.low, c.high, median(c.estimate) OVER before,
    c.estimate / median(c.estimate) OVER before - 1
FROM read_parquet('{tree}/comparisons/data.parquet') AS c
JOIN read_parquet('{tree}/studies/data.parquet') AS s USING (run_id)
WHERE s.study = 'laptop' AND c.arm = 'combined' AND c.metric = 'output_tokens_per_s' AND c.scope = 'chat@c8'
WINDOW before AS (ORDER BY s.started_at ROWS BETWEEN 7 PRECEDING AND 1 PRECEDING)
ORDER BY run_id DESC LIMIT 5""",
}


def timed(snapshot: Path, sql: str, rounds: int) -> list[float]:
    """Seconds of each round, opening included."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        with duckdb.connect(snapshot, read_only=True, config={"threads": 2, "memory_limit": "2GB"}) as connection:
            connection.execute(sql).fetchall()
        took.append(time.perf_counter() - began)
    return took


def main() -> int:
    """Ask, and print."""
    snapshot, rounds = Path(sys.argv[1]), int(sys.argv[2])
    with duckdb.connect(snapshot, read_only=True) as connection:
        tree = tree_of(connection, snapshot)
        [(run_id,)] = connection.execute("SELECT max(run_id) FROM studies").fetchall()
    views = {view: timed(snapshot, sql, rounds) for view, sql in examples(run_id).items()}
    bare = {view: timed(snapshot, sql.format(tree=tree, run=run_id), rounds) for view, sql in BARE.items()}
    ratios = {view: statistics.median(views[view]) / statistics.median(bare[view]) for view in bare}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({"views": views, "bare": bare, "ratios": ratios, "peak_bytes": peak}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
