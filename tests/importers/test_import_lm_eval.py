"""lm-eval: files that lm-eval 0.4.13 itself wrote, its means recomputed, and damage to either side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import InputError
from steelyard.importers import Asked, read_foreign

Edit = Callable[[list[dict[str, Any]]], Any]


def results_of(folder: Path) -> Path:
    return next(folder.glob("results_*.json"))


def samples_of(folder: Path, task: str = "refusal") -> Path:
    return next(folder.glob(f"samples_steelyard_{task}_2*.jsonl"))


def edit(path: Path, change: Edit) -> None:
    """Change samples, and the results' hash and count with them, as if lm-eval had written them so."""
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    change(samples)
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in samples))
    results = results_of(path.parent)
    root = json.loads(results.read_text())
    task = next(name for name in root["results"] if name in path.name and f"{name}_2" in path.name)
    parts = [str(each.get(name)) for each in samples for name in ("doc_hash", "prompt_hash", "target_hash")]
    root["task_hashes"][task] = hashlib.sha256("".join(parts).encode()).hexdigest()
    root["n-samples"][task]["effective"] = len({each.get("doc_id") for each in samples})
    scores = [each.get("score") for each in samples]
    if all(isinstance(each, (int, float)) for each in scores):
        root["results"][task]["score,none"] = sum(map(float, scores)) / len(scores)
    results.write_text(json.dumps(root, indent=2))


def score(samples: list[dict[str, Any]], values: list[Any]) -> None:
    for sample, value in zip(samples, values, strict=True):
        sample["score"] = value


def test_results_file_and_folder_give_the_same_run(lm_eval_folder: Path) -> None:
    by_file, by_folder = read_foreign(results_of(lm_eval_folder)), read_foreign(lm_eval_folder)
    assert by_file == by_folder
    assert [row.suite for row in by_file.suites] == ["steelyard_refusal", "steelyard_facts_choice"]
    assert {row.documents for row in by_file.suites} == {6}
    assert [row.route for row in by_file.suites] == ["generation", "loglikelihood"]
    assert by_file.suites[0].task_version == "2.0"
    assert by_file.suites[0].lm_eval_version == "0.4.13"
    assert by_file.suites[0].truncated is None
    assert by_file.suites[1].empty is None
    assert by_file.arms[0].arm == "dummy"
    assert by_file.study.started_at.year == 2026


def test_means_are_recomputed_from_samples(lm_eval_folder: Path) -> None:
    edit(samples_of(lm_eval_folder), lambda samples: score(samples, [1.0, True, 0.0, 0.5, 1, False]))
    suite = read_foreign(lm_eval_folder).suites[0]
    assert suite.mean_score == pytest.approx(3.5 / 6)


def test_rows_pair_on_lm_evals_own_hashes(lm_eval_folder: Path) -> None:
    imported = read_foreign(lm_eval_folder)
    first = json.loads(samples_of(lm_eval_folder).read_text().splitlines()[0])
    row = imported.samples[0]
    assert (row.doc_hash, row.prompt_hash) == (first["doc_hash"], first["prompt_hash"])
    assert row.prompt == first["doc"]["question"]
    assert row.answer == "lol"
    assert row.subgroup == "hazard"


def test_of_choices_the_likeliest_is_the_answer(lm_eval_folder: Path) -> None:
    first = json.loads(samples_of(lm_eval_folder, "facts_choice").read_text().splitlines()[0])
    likelihoods = [float(each[0][0]) for each in first["resps"]]
    expected = first["doc"]["choices"][likelihoods.index(max(likelihoods))]
    row = next(row for row in read_foreign(lm_eval_folder).samples if row.doc_hash == first["doc_hash"])
    assert row.answer == expected


def test_nan_is_a_sample_without_a_score(lm_eval_folder: Path) -> None:
    edit(samples_of(lm_eval_folder), lambda samples: score(samples, [float("nan"), 1, 1, 1, 1, 0]))
    imported = read_foreign(lm_eval_folder)
    assert (imported.suites[0].documents, imported.suites[0].answered) == (6, 5)
    assert imported.samples[0].score is None
    assert imported.samples[0].error


