"""The bench of the stack: its study, its ratios, its page."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparison_rows import speed_comparison

from benchmarks.stack import AGAINST, main, summary
from benchmarks.stack_parts.report import page
from benchmarks.stack_parts.study import DEFAULTS, LEGACY, STACK, write_stack
from steelyard.records import ArmRow
from steelyard.study_file import load_study

LAPTOP = Path(__file__).parents[2] / "studies" / "laptop"


def test_its_study_has_the_laptops_load_and_nothing_of_the_baseline_in_the_defaults(tmp_path: Path) -> None:
    laptop = load_study(LAPTOP).study
    loaded = load_study(write_stack(LAPTOP, tmp_path, arm="combined", blocks=3, seed=5))
    study = loaded.study
    assert study.load_points == laptop.load_points
    assert study.slo == laptop.slo
    assert [arm.name for arm in study.arms] == ["baseline", STACK, DEFAULTS, LEGACY, "identity"]
    assert study.arm(STACK).args == laptop.arm("combined").args
    assert study.arm(DEFAULTS).args == {"max_model_len": 2048, "enforce_eager": False}
    assert study.arm(DEFAULTS).env == {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    assert study.arm(LEGACY).args == {}
    assert not loaded.policy.stop_early


def test_the_summary_names_the_worst_point_against_the_defaults() -> None:
    found = {
        name: {
            "chat@c8": speed_comparison(STACK, "chat@c8", 4.0 * factor),
            "long@c4": speed_comparison(STACK, "long@c4", 1.0 * factor),
        }
        for name, factor in zip(AGAINST, (1.0, 0.5, 2.0), strict=True)
    }
    told = summary(found)
    assert told["tokens_per_s_ratio_vs_baseline"] == 2.0
    assert told["tokens_per_s_ratio_vs_vllm_defaults"] == 1.0
    assert told["tokens_per_s_ratio_vs_transformers"] == 4.0
    assert (told["smallest_vs_vllm_defaults"], told["smallest_at"]) == (0.5, "long@c4")
    assert (told["largest_vs_baseline"], told["largest_at"]) == (4.0, "chat@c8")
    assert summary({name: {} for name in AGAINST})["tokens_per_s_ratio_vs_baseline"] is None


def test_the_page_says_who_did_not_serve() -> None:
    failed = ArmRow(
        run_id="r", arm=DEFAULTS, role="candidate", lever="engine", claim=None, note=None, engine="vllm",
        engine_version=None, deployment_digest=None, weights_digest=None, tokenizer_digest=None, template_digest=None,
        args_json="{}", env_json="{}", resolved_json=None, start_s=None, status="failed", error="no compiler",
    )  # fmt: skip
    found = {name: {} for name in AGAINST}
    text = page(found, [], [failed], summary(found), where="here")
    assert "vllm-defaults did not serve: no compiler" in text


@pytest.mark.parametrize("wrong", [["--arm", "nobody"], ["--blocks", "2"]])
def test_bad_input_ends_before_anything_runs(wrong: list[str]) -> None:
    assert main(wrong) == 2
