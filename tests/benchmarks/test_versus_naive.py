"""The naive procedure must be what it is said to be: averages against the policy's bounds, never unsure."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from benchmarks.versus_naive import PARTS
from benchmarks.versus_naive_parts import procedure
from benchmarks.versus_naive_parts.procedure import Measured, bench_arguments, verdict
from benchmarks.versus_naive_parts.report import Judged, Time, generated, summary, wrong
from benchmarks.versus_naive_parts.suites import arguments, read, requesting_s
from steelyard.engines.base import Deployment, Engine
from steelyard.errors import InfrastructureError
from steelyard.study import Slo
from steelyard.study_file import load_study

LOADED = load_study(PARTS)
CATEGORIES = {suite.name: suite.category for suite in LOADED.study.suites}
POINTS = [point.name for point in LOADED.study.load_points]


def measured(gain: float = 1.0, score: float = 0.9, ttft: float = 0.1) -> Measured:
    speeds = {
        point: {
            "output_tokens_per_s": [90 * gain, 110 * gain],
            "goodput_per_s": [5 * gain] * 2,
            "ttft_p50_s": [ttft] * 2,
        }
        for point in POINTS
    }
    return Measured("arm", speeds, dict.fromkeys(CATEGORIES, score))


def judged(arm: Measured, claim: str = POINTS[0]) -> tuple[str, str]:
    return verdict(LOADED.policy, arm, measured(), claim=claim, categories=CATEGORIES)


def test_averages_within_every_bound_are_promoted() -> None:
    assert judged(measured(gain=1.11))[0] == "promote"


@pytest.mark.parametrize(
    ("arm", "why"),
    [
        (measured(gain=1.09), "output_tokens_per_s at chat@c8 is 1.090"),
        (measured(gain=1.5, score=0.87), "score at facts is -0.030"),
        (measured(gain=1.5, ttft=0.126), "ttft_p50_s at chat@c8 is 1.260"),
    ],
)
def test_one_average_beyond_its_bound_rejects(arm: Measured, why: str) -> None:
    assert judged(arm) == ("reject", why)


def test_a_guard_holds_at_every_load_point() -> None:
    arm = measured(gain=1.5)
    arm.speeds[POINTS[-1]]["goodput_per_s"] = [1.0]
    assert judged(arm)[0] == "reject"


def test_every_arm_has_a_truth_and_nobody_else() -> None:
    truth = yaml.safe_load((PARTS / "truth.yaml").read_text())
    assert list(truth) == [arm.name for arm in LOADED.study.arms if arm.role == "candidate"]
    assert all(isinstance(each["deserves"], bool) and each["why"] for each in truth.values())
    assert {each["deserves"] for each in truth.values()} == {True, False}


def engine() -> Engine:
    deployment = Deployment(
        arm="baseline", engine="fake", model_name="m", weights="w", tokenizer="tok", chat_template=None, args={},
        env={}, url=None, device="cpu", weights_digest=None, tokenizer_digest=None, template_digest=None,
    )  # fmt: skip
    return Engine(
        deployment=deployment, base_url="http://127.0.0.1:1", version="1", resolved={}, digest="d",
        started_at=datetime.now(UTC), start_s=1.0,
    )  # fmt: skip


def test_suites_in_the_words_of_lm_eval(tmp_path: Path) -> None:
    suites = LOADED.study.suites
    words = arguments(engine(), suites, tmp_path, tmp_path)
    assert words[words.index("--tasks") + 1] == ",".join(suite.task for suite in suites)
    assert "base_url=http://127.0.0.1:1/v1/chat/completions" in words[words.index("--model_args") + 1].split(",")
    counts = {suite.task: {"original": 10, "effective": 10} for suite in suites}
    found = {"n-samples": counts, "results": {suite.task: {"alias": "x", "score,none": 0.75} for suite in suites}}
    asked = read(found, suites, 3.0)
    assert (asked.documents, set(asked.scores.values()), asked.requests_s) == (10 * len(suites), {0.75}, 3.0)
    counts[suites[0].task]["effective"] = 9
    with pytest.raises(InfrastructureError, match="asked 9 of 10 documents"):
        read(found, suites, 3.0)


def test_time_of_requests_is_that_of_the_bars() -> None:
    bar = "Requesting API: {0}%|###   | {0}/100 [{1}<00:10, 12.1it/s]"
    log = "\r".join(bar.format(*each) for each in ((0, "00:00"), (50, "00:30"), (100, "01:02"), (100, "01:02")))
    assert requesting_s(f"INFO lm_eval\n{log}\nmore\n{bar.format(0, '00:00')}\r{bar.format(100, '1:00:05')}") == 3667
    assert requesting_s("no bar") == 0


def test_load_points_in_the_words_of_vllm() -> None:
    chat, shared, _ = LOADED.study.load_points
    words = bench_arguments(engine(), shared, Slo(ttft_s=0.25))
    assert words[words.index("--prefix-repetition-suffix-len") + 1] == "64"
    assert words[words.index("--goodput") + 1 :] == ["ttft:250"]
    words = bench_arguments(engine(), chat, Slo(ttft_s=0.25, itl_s=0.02))
    assert words[words.index("--max-concurrency") + 1] == "8"
    assert words[words.index("--num-prompts") + 1] == str(8 * procedure.PROMPTS_PER_STREAM)
    assert words[words.index("--goodput") + 1 :] == ["ttft:250", "tpot:20"]


@pytest.mark.parametrize(
    ("said", "deserves", "is_wrong"),
    [("promote", True, False), ("promote", False, True), ("reject", True, True), ("reject", False, False),
     ("inconclusive", True, False), ("inconclusive", False, False)],
)  # fmt: skip
def test_undecided_is_not_wrong(said: str, deserves: bool, is_wrong: bool) -> None:
    assert wrong(said, deserves=deserves) is is_wrong


def test_the_last_line_and_the_page_say_the_same() -> None:
    rows = [
        Judged("good", True, "known", "inconclusive", "not sure", "promote", "all within"),
        Judged("placebo", False, "known", "reject", "refuted", "promote", "all within"),
    ]
    ours, naive = Time(100.0, 50.0, 1000, {"suites": 30.0}), Time(600.0, 200.0, 4000, {"suites": 90.0})
    said = summary(rows, ours, naive, wall_s=700.0)
    assert (said["engine_seconds_ratio"], said["ours_wrong"], said["naive_wrong"]) == (6.0, 0, 1)
    assert said["ours_undecided"] == ["good"]
    page = generated(rows, ours, naive, said, "here")
    assert (said["ours_right"], said["naive_right"]) == (1, 1)
    assert (
        "**6.0 times less engine time.** Of 2 arms Steelyard decided 1 rightly and 0 wrongly, and left undecided: good"
        in page
    )
    assert "decided 1 rightly and 1 wrongly." in page
    assert page.count("**promote, wrong**") == 1
