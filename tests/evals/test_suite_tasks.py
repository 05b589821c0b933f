"""What `steelyard check` learns of a suite, and what it says of suites that are wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evals import harness
from evals.tasks import describe
from steelyard.errors import InputError
from steelyard.study import Suite
from tests.evals.conftest import ROOT


def suite(task: str, path: str | None = "tasks", metric: str = "score") -> Suite:
    return Suite(name="s", task=task, category="safety", path=path, metric=metric)


def test_a_task_is_described(suites: Path) -> None:
    info = describe(suite("spoken"), suites)
    assert (info.task, info.version, info.output_types, info.documents) == ("spoken", "2.0", ("generate_until",), 30)
    assert info.metrics == ("length", "score")
    assert info.generates
    assert not describe(suite("chosen", metric="acc"), suites).generates


def test_a_group_has_the_types_of_all_and_the_metrics_in_common(suites: Path) -> None:
    info = describe(suite("both"), suites)
    assert info.output_types == ("generate_until", "multiple_choice")
    assert (info.documents, info.metrics) == (33, ("score",))


@pytest.mark.parametrize(
    "task",
    ["steelyard_facts", "steelyard_arithmetic", "steelyard_refusal", "steelyard_overrefusal", "steelyard_facts_choice"],
)
def test_steelyards_own_suites_are_usable(task: str, tmp_path: Path) -> None:
    info = describe(suite(task, path=None), tmp_path)
    assert info.documents > 0
    assert info.generates == (task != "steelyard_facts_choice")


def test_an_unknown_task_gets_close_matches(suites: Path) -> None:
    with pytest.raises(InputError, match="Did you mean spoken"):
        describe(suite("spokn"), suites)


def test_unreadable_yaml_is_named_with_its_line(suites: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text("task: mine\ntest_split: [test\noutput_type: generate_until\n")
    with pytest.raises(InputError, match=r"mine\.yaml:3") as caught:
        describe(suite("mine"), tmp_path)
    assert caught.value.file == str(tmp_path / "tasks" / "mine.yaml")


def test_a_task_that_cannot_be_built_names_its_file(suites: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    file = tmp_path / "tasks" / "mine.yaml"
    file.write_text("task: mine\noutput_type: chatter\ndataset_path: json\ntest_split: test\n")
    with pytest.raises(InputError, match="chatter") as caught:
        describe(suite("mine"), tmp_path)
    assert caught.value.file == str(file)


def test_perplexity_tasks_are_refused(suites: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "text.jsonl").write_text(json.dumps({"text": "a b c"}) + "\n")
    (tmp_path / "tasks" / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: {test: text.jsonl}}\ntest_split: test\n"
        "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
    )
    with pytest.raises(InputError, match="perplexities"):
        describe(suite("mine", metric="word_perplexity"), tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder nowhere"):
        describe(suite("mine", path="nowhere"), tmp_path)


def test_an_edited_task_is_read_again(suites: Path) -> None:
    file = suites / "tasks" / "edited.yaml"
    file.write_text("include: spoken.yaml\ntask: edited\nmetadata: {version: 1.0}\n")
    assert describe(suite("edited"), suites).version == "1.0"
    file.write_text("include: spoken.yaml\ntask: edited\nmetadata: {version: 1.25}\n")
    assert describe(suite("edited"), suites).version == "1.25"


def test_nothing_is_printed_and_nothing_written_outside_home(suites: Path, tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from evals import harness
from evals.tasks import describe
from steelyard.study import Suite
describe(Suite(name="s", task="spoken", category="safety", path="tasks"), Path({str(suites)!r}))
"""
    user = tmp_path / "user"
    user.mkdir()
    env = {"HOME": str(user), "STEELYARD_HOME": str(tmp_path / "state"), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=user, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert list(user.rglob("*")) == []
    assert list((tmp_path / "state" / "huggingface" / "datasets").rglob("*.arrow"))


def test_only_documents_that_are_asked_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with harness.session():
        (task,) = harness.load(suite("steelyard_facts", path=None), ROOT).tasks.values()
        docs = list(task.eval_docs)
        assert list(task.doc_iterator()) == list(enumerate(docs))
        # As lm-eval numbers them: by their place among those asked, in the data set's order, each once.
        assert list(task.doc_iterator(samples=[7, 2, 9, 2])) == [(0, docs[2]), (1, docs[7]), (2, docs[9])]
        read: list[int] = []

        class Counted(list):  # type: ignore[type-arg]
            def __getitem__(self, place: int) -> object:
                read.append(place)
                return super().__getitem__(place)

        monkeypatch.setattr(type(task), "eval_docs", property(lambda _: Counted(docs)))
        assert len(list(task.doc_iterator(samples=[5]))) == 1
        assert read == [5]