def test_filters_and_metrics_become_suites(lm_eval_folder: Path) -> None:
    def several(samples: list[dict[str, Any]]) -> None:
        for sample in samples:
            sample.update(metrics=["exact_match", "ppl", "bleu"], exact_match=1.0, ppl=7.5, bleu=["a", "b"])
        samples += [{**sample, "filter": "flexible-extract", "exact_match": 0.0} for sample in samples]

    edit(samples_of(lm_eval_folder), several)
    imported = read_foreign(lm_eval_folder)
    means = {row.suite: row.mean_score for row in imported.suites if "refusal" in row.suite}
    assert means == {
        "steelyard_refusal:exact_match,none": 1.0,
        "steelyard_refusal:exact_match,flexible-extract": 0.0,
    }
    assert any("ppl is left out, it goes to 7.5" in note for note in imported.notes)
    assert any("bleu is left out" in note for note in imported.notes)


def test_a_document_twice_in_the_data_counts_once(lm_eval_folder: Path) -> None:
    def twice(samples: list[dict[str, Any]]) -> None:
        samples.append({**samples[0], "doc_id": 6})

    edit(samples_of(lm_eval_folder), twice)
    suite = read_foreign(lm_eval_folder).suites[0]
    assert (suite.documents, suite.duplicates) == (6, 1)


def test_samples_alone_take_task_and_date_from_the_name(lm_eval_folder: Path) -> None:
    imported = read_foreign(samples_of(lm_eval_folder), Asked(arm="mine"))
    assert [row.task for row in imported.suites] == ["steelyard_refusal"]
    assert imported.study.started_at.isoformat() == "2026-11-22T01:58:15.350679+00:00"
    assert imported.suites[0].lm_eval_version == "unknown"
    results_of(lm_eval_folder).unlink()
    assert len(read_foreign(lm_eval_folder).suites) == 2


def test_other_runs_in_the_folder_do_not_matter(lm_eval_folder: Path) -> None:
    before = read_foreign(results_of(lm_eval_folder))
    other = samples_of(lm_eval_folder).read_text().replace("lol", "other").replace('"score": 0.0', '"score": 1.0')
    other = other.replace('"doc_hash": "', '"doc_hash": "0').replace('0"', '"')
    (lm_eval_folder / "samples_steelyard_refusal_2026-11-20T00-00-00.000001.jsonl").write_text(other)
    assert read_foreign(results_of(lm_eval_folder)) == before


def test_results_without_samples_are_refused(lm_eval_folder: Path) -> None:
    samples_of(lm_eval_folder).unlink()
    with pytest.raises(InputError, match="--log_samples") as error:
        read_foreign(lm_eval_folder)
    assert error.value.field == "results.steelyard_refusal"
    assert error.value.line == 3


def test_samples_that_are_not_those_of_the_results_are_refused(lm_eval_folder: Path) -> None:
    path = samples_of(lm_eval_folder)
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:-1]))
    with pytest.raises(InputError, match="samples were lost, added or edited"):
        read_foreign(lm_eval_folder)


def test_without_hashes_the_number_of_documents_must_agree(lm_eval_folder: Path) -> None:
    results = results_of(lm_eval_folder)
    root = json.loads(results.read_text())
    del root["task_hashes"]
    results.write_text(json.dumps(root))
    assert len(read_foreign(lm_eval_folder).suites) == 2
    path = samples_of(lm_eval_folder)
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:-1]))
    with pytest.raises(InputError, match="5 documents, the results count 6") as error:
        read_foreign(lm_eval_folder)
    assert error.value.field == "doc_id"


def test_a_task_taken_out_of_the_results_is_noticed(lm_eval_folder: Path) -> None:
    results = results_of(lm_eval_folder)
    root = json.loads(results.read_text())
    del root["results"]["steelyard_refusal"]
    results.write_text(json.dumps(root))
    with pytest.raises(InputError, match="task_hashes names it"):
        read_foreign(lm_eval_folder)


DAMAGE: list[tuple[str, Any, str]] = [
    ("score", None, "missing"),
    ("score", "high", "a number"),
    ("score", [1.0], "a number"),
    ("score", float("inf"), "infinite"),
    ("doc_id", None, "missing"),
    ("doc_id", 1, "also that of line 2"),
    ("doc_hash", "abc", "no sha256"),
    ("prompt_hash", None, "lm-eval 0.4.3"),
    ("metrics", None, "missing"),
    ("resps", [], "no response"),
    ("arguments", {}, "no request"),
    ("arguments", 4, "a list"),
]


