"""Files as such: known by content, packed, broken in every way, and never imported with less than they hold."""

from __future__ import annotations

import copy
import gzip
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steelyard.errors import InputError
from steelyard.importers import Asked, Imported, detect, read_foreign
from warehouse.rows import arrow_table

FIXTURES = Path(__file__).parent / "fixtures"
FILES = {
    "vllm-bench": FIXTURES / "vllm_appended.json",
    "guidellm": FIXTURES / "guidellm_v2.json",
    "aiperf": FIXTURES / "aiperf" / "profile_export.jsonl",
    "aiperf-summary": FIXTURES / "aiperf" / "profile_export_aiperf.json",
    "lm-eval": next((FIXTURES / "lm_eval").glob("results_*")),
    "lm-eval-samples": next((FIXTURES / "lm_eval").glob("samples_steelyard_refusal*")),
}


@pytest.mark.parametrize(("name", "path"), FILES.items(), ids=FILES)
def test_content_tells_the_format_whatever_the_name(tmp_path: Path, name: str, path: Path) -> None:
    assert detect(Path(shutil.copy(path, tmp_path / "benchmarks.dat"))) == name
    packed = tmp_path / "profile_export.jsonl"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert detect(packed) == name


def test_packed_is_the_same_run(tmp_path: Path) -> None:
    packed = tmp_path / "run.json.gz"
    packed.write_bytes(gzip.compress(FILES["vllm-bench"].read_bytes()))
    plain, unpacked = read_foreign(FILES["vllm-bench"]), read_foreign(packed)
    assert plain.study.run_id == unpacked.study.run_id
    assert plain.requests == unpacked.requests


def test_a_folder_with_one_run_is_that_run(tmp_path: Path) -> None:
    shutil.copy(FILES["vllm-bench"], tmp_path / "a.json")
    (tmp_path / "notes.json").write_text('{"by": "me"}')
    assert len(read_foreign(tmp_path).trials) == 2
    shutil.copy(FILES["guidellm"], tmp_path / "b.json")
    with pytest.raises(InputError, match=r"2 runs: a\.json, b\.json"):
        read_foreign(tmp_path)


def test_names_may_be_chosen() -> None:
    imported = read_foreign(FILES["vllm-bench"], Asked(name="weekly", arm="ours"))
    assert imported.study.study == "weekly"
    assert {row.arm for row in imported.requests} == {"ours"}
    for asked in ({"name": "Weekly Run"}, {"arm": "a/b"}, {"arm": ""}):
        with pytest.raises(InputError, match="is no name"):
            Asked(**asked)


BROKEN: list[tuple[str, bytes, str, int | None]] = [
    ("empty", b"", "is empty", 1),
    ("blank", b" \n\n", "is empty", 1),
    ("binary", b"\x7fELF\x02\x01\xff\xfe", "not UTF-8", 1),
    ("nul", b'{"a": 1}\n\0\0\0', "NUL", 2),
    ("cut gzip", gzip.compress(b'{"a": 1}' * 99)[:-12], "gzip", None),
    ("text", b"TTFT: 12 ms\n", "no JSON", 1),
    ("list", b"[1, 2]", "of no tool", 1),
    ("other JSON", b'{"a": 1}', "of no tool", 1),
    ("cut", b'{\n"duration": 1,\n"ttfts": [1, 2', "ends in the middle", 3),
    ("cut in a text", b'{\n"label": "de', "ends in the middle", 2),
    ("comma", b'{\n"a": 1,\n}', "no JSON", 3),
    ("key twice", b'{"ttfts": [],\n"duration": 1,\n"ttfts": []}', "stands twice", 3),
    ("deep", b'{"a":' + b"[" * 200_000, "nested too deeply", 1),
    ("digits", b'{"a":\n' + b"1" * 5000 + b"}", "number cannot be read", 1),
]


@pytest.mark.parametrize(("content", "says", "line"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN])
def test_a_broken_file_is_refused_with_its_line(tmp_path: Path, content: bytes, says: str, line: int | None) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        read_foreign(path)
    assert error.value.line == line
    assert error.value.remedy
    assert str(path.name) in str(error.value)


def test_half_a_character_is_stored_as_a_question_mark(tmp_path: Path) -> None:
    """Answers cut by tokens end in half a character, which JSON can say and no database can hold."""
    text = FILES["lm-eval-samples"].read_text().replace('[["lol"]]', '[["lol \\ud83d"]]')
    path = tmp_path / FILES["lm-eval-samples"].name
    path.write_text(text)
    assert {row.answer for row in storable(read_foreign(path)).samples} == {"lol ?"}


