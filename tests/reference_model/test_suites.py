import json
from collections import Counter
from pathlib import Path

import pytest

from evals.suites import loader
from reference_model import suites


def test_regenerating_gives_the_committed_bytes(tmp_path: Path) -> None:
    suites.write(tmp_path)
    for suite in suites.SUITES:
        assert (tmp_path / f"{suite}.jsonl").read_bytes() == (suites.DEFAULT_OUT / f"{suite}.jsonl").read_bytes()
    assert {path.stem for path in suites.DEFAULT_OUT.iterdir()} == set(suites.SUITES)


@pytest.mark.parametrize("suite", suites.SUITES)
def test_documents_are_distinct_test_items(suite: str) -> None:
    rows = loader.rows(suite)
    assert len(rows) == len({row["id"] for row in rows}) == len({row["question"] for row in rows}) == suites.ITEMS
    assert {row["split"] for row in rows} == {"test"}
    assert min(Counter(row["subgroup"] for row in rows).values()) >= 10
    assert all(row["question"] and row["answer"] for row in rows)


def test_labels_point_at_the_answer_and_are_balanced() -> None:
    rows = loader.rows("steelyard_facts_choice")
    assert all(row["choices"][row["label"]] + "." == row["answer"] for row in rows)
    assert all(len(set(row["choices"])) == 6 for row in rows)
    assert min(Counter(row["label"] for row in rows).values()) > len(rows) / 6 * 0.7


def test_task_files_load_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = pytest.importorskip("lm_eval.tasks")
    monkeypatch.chdir(tmp_path)
    manager = tasks.TaskManager(include_path=str(loader.DATA.parent), include_defaults=False)
    loaded = manager.load(list(suites.SUITES))["tasks"]
    assert set(loaded) == set(suites.SUITES)
    for suite, task in loaded.items():
        document = task.test_docs()[0]
        assert json.dumps(document["id"])
        assert "score" in task.aggregation()
        assert task.config.metadata["version"] == 1.0
        assert len(task.test_docs()) == suites.ITEMS, suite