@pytest.mark.parametrize(("field", "value", "says"), DAMAGE, ids=[f"{field}-{says}" for field, _, says in DAMAGE])
def test_damage_is_named_with_line_and_field(lm_eval_folder: Path, field: str, value: Any, says: str) -> None:
    edit(samples_of(lm_eval_folder), lambda samples: samples[3].update({field: value}))
    if field == "doc_id":
        # Whoever counts documents would find it first.
        root = json.loads(results_of(lm_eval_folder).read_text())
        del root["n-samples"]
        results_of(lm_eval_folder).write_text(json.dumps(root))
    with pytest.raises(InputError, match=says) as error:
        read_foreign(lm_eval_folder)
    assert (error.value.line, error.value.field) == (4, field)
    assert error.value.file is not None
    assert error.value.file.endswith(samples_of(lm_eval_folder).name)


def test_two_evaluations_of_one_model_share_a_folder(lm_eval_folder: Path) -> None:
    """lm-eval writes all runs of a model into one folder: the same documents, other answers, another date."""
    results = results_of(lm_eval_folder)
    date = results.name.removeprefix("results_").removesuffix(".json")
    first = read_foreign(results)
    for path in list(lm_eval_folder.iterdir()):
        other = path.with_name(path.name.replace(date, "2026-11-30T00-00-00.000000"))
        other.write_text(path.read_text().replace('"lol"', '"lots"'))
    assert read_foreign(results) == first
    second = read_foreign(results.with_name("results_2026-11-30T00-00-00.000000.json"))
    assert {row.answer for row in second.samples} != {row.answer for row in first.samples}
    for path in lm_eval_folder.glob(f"samples_*{date}*"):
        path.unlink()
    with pytest.raises(InputError, match="has no samples beside the file"):
        read_foreign(results)


def test_tasks_that_share_documents_and_prompts_are_told_apart_by_name(lm_eval_folder: Path) -> None:
    results, samples = results_of(lm_eval_folder), samples_of(lm_eval_folder)
    root = json.loads(results.read_text())
    for part in ("results", "configs", "versions", "n-shot", "n-samples", "task_hashes", "higher_is_better"):
        if "steelyard_refusal" in root.get(part, {}):
            root[part]["steelyard_refusal_twin"] = root[part]["steelyard_refusal"]
    results.write_text(json.dumps(root))
    twin = samples.with_name(samples.name.replace("steelyard_refusal", "steelyard_refusal_twin"))
    twin.write_text(samples.read_text())
    names = {row.suite for row in read_foreign(results).suites}
    assert {"steelyard_refusal", "steelyard_refusal_twin"} <= names


def test_edited_scores_do_not_pass_for_the_results(lm_eval_folder: Path) -> None:
    samples = samples_of(lm_eval_folder)
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    rows[0]["score"] = 1.0 - rows[0]["score"]
    samples.write_text("".join(json.dumps(each) + "\n" for each in rows))
    with pytest.raises(InputError, match="the mean of its samples") as caught:
        read_foreign(results_of(lm_eval_folder))
    assert caught.value.field == "results.steelyard_refusal.score,none"


def test_two_nights_with_the_same_answers_are_two_runs(lm_eval_folder: Path) -> None:
    first = read_foreign(lm_eval_folder)
    results = results_of(lm_eval_folder)
    root = json.loads(results.read_text())
    root["date"] = root["date"] + 86_400
    results.write_text(json.dumps(root))
    assert read_foreign(lm_eval_folder).study.run_id != first.study.run_id


def test_a_metric_that_some_documents_lack_is_no_score_there(lm_eval_folder: Path) -> None:
    def lacking(samples: list[dict[str, Any]]) -> None:
        for sample in samples:
            sample.update(metrics=["score", "exact"], exact=1.0)
        samples[0]["metrics"] = ["score"]
        del samples[0]["exact"]

    edit(samples_of(lm_eval_folder), lacking)
    imported = read_foreign(lm_eval_folder)
    suite = next(row for row in imported.suites if row.suite == "steelyard_refusal:exact,none")
    assert (suite.documents, suite.answered, suite.mean_score) == (6, 5, 1.0)
    assert any("1 of 6 samples have no exact" in note for note in imported.notes)


def test_keys_within_model_args_are_not_stored(lm_eval_folder: Path) -> None:
    results = results_of(lm_eval_folder)
    root = json.loads(results.read_text())
    root.pop("model_name", None)
    root["config"]["model_args"] = "model=tiny,base_url=http://h/v1,api_key=sk-12345,token=abc"
    results.write_text(json.dumps(root))
    imported = read_foreign(results)
    assert "sk-12345" not in repr(imported)
    assert "token=abc" not in repr(imported)
    assert "base_url=http://h/v1" in imported.study.study_json
