"""Measure the shipped weights on the test split and write it into the model card: `python -m reference_model.card`.

The model is served by vLLM in bfloat16 and scored by the suites as every study does it. Intervals are exact
(Clopper-Pearson). Nothing else in the card is generated.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from evals.runner import run_suite
from reference_model.suites import SUITES
from steelyard.engines.base import Deployment
from steelyard.engines.process import close_launchers
from steelyard.engines.serving import serve
from steelyard.records_quality import SampleRow
from steelyard.stats.proportions import exact_share
from steelyard.study import Suite

FOLDER = Path(__file__).resolve().parent
CARD = FOLDER / "MODEL_CARD.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
CONFIDENCE = 0.95
BROKEN_DOWN = ("steelyard_retrieval", "steelyard_arithmetic", "steelyard_reasoning", "steelyard_secrets")
"""Suites whose grades are shown, too."""


def measure(weights: Path, limit: int | None) -> dict[str, list[SampleRow]]:
    """Samples of every suite, from one served engine."""
    deployment = Deployment(
        arm="card", engine="vllm", model_name="steelyard-reference", weights=str(weights), tokenizer=str(weights),
        chat_template=None, url=None, device="cpu", weights_digest=None, tokenizer_digest=None, template_digest=None,
        args={"dtype": "bfloat16", "max_num_seqs": 64, "max_model_len": 2048, "enforce_eager": True},
        env={"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found: dict[str, list[SampleRow]] = {}
    with tempfile.TemporaryDirectory() as logs, serve(deployment, run_log_dir=Path(logs)) as engine:
        for spec in SUITES:
            suite = Suite(name=spec.task.removeprefix("steelyard_"), task=spec.task, category="accuracy", limit=limit)
            result = run_suite(
                engine, suite, run_id="card", seed=0, study_root=FOLDER, tokenizer=str(weights), concurrency=64
            )
            found[spec.task] = result.samples
    close_launchers(idle_only=False)
    return found


def line(name: str, samples: Sequence[SampleRow]) -> str:
    """One row of the table: n, right, share and its exact interval. A sample without a score counts as wrong."""
    right = sum(sample.score == 1.0 for sample in samples)
    share = exact_share(right, len(samples), CONFIDENCE)
    return f"| {name} | {len(samples):,} | {right:,} | {share.value:.3f} | {share.low:.3f} to {share.high:.3f} |"


def table(found: dict[str, list[SampleRow]]) -> str:
    """All suites, the graded ones broken down."""
    rows = ["| suite | n | right | share | 95 % interval |", "|---|---|---|---|---|"]
    for task, samples in found.items():
        rows.append(line(f"`{task}`", samples))
        if task in BROKEN_DOWN:
            grades = sorted({sample.subgroup or "" for sample in samples})
            rows += [line(f"- {each}", [s for s in samples if s.subgroup == each]) for each in grades]
    return "\n".join(rows)


def write(text: str, begin: str, end: str, path: Path = CARD) -> None:
    """Replace what stands between two marks of the card, dated today."""
    whole = path.read_text("utf-8")
    before, after = whole.split(begin)[0], whole.split(end)[1]
    path.write_text(f"{before}{begin}\n{datetime.now(UTC):%Y-%m-%d}\n\n{text}\n{end}{after}", "utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m reference_model.card", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, default=FOLDER / "weights")
    parser.add_argument("--limit", type=int, default=None, help="documents of each suite (default: all)")
    parser.add_argument("--print", action="store_true", help="print the table, leave the card alone")
    options = parser.parse_args(arguments)
    text = table(measure(options.weights, options.limit))
    if options.print:
        sys.stdout.write(text + "\n")
        return 0
    write(text, BEGIN, END)
    return 0


if __name__ == "__main__":
    sys.exit(main())
