"""lm-eval's `results_*.json` with the `samples_*.jsonl` it was made of, or samples files alone.

From lm_eval/loggers/evaluation_tracker.py of 0.4.13. A results file holds means only, so each of its tasks needs its
samples; which file belongs to which task is told by the hash in `task_hashes`, not by a file's name. A task with
several metrics or filters becomes several suites. Scores lie between 0 and 1; what does not is left out and named.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steelyard.digest import digest
from steelyard.errors import InputError
from steelyard.importers.common import (
    Asked,
    Imported,
    arm_row,
    deployment_digest,
    modified,
    moment,
    public,
    run_id_of,
    slug,
    study_row,
)
from steelyard.importers.fields import Field, first_text, integer_at, number_at, text_at
from steelyard.importers.json_source import Source
from steelyard.importers.lm_eval_samples import ForeignSuite, sample_rows
from steelyard.records_quality import SampleRow, SuiteRow

TOOL = "lm-eval"
AGAIN = "Run lm_eval again with --log_samples and --output_path, and give the results file with the samples beside it."
UNCATEGORISED = "unknown"
ROUNDED = 1e-4
"""By how much a mean may differ from the one in the results, which some tools round."""
_NAMED = re.compile(r"samples_(?P<task>.+?)(?:_(?P<date>\d{4}-\d{2}-\d{2}T[\d.:-]+))?\.jsonl(?:\.gz)?")
_RESULTS = re.compile(r"(?:.*_)?(?P<date>\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(?:\.\d+)?)\.json(?:\.gz)?")


def recognises(data: object) -> bool:
    """Whether a document is a results file."""
    marks = {"configs", "config", "versions", "n-shot", "n-samples", "lm_eval_version", "task_hashes"}
    return isinstance(data, dict) and isinstance(data.get("results"), dict) and bool(marks & data.keys())


def recognises_sample(data: object) -> bool:
    """Whether a document is one sample."""
    marks = {"doc_id", "doc_hash", "resps", "filtered_resps", "arguments"}
    return isinstance(data, dict) and len(marks & data.keys()) > 1


@dataclass(frozen=True, slots=True)
class Task:
    """One task's samples."""

    name: str
    source: Source
    samples: tuple[Field, ...]


def rows(results: Source | None, samples: Sequence[Source], asked: Asked) -> Imported:
    """The rows of one evaluation. `samples` are all that might belong to `results`, or, without it, all there is."""
    root = _root(results) if results is not None else None
    tasks = _matched(root, results, samples) if root is not None and results is not None else _alone(samples)
    # With the results: samples hold no date, and two nights may answer alike to the last byte.
    content = digest(
        [results.digest if results is not None else None, *sorted([task.name, task.source.digest] for task in tasks)]
    )
    run_id = run_id_of(TOOL, content)
    model = first_text(root, ("model_name",), ("config", "model_args"), ("config", "model")) if root else None
    model = None if model is None else str(public(model))
    arm = asked.arm or slug(model, TOOL)
    version = text_at(root, "lm_eval_version") if root else None
    tool = f"{TOOL} {version}" if version else TOOL
    suites: list[SuiteRow] = []
    stored: list[SampleRow] = []
    notes = ["Without a results file task and date come from the file's name."] if root is None else []
    for task in tasks:
        found = sample_rows(task.samples, task.name, run_id=run_id, arm=arm)
        notes += found.notes
        for suite in found.suites:
            suites.append(_suite(suite.name, suite.metric, task, suite.rows, suite, root, run_id, arm, version))
            _same_mean(root, task, suite)
            stored += suite.rows
    started = _date(root, (results or tasks[0].source).path)
    seed = integer_at(root, "config", "random_seed") if root is not None and root.get("config") is not None else None
    header = {key: value for key, value in root.data.items() if key != "pretty_env_info"} if root else {}
    return Imported(
        study=study_row(
            run_id=run_id, study=asked.name or f"import-{TOOL}", tool=tool, content=content,
            header={"tool": tool, "file": (results or tasks[0].source).path.name, **header}, started_at=started,
            finished_at=None, seed=seed, notes=notes, packages={"lm_eval": version} if version else None,
        ),
        arms=[arm_row(run_id, arm, tool=tool, args=_config(root), model=model)],
        suites=suites,
        samples=stored,
        notes=notes,
    )  # fmt: skip