def test_missing_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_foreign(tmp_path / "none.json")
    with pytest.raises(InputError, match="no file of a tool"):
        read_foreign(tmp_path)


def places(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value below the root."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield (*way, key)
        yield from places(item, (*way, key))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.just([None]), st.just({"value": None}), st.just(10**30), st.just("\ud800"), st.just(-1), st.just(1e300),
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, documents: list[Any], *, by_line: bool) -> str:
    """A file with one to three values deleted or replaced, and perhaps cut."""
    changed = copy.deepcopy(documents)
    for _ in range(draw(st.integers(1, 3))):
        number = draw(st.integers(0, len(changed) - 1))
        found = list(places(changed[number]))
        if not found:
            continue
        *way, last = draw(st.sampled_from(found))
        here = changed[number]
        for key in way:
            here = here[key]
        if draw(st.booleans()):
            del here[last]
        else:
            here[last] = draw(VALUES)
    text = "".join(json.dumps(each) + "\n" for each in changed) if by_line else json.dumps(changed[0], indent=1)
    # A file of lines cut just behind one is whole again: nothing in it tells.
    cut = draw(st.one_of(st.none(), st.integers(0, len(text) - 2)))
    return text if cut is None or text[: cut + 1].endswith("\n") else text[: cut + 1]


def read_text(text: str, name: str, beside: Path | None = None) -> Imported | None:
    """What becomes of a file with this text: rows, or None for an InputError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(text)
        if beside is not None:
            shutil.copy(beside, folder)
        try:
            return storable(read_foreign(path))
        except InputError:
            return None


def storable(imported: Imported) -> Imported:
    """The rows, which every column must take."""
    for rows in (
        [imported.study], imported.arms, imported.trials, imported.requests, imported.suites, imported.samples,
    ):  # fmt: skip
        if rows:
            arrow_table(type(rows[0]), rows)
    return imported


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


PROPERTY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(damaged(lines_of(FILES["vllm-bench"]), by_line=True))
@PROPERTY
def test_vllm_damaged_is_refused_or_whole(text: str) -> None:
    imported = read_text(text, "run.json")
    if imported is not None:
        assert sum(trial.requests for trial in imported.trials) == 6 * len(text.splitlines())


@given(damaged([json.loads(FILES["guidellm"].read_text())], by_line=False))
@PROPERTY
def test_guidellm_damaged_is_refused_or_whole(text: str) -> None:
    imported = read_text(text, "run.json")
    if imported is not None:
        # The counts of the report are what tells; a damage that takes the counts and a request is beyond knowing.
        report = json.loads(text)
        listed = sum(
            len(found) for each in report["benchmarks"] for name, found in (each["requests"] or {}).items() if found
        )
        reasons = [reason for trial in imported.trials for reason in trial.invalid_reasons]
        stored = sum(trial.requests for trial in imported.trials)
        assert stored == listed or any("left out" in reason for reason in reasons)


@given(damaged(lines_of(FILES["aiperf"]), by_line=True))
@PROPERTY
def test_aiperf_damaged_is_refused_or_whole(text: str) -> None:
    imported = read_text(text, "profile_export.jsonl")
    if imported is not None:
        stored = sum(trial.requests for trial in imported.trials)
        left_out = [note for note in imported.notes if "left out" in note]
        assert stored + sum(int(note.split()[0]) for note in left_out) == len(text.splitlines())


@given(damaged(lines_of(FILES["lm-eval-samples"]), by_line=True))
@PROPERTY
def test_samples_damaged_are_refused_or_whole(text: str) -> None:
    imported = read_text(text, FILES["lm-eval-samples"].name)
    if imported is not None:
        counted = {row.documents + (row.duplicates or 0) for row in imported.suites}
        assert counted == {len(text.splitlines())}


@given(damaged([json.loads(FILES["lm-eval"].read_text())], by_line=False))
@PROPERTY
def test_results_damaged_are_refused_or_whole(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(shutil.copytree(FIXTURES / "lm_eval", Path(folder) / "run"))
        next(copied.glob("results_*")).write_text(text)
        try:
            imported = storable(read_foreign(next(copied.glob("results_*"))))
        except InputError:
            return
        assert [row.documents for row in imported.suites] == [6, 6]


def test_a_broken_file_beside_a_run_is_told(tmp_path: Path, fixtures: Path) -> None:
    (tmp_path / "good.json").write_bytes((fixtures / "vllm_rate.json").read_bytes())
    (tmp_path / "half.json").write_bytes((fixtures / "vllm_rate.json").read_bytes()[:400])
    with pytest.raises(InputError) as caught:
        read_foreign(tmp_path)
    assert str(caught.value.file).endswith("half.json")
