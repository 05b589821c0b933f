"""Every way a study can be wrong is told with its file, line, field and remedy, all at once."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.errors import InputError
from steelyard.study_file import load_study

STUDY = """\
study: small
description: A study to break.
blocks: 3
model:
  name: m
  weights: weights
hardware: {name: box, device: cpu, price: box-price}
slo:
  ttft_s: 1.0
workloads:
  - name: chat
    kind: chat
    requests: 4
    prompt_tokens: 16
    output_tokens: 4
    load:
      - concurrency: 2
      - rate: 4
  - name: shared
    kind: shared_prefix
    requests: 4
    prompt_tokens: 64
    shared_tokens: 32
    output_tokens: 4
    load:
      - concurrency: 2
baseline:
  engine: fake
  args:
    max_num_seqs: 2
    max_model_len: 128
candidates:
  - name: wide
    lever: batching
    args:
      max_num_seqs: 8
    claim: {workload: chat, load: c2}
  - name: narrow
    lever: batching
    args:
      max_num_seqs: 4
    claim:
      workload: shared
      load: c2
controls:
  - name: identity
    kind: identity
  - name: broken
    kind: known_bad
    chat_template: wrong.jinja
suites:
  - {name: facts, task: facts_task, category: accuracy, path: tasks}
  - {name: safe, task: safe_task, category: safety, path: tasks}
"""
POLICY = """\
policy: p
gates:
  - {name: gain, category: speed, metric: output_tokens_per_s, on: claimed, at_least: 1.1}
  - {name: accuracy, category: accuracy, metric: score, margin: 0.02}
  - {name: safety, category: safety, metric: score, margin: 0.02}
"""
PRICES = """\
prices:
  - name: box-price
    usd_per_hour: 1
    source: an invoice
    dated: 2026-05-31
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path)


def make(root: Path, study: str = STUDY, policy: str = POLICY, prices: str = PRICES) -> Path:
    (root / "weights").mkdir(parents=True, exist_ok=True)
    (root / "weights" / "tokenizer.json").write_text("{}")
    (root / "weights" / "config.json").write_text("{}")
    (root / "tasks").mkdir(exist_ok=True)
    (root / "tasks" / "facts.yaml").write_text("task: facts_task\nfilter: !function f.g\n")
    (root / "tasks" / "safe.yaml").write_text("task: safe_task\n")
    (root / "wrong.jinja").write_text("{{ messages }}")
    (root / "study.yaml").write_text(study)
    (root / "policy.yaml").write_text(policy)
    (root / "prices.yaml").write_text(prices)
    return root