def _root(results: Source) -> Field:
    root = Field.root(results.documents[0])
    if len(results.documents) > 1:
        raise Field.root(results.documents[1]).problem("is a second document: a results file is one.")
    return root


def _config(root: Field | None) -> Mapping[str, Any]:
    config = root.get("config") if root is not None else None
    return config.data if config is not None and isinstance(config.data, dict) else {}


def _matched(root: Field, results: Source, samples: Sequence[Source]) -> list[Task]:
    """Every task of the results with its samples. InputError if one lacks them, or they are others."""
    found = {name: field for name, field in root.need("results").members().items() if _has_scores(field)}
    groups = root.get("group_subtasks")
    subtasks = groups.members() if groups is not None else {}
    wanted = [name for name in found if not (name in subtasks and subtasks[name].data)]
    if not wanted:
        raise root.need("results").problem("holds no task.", AGAIN)
    hashes = root.get("task_hashes")
    for place in ("task_hashes", "n-samples"):
        listed = root.get(place)
        lost = [name for name in (listed.members() if listed is not None else {}) if name not in found]
        if lost:
            raise root.need("results").problem(f"has no {lost[0]}, but {place} names it.")
    known = {name: text for name in wanted if hashes is not None and (text := text_at(hashes, name)) is not None}
    by_hash = {text: name for name, text in known.items()}
    date = _results_date(results.path)
    tasks: dict[str, Task] = {}
    for source in samples:
        fields = tuple(Field.root(document) for document in source.documents)
        named = _NAMED.fullmatch(source.path.name)
        if date is not None and named is not None and named["date"] not in (None, date):
            # Of another evaluation: those of one model share a folder, and hashes are of documents, not of answers.
            continue
        claimed = next((name for name in wanted if named and named["task"] == name), None)
        found_hash = _task_hash(fields)
        # Tasks may share documents and prompts, and so a hash; then the name tells.
        same = claimed if claimed is not None and known.get(claimed) == found_hash else by_hash.get(found_hash)
        name = same or (claimed if claimed not in known else None)
        if name is None:
            if claimed is not None and date is not None:
                raise fields[0].document.problem(
                    f"the samples are not those that {results.file} was made of: their hash is not its task_hashes."
                    f"{claimed}.",
                    "Copy both files again; samples were lost, added or edited.",
                )
            continue
        if name in tasks:
            raise fields[0].document.problem(
                f"task {name} has samples twice, here and in {tasks[name].source.file}.", "Leave only one of them."
            )
        tasks[name] = Task(name, source, fields)
    missing = [name for name in wanted if name not in tasks]
    if missing:
        raise (
            root.need("results")
            .need(missing[0])
            .problem(f"has no samples beside the file ({len(missing)} of {len(wanted)} tasks have none).", AGAIN)
        )
    for name, task in tasks.items():
        _whole(root, name, task)
    return [tasks[name] for name in wanted]


def _has_scores(field: Field) -> bool:
    if not isinstance(field.data, dict):
        raise field.wrong("an object")
    return any("," in key for key in field.data) or not field.data.keys() <= {"alias", "name", " "}


