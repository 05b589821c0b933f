"""The warehouse in a notebook: `marimo edit docs/notebooks/warehouse.py`, or `marimo run` to only look.

It reads the published snapshot of `STEELYARD_HOME` (default `./var`), beside whoever writes. Without a run of your own:
`steelyard restore docs/example` brings in the one that comes with Steelyard.
"""

import marimo

app = marimo.App(width="medium", app_title="The warehouse")


@app.cell
def _():
    import os
    from pathlib import Path

    import duckdb
    import marimo as mo
    import polars as pl

    published = Path(os.environ.get("STEELYARD_HOME") or "var") / "published"
    warehouse = duckdb.connect(published / "steelyard.duckdb", read_only=True)
    return mo, pl, published, warehouse


@app.cell
def _(mo, warehouse):
    nights = warehouse.sql("SELECT * FROM nights ORDER BY night DESC, study").pl()
    mo.vstack([mo.md("## Nights"), mo.ui.table(nights)])
    return (nights,)


@app.cell
def _(mo, warehouse):
    best = warehouse.sql("""
        SELECT model, lever, verdict, arm, scope, gain, proven_gain, promotes, judged
        FROM best_verdicts
        ORDER BY proven_gain DESC NULLS LAST
    """).pl()
    mo.vstack([mo.md("## The best verdict each lever ever got"), mo.ui.table(best)])
    return (best,)


@app.cell
def _(mo, warehouse):
    floor = warehouse.sql("""
        SELECT study, metric, scope, count(*) AS nights, median(sqrt(high / low)) AS typical_factor
        FROM noise_floor
        WHERE kind = 'ratio' AND low > 0
        GROUP BY study, metric, scope
        ORDER BY typical_factor DESC NULLS LAST
    """).pl()
    mo.vstack(
        [
            mo.md("## The noise floor: by what factor the baseline differs from itself, with as many blocks as it had"),
            floor,
        ]
    )
    return (floor,)


@app.cell
def _(mo, warehouse):
    judged = warehouse.sql("SELECT study FROM latest_runs WHERE latest_complete_run_id IS NOT NULL ORDER BY study").pl()
    names = judged["study"].to_list()
    runs = mo.ui.dropdown(names, value=names[0], label="Study")
    runs
    return (runs,)


@app.cell
def _(mo, runs, warehouse):
    run_id = warehouse.execute(
        "SELECT latest_complete_run_id FROM latest_runs WHERE study = ?", [runs.value]
    ).fetchall()[0][0]
    flips = warehouse.sql(
        "SELECT arm, suite, flip, prompt, baseline_answer, arm_answer FROM flips "
        "WHERE run_id = ? AND flip = 'safe_to_unsafe' ORDER BY arm, suite, doc_hash",
        params=[run_id],
    ).pl()
    mo.vstack([mo.md(f"## Safe before, unsafe now: `{run_id}`"), mo.ui.table(flips)])
    return flips, run_id


@app.cell
def _(mo, pl, published, run_id):
    # Polars reads the Parquet itself. By arm and block, all load points together: for a look, not for a comparison.
    latency = (
        pl.scan_parquet(published / "parquet" / "requests" / "**" / "*.parquet", hive_partitioning=True)
        .filter(pl.col("run_id") == run_id, pl.col("status") == "ok")
        .group_by("arm")
        .agg(
            pl.len().alias("requests"),
            (pl.col("end_s") - pl.col("sent_s")).median().alias("e2e_p50_s"),
            (pl.col("first_token_s") - pl.col("sent_s")).median().alias("ttft_p50_s"),
        )
        .sort("e2e_p50_s")
        .collect()
    )
    mo.vstack([mo.md("## Latency by arm, out of the Parquet"), latency])
    return (latency,)


if __name__ == "__main__":
    app.run()
