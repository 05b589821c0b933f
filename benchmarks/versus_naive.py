"""The bench against the naive procedure: engine time and wrong verdicts over the same arms of known truth.

    python -m benchmarks.versus_naive [--arms A,B] [--repeats 3]

Judges `versus_naive_parts/study.yaml` twice by the same bounds on the same machine: with `steelyard run`, and with what
is commonly done (`versus_naive_parts/procedure.py`). Engine seconds are those during which the procedure holds the
machine; ours are those of the whole command. A complete run renews the page of the documentation; any other writes
beside its state. It takes most of an hour, nearly all of it the naive half; nothing else may run meanwhile. The last
line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.command import finish, run_study
from benchmarks.pages import DOCS
from benchmarks.versus_naive_parts import procedure
from benchmarks.versus_naive_parts.procedure import REPEATS, Measured
from benchmarks.versus_naive_parts.report import Judged, Time, summary, write
from steelyard.deployments import deployments
from steelyard.engines.vllm import serve_vllm
from steelyard.environment import describe
from steelyard.errors import InputError
from steelyard.home import home, weights_path
from steelyard.records import ArmRow, VerdictRow
from steelyard.records_quality import SuiteRow
from steelyard.records_trials import TrialRow
from steelyard.study_file import LoadedStudy, load_study
from warehouse.store import Store

PARTS = Path(__file__).parent / "versus_naive_parts"
BASELINE = "baseline"

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 for unusable input, 4 if an engine or a tool fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versus_naive", description=__doc__.split("\n")[0])
    names = lambda text: [each for each in text.split(",") if each]  # noqa: E731
    parser.add_argument("--arms", type=names, default=None, help="arms of the naive half, by commas; all otherwise")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="restarts and benchmarks of each arm there")
    options = parser.parse_args(arguments)
    return finish(lambda: run(options))


def run(options: argparse.Namespace) -> dict[str, object]:
    """Both procedures, one after the other; returns what the last line says."""
    started = time.monotonic()
    loaded = load_study(PARTS)
    truth = yaml.safe_load((PARTS / "truth.yaml").read_text("utf-8"))
    known = [arm.name for arm in loaded.study.arms if arm.role == "candidate"]
    arms = options.arms or known
    if strangers := [arm for arm in arms if arm not in known]:
        raise InputError(f"there is no arm {', '.join(strangers)}.", remedy=f"There are {', '.join(known)}.")
    if options.repeats < 1:
        raise InputError("--repeats is positive.", remedy="Ask for one at least.")
    folder = home() / "versus-naive"
    shutil.rmtree(folder / "home", ignore_errors=True)
    began = time.monotonic()
    told = run_study(PARTS / "study.yaml", folder / "home")
    held_s = time.monotonic() - began
    log.info("steelyard: %.0f s", held_s)
    with Store.open_published(Path(told["warehouse"])) as store:
        ours = our_time(store, told["run_id"], held_s)
        verdicts = {row.arm: row for row in store.read(VerdictRow, run_id=told["run_id"])}
    measured = naive_half(loaded, [BASELINE, *arms], folder / "naive", options.repeats)
    naive = naive_time(measured)
    categories = {suite.name: suite.category for suite in loaded.study.suites}
    judged = []
    for arm in arms:
        claim = loaded.study.arm(arm).claim
        assert claim is not None
        said, reason = procedure.verdict(
            loaded.policy, measured[arm], measured[BASELINE], claim=claim.load_point, categories=categories
        )
        row = verdicts[arm]
        judged.append(
            Judged(
                arm=arm, deserves=truth[arm]["deserves"], why=truth[arm]["why"], ours=row.verdict,
                ours_reason=row.reasons[0].partition(": ")[2] if row.reasons else "", naive=said, naive_reason=reason,
            )
        )  # fmt: skip
    summed = summary(judged, ours, naive, wall_s=time.monotonic() - started)
    everything = {
        "summary": summed, "steelyard": told, "judged": [dataclasses.asdict(each) for each in judged],
        "naive": {arm: dataclasses.asdict(each) for arm, each in measured.items()},
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(everything, indent=1) + "\n", "utf-8")
    # A void run judged nobody: its page would say that nothing was decided wrongly.
    complete = arms == known and options.repeats >= REPEATS and told["status"] == "complete"
    where = f"{describe()['cpu_model']}, {time.strftime('%Y-%m-%d')}; {len(arms)} arms and the baseline"
    write(judged, ours, naive, summed, DOCS if complete else folder, where=where)
    return summed


def naive_half(loaded: LoadedStudy, arms: Sequence[str], folder: Path, repeats: int) -> dict[str, Measured]:
    """The naive procedure over arms, one after the other."""
    ready = {each.arm: each for each in deployments(loaded, weights_into=weights_path())}
    limit = loaded.study.hardware.start_timeout_s
    found = {}
    for arm in arms:
        found[arm] = procedure.measure(
            loaded,
            ready[arm],
            folder,
            # Plainly, as `vllm serve` starts: forking from a process that has imported vLLM is one of our savings.
            lambda each: serve_vllm(each, run_log_dir=folder / "logs", start_timeout_s=limit, port=None, preload=False),
            repeats=repeats,
        )
        log.info("naive %s: %.0f s", arm, found[arm].held_s)
    return found


def our_time(store: Store, run_id: str, held_s: float) -> Time:
    """What a run stored of its time."""
    suites, trials = store.read(SuiteRow, run_id=run_id), store.read(TrialRow, run_id=run_id)
    asked = sum(row.duration_s or 0.0 for row in suites)
    timed = sum(row.duration_s or 0.0 for row in trials)
    documents = sum(row.documents for row in suites)
    starting = sum(row.start_s or 0.0 for row in store.read(ArmRow, run_id=run_id))
    return Time(held_s, asked + timed, documents, {"suites": asked, "benchmarks": timed, "starting engines": starting})


def naive_time(measured: dict[str, Measured]) -> Time:
    """The same of the naive procedure."""
    rows = measured.values()
    return Time(
        held_s=sum(each.held_s for each in rows),
        busy_s=sum(each.busy_s for each in rows),
        documents=sum(each.documents for each in rows),
        parts={
            "suites": sum(each.suites_s for each in rows),
            "benchmarks": sum(each.benching_s for each in rows),
            "starting engines": sum(each.starting_s for each in rows),
            "starting clients, stopping engines": sum(each.held_s - each.busy_s - each.starting_s for each in rows),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