def _task_hash(samples: Sequence[Field]) -> str:
    """As lm-eval computes it; what lacks a hash matches nothing."""
    parts = [sample.data.get(name) for sample in samples for name in ("doc_hash", "prompt_hash", "target_hash")]
    return hashlib.sha256("".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()


def _whole(root: Field, name: str, task: Task) -> None:
    counts = root.get("n-samples", name) if root.get("n-samples") is not None else None
    effective = integer_at(counts, "effective") if counts is not None else None
    documents = len({repr(sample.data.get("doc_id")) for sample in task.samples})
    if effective is not None and documents != effective:
        raise InputError(
            f"holds samples of {documents} documents, the results count {effective}.",
            remedy="Copy both files again.", file=task.source.file, line=task.samples[-1].document.first_line,
            field="doc_id",
        )  # fmt: skip


def _same_mean(root: Field | None, task: Task, suite: ForeignSuite) -> None:
    """InputError if the samples' mean is not the one the results give. Asked only where it must be: of a metric that is
    aggregated by the mean, over samples that all have a score.
    """
    if root is None or suite.duplicates or any(row.score is None for row in suite.rows):
        return
    configs = root.data.get("configs")
    config = configs.get(task.name) if isinstance(configs, Mapping) else None
    listed = config.get("metric_list") if isinstance(config, Mapping) else None
    by_mean = isinstance(listed, list) and any(
        isinstance(each, Mapping) and each.get("metric") == suite.metric and each.get("aggregation") == "mean"
        for each in listed
    )
    told = root.need("results").need(task.name).get(suite.key)
    if not by_mean or told is None or isinstance(told.data, bool) or not isinstance(told.data, (int, float)):
        return
    mean = math.fsum(row.score or 0.0 for row in suite.rows) / len(suite.rows)
    if abs(mean - told.data) > ROUNDED:
        raise told.problem(
            f"says {told.data:g}, but the mean of its samples in {task.source.file} is {mean:g}.",
            "Copy both files again; scores were edited, or the files are of two evaluations.",
        )


def _alone(samples: Sequence[Source]) -> list[Task]:
    tasks: dict[str, Task] = {}
    for source in samples:
        fields = tuple(Field.root(document) for document in source.documents)
        named = _NAMED.fullmatch(source.path.name)
        name = named["task"] if named else source.path.name.split(".")[0]
        if name in tasks:
            raise fields[0].document.problem(
                f"task {name} has samples twice, here and in {tasks[name].source.file}.",
                "Give one file, or the results file that tells which belong together.",
            )
        tasks[name] = Task(name, source, fields)
    return list(tasks.values())


def _suite(
    name: str, metric: str, task: Task, stored: Sequence[SampleRow], counts: Any, root: Field | None, run_id: str,
    arm: str, version: str | None,
) -> SuiteRow:  # fmt: skip
    scores = [row.score for row in stored if row.score is not None]
    return SuiteRow(
        run_id=run_id,
        arm=arm,
        suite=name,
        deployment_digest=deployment_digest(run_id, arm),
        category=UNCATEGORISED,
        task=task.name,
        task_version=_task_version(root, task.name),
        route=_route(root, counts.generated),
        metric=metric,
        documents=len(stored),
        answered=len(scores),
        mean_score=math.fsum(scores) / len(scores) if scores else None,
        documents_digest=digest(sorted(row.doc_hash for row in stored)),
        lm_eval_version=version or "unknown",
        duration_s=None,
        empty=counts.empty if counts.generated else None,
        truncated=None,
        duplicates=counts.duplicates,
    )


def _task_version(root: Field | None, task: str) -> str | None:
    versions = root.get("versions") if root is not None else None
    found = versions.get(task) if versions is not None else None
    return None if found is None else str(found.data)


def _route(root: Field | None, generated: bool) -> str:
    if not generated:
        return "loglikelihood"
    chat = root is not None and (
        root.data.get("chat_template") is not None or "chat" in str(_config(root).get("model", ""))
    )
    return "chat" if chat else "generation"


def _results_date(path: Path) -> str | None:
    named = _RESULTS.fullmatch(path.name)
    return named["date"] if named else None


def _date(root: Field | None, path: Path) -> datetime:
    seconds = number_at(root, "date") if root is not None else None
    if root is not None and seconds is not None:
        try:
            return moment(seconds)
        except ValueError as error:
            raise root.need("date").problem(f"cannot be: {error}.") from None
    named = _NAMED.fullmatch(path.name)
    text = named["date"] if named else _results_date(path)
    try:
        # lm-eval writes its own local time with dashes for colons.
        day, _, clock = (text or "").partition("T")
        return datetime.fromisoformat(f"{day}T{clock.replace('-', ':')}").replace(tzinfo=UTC)
    except ValueError:
        return modified(path)