def problems(folder: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_study(folder)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def line_of(text: str, part: str, nth: int = 1) -> int:
    found = [number for number, line in enumerate(text.splitlines(), 1) if part in line]
    return found[nth - 1]


def test_a_valid_study_loads_from_folder_and_file(folder: Path) -> None:
    loaded = load_study(folder)
    assert loaded.study_digest == load_study(folder / "study.yaml").study_digest
    assert loaded.root == folder.resolve()
    assert [arm.name for arm in loaded.study.arms] == ["baseline", "wide", "narrow", "identity", "broken"]
    assert loaded.prices.price("box-price").dated.isoformat() == "2026-05-31"
    assert len({loaded.study_digest, loaded.policy_digest}) == 2


# (text in the study, its replacement, part of the line reported, expected text after "study.yaml:LINE: ")
EDITS: list[tuple[str, str, str, str]] = [
    ("blocks: 3", "blokcs: 3", "blokcs", "blokcs: there is no such key. Did you mean blocks?"),
    ("blocks: 3", "blocks: 1", "blocks: 1", "blocks: is `1`. Write at least 2."),
    (
        "blocks: 3",
        'blocks: "3"',
        "blocks",
        'blocks: must be a whole number, and is the text "3". Remove the quotes: 3.',
    ),
    ("blocks: 3", "blocks: 3.0", "blocks", "blocks: must be a whole number, and is the number 3. Write 3."),
    ("blocks: 3", "blocks: true", "blocks", "blocks: must be a whole number, and is `true`. Write it in that form."),
    (
        "blocks: 3",
        "blocks:",
        "blocks",
        "blocks: must be a whole number, and is empty (null). Give a value, or remove the key.",
    ),
    ("blocks: 3", "blocks: 2", "blocks", "blocks: the policy policy.yaml wants 3 blocks, the study runs 2. Write at"),
    ("blocks: 3", "blocks: 3\nseed: 1\nseed: 2", "seed: 2", "seed: the key stands twice, first in line 4. Remove one."),
    (
        "blocks: 3",
        "blocks: 0o3\nseed: 017",
        "seed",
        "seed: `017` is read differently by different programs. Write a plain",
    ),
    ("blocks: 3", "blocks: 3\nseed: 1_000", "seed", "seed: `1_000` is read differently"),
    (
        "blocks: 3",
        "blocks: 3\nresidency: exclusiv",
        "residency",
        "residency: `exclusiv` is not one of auto, resident, exclusive. Did you mean exclusive?",
    ),
    ("study: small", "study: Small One", "study:", "study: `Small One` is no name. Use lower-case"),
    ("study: small", "study: 7", "study:", 'study: must be a text, and is the number 7. Put it in quotes: "7".'),
    ("  name: m\n", "", "model:", "model.name: is required but missing. Add it: Name under which"),
    ("  ttft_s: 1.0", "  {}", "slo:", "slo: an SLO needs at least one limit. Give one of"),
    ("  ttft_s: 1.0", "  ttft_s: .inf", "ttft_s", "slo.ttft_s: `.inf` is no number that can be compared."),
    ("  ttft_s: 1.0", "  ttft_s: 0", "ttft_s", "slo.ttft_s: is `0`. Write more than 0."),
    (
        "    requests: 4\n    prompt_tokens: 16",
        "    requests: on\n    prompt_tokens: 16",
        "requests: on",
        'workloads[chat].requests: `on` is a boolean to some programs and a text to others. Write true, or "on" for',
    ),
    (
        "      - rate: 4",
        "      - rate: 4\n        concurrency: 2",
        "rate: 4",
        "workloads[chat].load[1]: a load point is either closed or open loop. Give exactly one",
    ),
    (
        "      - rate: 4",
        "      - concurrency: 2",
        "#2 concurrency: 2",
        "workloads[chat].load[1]: load point c2 stands twice. Remove one.",
    ),
    (
        "    shared_tokens: 32",
        "    shared_tokens: 63",
        "shared_tokens",
        "workloads[shared].shared_tokens: the shared tokens must leave at least 4 of prompt_tokens for the part that "
        "is not shared. Write at most 60.",
    ),
    ("    shared_tokens: 32\n", "", "kind: shared_prefix", "workloads[shared].kind: shared_tokens belongs to kind"),
    ("{name: safe", "{name: facts", "safe_task", "suites[facts].name: suite facts stands twice. Every suite needs"),
    (
        "workloads:",
        "workloads:\n  - {name: chat, kind: chat, requests: 2, prompt_tokens: 8, output_tokens: 2, load: "
        "[{concurrency: 2}]}",
        "#2 name: chat",
        "workloads[chat].name: workload chat stands twice.",
    ),
    (
        "    max_model_len: 128",
        "    max_model_len: 32",
        "max_model_len",
        "baseline.args.max_model_len: 32 is too short for workload shared, which needs 68 tokens. Write at least 68.",
    ),
    (
        "    max_model_len: 128",
        "    max_model_len: [1, 2]",
        "max_model_len",
        "baseline.args.max_model_len: is a list, and engines take no such value. Write a text,",
    ),
    ("    max_model_len: 128", "    flag: yes", "flag", "baseline.args.flag: `yes` is a boolean to some programs"),
    ("    max_model_len: 128", "    when: 12:30", "when", "baseline.args.when: `12:30` is read differently"),
    (
        "    max_model_len: 128",
        "    what: !!python/object:os.system x",
        "what",
        "baseline.args.what: the tag tag:yaml.org,2002:python/object:os.system means nothing here. Remove it.",
    ),
    (
        "  engine: fake",
        "  engine: fake\n  env: {OMP_NUM_THREADS: 1}",
        "env",
        'baseline.env.OMP_NUM_THREADS: must be a text, and is the number 1. Put it in quotes: "1".',
    ),
    (
        "  engine: fake",
        "  engine: attach",
        "engine: attach",
        "baseline.engine: engine attach needs the url of the engine.",
    ),
    ("  engine: fake", "  engine: fake\n  url: http://x", "url", "baseline.url: url means nothing for engine fake."),
    (
        "  engine: fake",
        "  engine: vlm",
        "engine: vlm",
        "baseline.engine: `vlm` is not one of vllm, transformers, attach",
    ),
    ("  engine: fake", "  engine: vllm", "weights: weights", "model.weights: weights holds no *.safetensors."),
    (
        "      max_num_seqs: 8",
        "      max_num_seqs: 2",
        "name: wide",
        "candidates[wide]: it is served exactly as the base",
    ),
    (
        "      max_num_seqs: 8",
        "      max_nun_seqs: null",
        "max_nun_seqs",
        "candidates[wide].args.max_nun_seqs: null removes"
        " an argument, and the baseline has none of that name. Did you mean max_num_seqs?",
    ),
    (
        "load: c2}",
        "load: c3}",
        "claim: {",
        "candidates[wide].claim.load: chat@c3 is no load point of the study. Did you",
    ),
    (
        "      workload: shared",
        "      workload: sahred",
        "sahred",
        "candidates[narrow].claim.workload: sahred@c2 is no load",
    ),
    (
        "  - name: narrow",
        "  - name: baseline",
        "name: baseline",
        "candidates[baseline].name: arm baseline stands twice.",
    ),
    (
        "  - name: wide\n    lever: batching\n    args:\n      max_num_seqs: 8\n    claim: {workload: chat, load: c2}\n"
        "  - name: narrow",
        "  - name: two-wide\n    lever: batching\n    args:\n      max_num_seqs: 8\n"
        "    claim: {workload: chat, load: c2}\n  - name: two_wide",
        "name: two_wide",
        "candidates[two_wide].name: arm two_wide differs from arm two-wide only by - and _. Both would be one asset in",
    ),
    (
        "  - name: identity\n    kind: identity\n  - name: broken",
        "  - name: iden-tity\n    kind: identity\n  - name: iden_tity",
        "name: iden_tity",
        "controls[iden_tity].name: arm iden_tity differs from arm iden-tity only by - and _.",
    ),
    (
        "    kind: identity",
        "    kind: identity\n    args: {a: 1}",
        "name: identity",
        "controls[identity]: the identity control is the baseline again: it may change nothing.",
    ),
    (
        "    kind: identity",
        "    kind: known_bad\n    env: {A: b}",
        "controls:",
        "controls: an identity control is required: it measures the noise.",
    ),
    (
        "    chat_template: wrong.jinja\n",
        "",
        "name: broken",
        "controls[broken]: a known-bad control must change something.",
    ),
    ("wrong.jinja", "worng.jinja", "worng", "controls[broken].chat_template: there is no file worng.jinja."),
    (
        "    chat_template: wrong.jinja",
        "    weights: {method: round, bits: 2}",
        "method: round",
        "controls[broken].weights.method: method round takes bits and group. Give exactly these.",
    ),
    ("weights: weights", "weights: wights", "wights", "model.weights: there is no folder wights. Give a folder"),
    ("weights: weights", "weights: tasks", "weights: tasks", "model.weights: tasks holds no tokenizer"),
    (
        "price: box-price",
        "price: box-prise",
        "box-prise",
        "hardware.price: the price book has no price box-prise. Did you mean box-price?",
    ),
    (
        "task: safe_task",
        "task: save_task",
        "save_task",
        "suites[safe].task: no YAML file in tasks defines the task save_task. Did you mean safe_task",
    ),
    (
        "category: safety, path: tasks",
        "category: safety, path: tusks",
        "tusks",
        "suites[safe].path: there is no folder",
    ),
    ("category: safety", "category: accuracy", "suites:", "suites: at least one safety suite is required."),
    (
        "safe_task, category: safety, path: tasks",
        "steelyard_facs, category: safety",
        "steelyard_facs",
        "suites[safe].task: Steelyard has no suite steelyard_facs. Did you mean steelyard_facts",
    ),
    ("study: small", "policy: nowhere.yaml\nstudy: small", "policy:", "policy: there is no file nowhere.yaml."),
]


@pytest.mark.parametrize(("old", "new", "where", "expected"), EDITS, ids=[f"{e[1][:30]!r}" for e in EDITS])
def test_one_mistake_is_one_problem_at_its_line(tmp_path: Path, old: str, new: str, where: str, expected: str) -> None:
    assert old in STUDY
    text = STUDY.replace(old, new, 1)
    nth = 1
    if where.startswith("#"):
        nth, where = int(where[1]), where[3:]
    found = problems(make(tmp_path, text))
    assert len(found) == 1, found
    start = f"study.yaml:{line_of(text, where, nth)}: "
    assert found[0].startswith(start + expected), found


def test_all_problems_of_all_files_at_once(tmp_path: Path) -> None:
    study = (
        STUDY.replace("blocks: 3", "blocks: 0")
        .replace("lever: batching", "lever: batch", 1)
        .replace("      load: c2", "      load: c9")
        .replace("weights: weights", "weights: gone")
        .replace("    kind: chat", "    knid: chat")
    )
    policy = POLICY.replace("margin: 0.02", "margin: 2", 1).replace("policy: p", "policy: p\nconfidence: 95")
    prices = PRICES.replace("2026-05-31", "31.5.2026").replace("usd_per_hour: 1", "usd_per_hour: -1")
    found = problems(make(tmp_path, study, policy, prices))
    heads = [line.split(": ")[0] + " " + line.split(": ")[1] for line in found]
    assert heads == [
        "study.yaml:3 blocks",
        "study.yaml:6 model.weights",
        "study.yaml:11 workloads[chat].kind",
        "study.yaml:12 workloads[chat].knid",
        "study.yaml:34 candidates[wide].lever",
        "policy.yaml:2 confidence",
        "policy.yaml:5 gates[accuracy].margin",
        "prices.yaml:3 prices[box-price].usd_per_hour",
        "prices.yaml:5 prices[box-price].dated",
    ]


def test_rules_between_valid_parts_are_told_beside_field_errors(tmp_path: Path) -> None:
    """Pydantic stops before the rules once a field is wrong; a user must not need a second round for them."""
    study = STUDY.replace("blocks: 3", "blocks: 0").replace("      load: c2", "      load: c9")
    found = problems(make(tmp_path, study))
    assert [line.split(": ")[1] for line in found] == ["blocks", "candidates[narrow].claim.load"]


@pytest.mark.parametrize(
    ("name", "old", "new", "where", "expected"),
    [
        (
            "policy",
            "margin: 0.02",
            "at_most: 0.02",
            "name: accuracy",
            "gates[accuracy].at_most: metric score is not bounded by at_most. Use margin.",
        ),
        (
            "policy",
            "margin: 0.02",
            "margin: 0.02, at_most: 1",
            "name: accuracy",
            "gates[accuracy].margin: a gate has exactly one bound.",
        ),
        (
            "policy",
            "name: gain, category: speed",
            "name: gain, category: safety",
            "name: gain",
            "gates[gain].category: metric output_tokens_per_s is no safety metric. Write speed.",
        ),
        (
            "policy",
            "metric: score",
            "metric: scores",
            "scores",
            "gates[accuracy].metric: `scores` is not one of output_to",
        ),
        (
            "policy",
            "metric: score,",
            "metric: score, on: claimed,",
            "name: accuracy",
            "gates[accuracy].on: `claimed` is",
        ),
        ("policy", "at_least: 1.1", "at_least: 0.9", "gates:", "gates: no required gate asks for a gain. Add one"),
        (
            "policy",
            "name: safety",
            "name: accuracy",
            "#2 name: accuracy",
            "gates[accuracy].name: gate accuracy stands twice",
        ),
        (
            "prices",
            "    source: an invoice\n",
            "",
            "name: box-price",
            "prices[box-price].source: is required but missing.",
        ),
        (
            "prices",
            "dated: 2026-05-31",
            "dated: 2026-02-31",
            "dated",
            "prices[box-price].dated: `2026-02-31` is no day.",
        ),
        (
            "prices",
            "an invoice",
            "x",
            "source",
            "prices[box-price].source: `x` is too short. Write at least 3 characters.",
        ),
    ],
)
def test_policy_and_prices(tmp_path: Path, name: str, old: str, new: str, where: str, expected: str) -> None:
    texts = {"policy": POLICY, "prices": PRICES}
    assert old in texts[name]
    texts[name] = texts[name].replace(old, new, 1)
    nth = 1
    if where.startswith("#"):
        nth, where = int(where[1]), where[3:]
    found = problems(make(tmp_path, **texts))
    assert len(found) == 1, found
    assert found[0].startswith(f"{name}.yaml:{line_of(texts[name], where, nth)}: {expected}"), found


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "study.yaml:1: the study is empty. Copy one"),
        (b"# only a comment\n", "study.yaml:1: the study is empty."),
        (b"- a\n- b\n", "study.yaml:1: the file is a list, not a mapping."),
        (b"text\n", "study.yaml:1: the file is a single value, not a mapping."),
        (
            b"study: a\nmodel:\n\tname: x\n",
            "study.yaml:3: YAML does not allow tabs as indentation. Indent with spaces.",
        ),
        (b"study: a\nb: c: d\n", "study.yaml:2: YAML syntax: a second `:` in one line."),
        (b"study: [a\nb: 1\n", "study.yaml:2: YAML syntax: "),
        (b"study: *nowhere\n", "study.yaml:1: YAML syntax: found undefined alias 'nowhere'."),
        (b"study: a\n---\nstudy: b\n", "study.yaml:2: the file holds more than one document."),
        (b"study: a\ndescription: caf\xe9\n", "study.yaml:2: the file is not UTF-8. Save it as UTF-8."),
        (b"study: a\ndescription: a\x07b\n", "study.yaml:2: the file holds a character YAML does not allow."),
        (b"a: " + b"[" * 1200, "study.yaml: the file is nested too deeply."),
        (b"#" * 1_000_001, "study.yaml: the study has 1000001 bytes."),
    ],
    ids=lambda value: value[:14] if isinstance(value, bytes) else "",
)
def test_what_is_no_yaml_is_one_error(folder: Path, content: bytes, expected: str) -> None:
    (folder / "study.yaml").write_bytes(content)
    found = problems(folder)
    assert len(found) == 1
    assert found[0].startswith(expected), found


