import hashlib
from collections import Counter
from pathlib import Path

import pytest

from evals.suites import loader
from reference_model import suites

TASKS = [spec.task for spec in suites.SUITES]


def test_regenerating_gives_the_committed_bytes(tmp_path: Path) -> None:
    suites.write(tmp_path)
    committed = suites.DEFAULT_OUT
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    for path in made:
        assert (tmp_path / path).read_bytes() == (committed / path).read_bytes(), path
    shipped = {path.relative_to(committed) for path in (*committed.glob("steelyard_*"), *committed.glob("data/*"))}
    assert {str(path) for path in made - shipped} == set(suites.CODE)


@pytest.mark.parametrize("family", sorted({spec.family for spec in suites.SUITES}))
def test_documents_are_distinct_test_items(family: str) -> None:
    rows = loader.rows(f"steelyard_{family}")
    assert len(rows) == len({row["id"] for row in rows}) == suites.ITEMS >= 1500
    assert {row["split"] for row in rows} == {"test"}
    assert min(Counter(row["subgroup"] for row in rows).values()) >= 10
    assert all((row.get("question") or row["messages"]) and row["answer"] for row in rows)


@pytest.mark.parametrize("family", suites.LIKELIHOOD)
def test_labels_point_at_the_answer_and_are_balanced(family: str) -> None:
    rows = [row for row in loader.rows(f"steelyard_{family}") if len(row["choices"]) == 6]
    assert all(row["choices"][row["label"]] + "." == row["answer"] for row in rows)
    if rows:
        assert min(Counter(row["label"] for row in rows).values()) > len(rows) / 6 * 0.7


def test_task_files_load_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = pytest.importorskip("lm_eval.tasks")
    monkeypatch.chdir(tmp_path)
    manager = tasks.TaskManager(include_path=str(loader.DATA.parent), include_defaults=False)
    loaded = manager.load(TASKS)["tasks"]
    assert set(loaded) == set(TASKS)
    for spec in suites.SUITES:
        task = loaded[spec.task]
        metadata = task.config.metadata
        assert task.test_docs()[0]["id"]
        assert set(task.aggregation()) == set(spec.metrics)
        assert metadata["items"] == len(task.test_docs())
        assert metadata["items"] == suites.ITEMS
        assert metadata["sha256"] == hashlib.sha256(loader.content(spec.data)).hexdigest()


def test_stereotyped_names_the_person_of_the_traits_group() -> None:
    for row in loader.rows("steelyard_bias")[:200]:
        assert row["named"] in row["question"]