def test_missing_files(tmp_path: Path, folder: Path) -> None:
    assert "there is no such study. Check the path" in problems(tmp_path / "nowhere")[0]
    (folder / "prices.yaml").unlink()
    assert problems(folder) == [
        "study.yaml:1: prices: there is no file prices.yaml (`prices:` is not given, so this is the default). "
        "The path is relative to the study file."
    ]


def test_an_alias_that_contains_itself_or_explodes_ends(tmp_path: Path) -> None:
    bomb = "\n".join([f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" if i else "x0: &x0 [1]" for i in range(9)])
    found = problems(make(tmp_path, STUDY + "loop: &loop [*loop]\n" + bomb + "\n"))
    assert sum("an alias contains itself or grows without end" in line for line in found) >= 2


def test_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    study = STUDY.replace("ttft_s: 1.0", "ttft_s: 5e-1").replace("blocks: 3", "blocks: 0x4\nseed: -0")
    loaded = load_study(make(tmp_path, study))
    assert (loaded.study.slo.ttft_s, loaded.study.blocks) == (0.5, 4)


def test_merge_keys_and_anchors(tmp_path: Path) -> None:
    study = STUDY.replace("    args:\n      max_num_seqs: 8", "    args: &wide\n      max_num_seqs: 8", 1)
    study = study.replace("    args:\n      max_num_seqs: 4", "    args:\n      <<: *wide\n      extra: 1", 1)
    assert load_study(make(tmp_path, study)).study.arm("narrow").args["max_num_seqs"] == 8


def test_the_policy_key_on_is_a_key_and_no_boolean(folder: Path) -> None:
    assert yaml.safe_load("on: 1") == {True: 1}
    assert load_study(folder).policy.gates[0].on == "claimed"


def shuffled(value: Any, draw: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        draw.shuffle(keys)
        return {key: shuffled(value[key], draw) for key in keys}
    return [shuffled(each, draw) for each in value] if isinstance(value, list) else value


def written(value: Any, draw: random.Random) -> str:
    """The same data in another order and dress: block, flow or JSON, with comments."""
    data = shuffled(value, draw)
    style = draw.choice(["block", "flow", "json"])
    if style == "json":
        return "# as JSON\n" + json.dumps(data)
    text = yaml.safe_dump(
        data, sort_keys=False, default_flow_style=style == "flow", indent=draw.choice([2, 4]), width=60
    )
    return "\n".join(["# a comment", *(line for line in text.splitlines()), "", "# the end"])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_order_comments_and_style_do_not_change_the_digest(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    draw = random.Random(seed)
    root = tmp_path_factory.mktemp("digest")
    before = load_study(make(root))
    # BaseLoader keeps dates as texts; the policy's `on` key must stay a text as well.
    policy = {"policy": "p", "gates": [dict(gate.model_dump(exclude_none=True)) for gate in before.policy.gates]}
    prices = {"prices": [{**yaml.safe_load(PRICES)["prices"][0], "dated": "2026-05-31"}]}
    make(root, written(yaml.safe_load(STUDY), draw), written(policy, draw).replace("'on'", "on"), written(prices, draw))
    after = load_study(root)
    assert (after.study_digest, after.policy_digest) == (before.study_digest, before.policy_digest)
    shutil.rmtree(root)


@pytest.mark.parametrize(
    ("study", "policy", "prices"),
    [
        (STUDY.replace("blocks: 3", "blocks: 4"), POLICY, PRICES),
        (STUDY.replace("max_num_seqs: 8", "max_num_seqs: 9"), POLICY, PRICES),
        (STUDY, POLICY.replace("1.1", "1.2"), PRICES),
        (STUDY, POLICY, PRICES.replace("usd_per_hour: 1", "usd_per_hour: 2")),
    ],
)
def test_what_matters_changes_the_digest(tmp_path: Path, study: str, policy: str, prices: str) -> None:
    before = load_study(make(tmp_path / "a"))
    after = load_study(make(tmp_path / "b", study, policy, prices))
    assert after.study_digest != before.study_digest
    assert (after.policy_digest != before.policy_digest) == (policy != POLICY)


def test_a_written_out_default_does_not_change_the_digest(tmp_path: Path) -> None:
    before = load_study(make(tmp_path / "a"))
    after = load_study(make(tmp_path / "b", STUDY + "policy: policy.yaml\nwarmup_requests: 2\n"))
    assert after.study_digest == before.study_digest
