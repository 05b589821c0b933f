from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.engines.base import Deployment, Engine
from steelyard.engines.fake import serve_fake
from steelyard.engines.probe import check_alive
from steelyard.engines.residency import Residents
from steelyard.errors import CrashedWhileServing, EngineError, Hung
from steelyard.load.blocks import order_of, run_blocks
from steelyard.load.trial import Trial
from steelyard.study import Study

ARMS = ("baseline", "faster", "same")


@given(
    arms=st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=8, unique=True),
    seed=st.integers(0, 10**6),
    pairs=st.integers(1, 5),
    scope=st.sampled_from(["chat@c8", "long@r2"]),
)
def test_every_arm_has_the_same_mean_position_after_a_pair_of_blocks(arms, seed, pairs, scope):
    orders = [order_of(arms, seed=seed, block=block, scope=scope) for block in range(2 * pairs)]
    assert all(sorted(order) == sorted(arms) for order in orders)
    for arm in arms:
        assert sum(order.index(arm) for order in orders) == pairs * (len(arms) - 1)


def test_orders_are_random_between_pairs_and_points():
    arms = list("abcde")
    seen = {tuple(order_of(arms, seed=0, block=2 * block, scope=scope)) for block in range(20) for scope in "xy"}
    assert len(seen) > 25
    first = Counter(order_of(arms, seed=seed, block=0, scope="x")[0] for seed in range(500))
    assert min(first.values()) > 60
    assert order_of(arms, seed=4, block=1, scope="x") == order_of(arms, seed=4, block=1, scope="x")


def study(blocks: int = 2, loads: tuple[dict[str, Any], ...] = ({"concurrency": 4},), warmup: int = 1) -> Study:
    suite = {"task": "t", "name": "s1", "category": "accuracy"}
    return Study.model_validate(
        {
            "study": "demo", "description": "d", "blocks": blocks, "warmup_requests": warmup, "seed": 5,
            "model": {"name": "demo", "weights": "w"},
            "hardware": {"name": "h", "device": "cpu", "price": "p"},
            "slo": {"ttft_s": 1.0},
            "workloads": ({
                "name": "work", "kind": "chat", "requests": 6, "prompt_tokens": 24, "output_tokens": 4, "load": loads,
            },),
            "baseline": {"engine": "fake"},
            "candidates": ({
                "name": "faster", "lever": "cache", "args": {"itl_s": 0.0004},
                "claim": {"workload": "work", "load": "c4"},
            },),
            "controls": ({"name": "same", "kind": "identity"},),
            "suites": (suite, {**suite, "name": "s2", "category": "safety"}),
        }
    )  # fmt: skip


class Pool:
    """Engines of a study that stay up: what `residency` does to idle arms is the business of its own tests."""

    def __init__(self, deployments: dict[str, Deployment], folder: Path) -> None:
        self.deployments, self.folder = deployments, folder
        self.exclusive = False
        self.uses: list[str] = []
        self.stack = ExitStack()
        self._up: dict[str, Engine] = {}

    @contextmanager
    def use(self, arm: str) -> Iterator[Engine]:
        self.uses.append(arm)
        try:
            check_alive(self._up[arm], timeout_s=5)
        except (KeyError, CrashedWhileServing, Hung):
            served = serve_fake(self.deployments[arm], run_log_dir=self.folder, start_timeout_s=30)
            self._up[arm] = self.stack.enter_context(served)
        yield self._up[arm]


@pytest.fixture
def deployments(tmp_path, tokenizer_folders, deployment, monkeypatch):
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "home"))
    folder = str(tokenizer_folders["byte_level_bpe"])

    def make(**behaviour: dict[str, Any]) -> dict[str, Deployment]:
        common = {"ttft_s": 0.002, "itl_s": 0.0005}
        return {arm: deployment(arm, folder, 0.5, **{**common, **behaviour.get(arm, {})}) for arm in ARMS}

    return make


@pytest.fixture
def pool(tmp_path, deployments):
    with ExitStack() as pools:

        def make(**behaviour: dict[str, Any]) -> Pool:
            made = Pool(deployments(**behaviour), tmp_path / "logs")
            pools.enter_context(made.stack)
            return made

        yield make


@pytest.fixture
def run(tokenizers):
    def go(asked: Study, engines: Any, done: set[str] | None = None, **more: Any):
        trials: list[Trial] = []
        lost: list[tuple[str, EngineError]] = []
        live = run_blocks(
            asked, engines, tokenizers["byte_level_bpe"], run_id="r", done=done or set(), arms=ARMS,
            on_trial=more.get("on_trial", trials.append), on_failure=lambda *each: lost.append(each),
            wanted=more.get("wanted"),
        )  # fmt: skip
        return trials, lost, live

    return go


@pytest.mark.parametrize("exclusive", [False, True])
def test_what_is_not_wanted_is_left_out_and_the_others_keep_their_order(run, pool, exclusive: bool):
    out = ARMS[1]
    engines = pool()
    engines.exclusive = exclusive
    trials, _, live = run(study(), engines, wanted=lambda arm, point, block: (arm, block) != (out, 1))
    assert live == list(ARMS)
    scope = "*" if exclusive else "work@c4"
    for block in range(2):
        expected = [arm for arm in order_of(ARMS, seed=5, block=block, scope=scope) if (arm, block) != (out, 1)]
        of_block = [each.row for each in trials if each.row.block == block]
        assert [(row.arm, row.position) for row in of_block] == [(arm, n) for n, arm in enumerate(expected)]


def test_every_arm_once_a_block_with_the_same_prompts(run, pool):
    trials, lost, live = run(study(), pool())
    assert (lost, live) == ([], list(ARMS))
    assert Counter((each.row.block, each.row.arm) for each in trials) == Counter(
        {(block, arm): 1 for block in range(2) for arm in ARMS}
    )
    assert [each.row.invalid_reasons for each in trials if each.row.failed or each.row.cached_tokens] == []
    for block in range(2):
        of_block = [each for each in trials if each.row.block == block]
        assert [each.row.arm for each in of_block] == order_of(ARMS, seed=5, block=block, scope="work@c4")
        assert [each.row.position for each in of_block] == [0, 1, 2]
        assert len({tuple(each.prompt_hash for each in trial.requests) for trial in of_block}) == 1
    hashes = [{r.prompt_hash for each in trials if each.row.block == block for r in each.requests} for block in (0, 1)]
    assert not hashes[0] & hashes[1]


def test_exclusive_engines_are_used_once_an_arm_and_block(run, pool):
    engines = pool()
    engines.exclusive = True
    trials, _, _ = run(study(loads=({"concurrency": 4}, {"concurrency": 2})), engines)
    assert len(trials) == 2 * 2 * 3
    assert Counter(engines.uses) == dict.fromkeys(ARMS, 2)
    assert engines.uses[:3] == engines.uses[3:][::-1]


def test_with_the_residency_that_freezes(run, deployments, tmp_path):
    with Residents(list(deployments().values()), mode="resident", run_log_dir=tmp_path) as engines:
        assert engines.start_all() == {}
        trials, lost, _ = run(study(), engines)
    assert (len(trials), lost) == (6, [])
    assert {each.row.completed for each in trials} == {6}


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_killed_run_resumes_where_it_was(run, pool, exclusive):
    class Killed(Exception):
        pass

    engines = pool()
    engines.exclusive = exclusive
    asked, kept = study(loads=({"concurrency": 4}, {"rate": 50.0})), []

    def on_trial(trial: Trial) -> None:
        if len(kept) == 5:
            raise Killed
        kept.append(trial)

    with pytest.raises(Killed):
        run(asked, engines, on_trial=on_trial)
    rest, _, _ = run(asked, engines, done={each.row.trial_id for each in kept})
    everything = [each.row.trial_id for each in (*kept, *rest)]
    assert len(everything) == len(set(everything)) == 12
    # The very trials an unbroken run makes, each in the place its block gives it.
    for trial in (*kept, *rest):
        scope = "*" if exclusive else trial.row.load_point
        order = order_of(ARMS, seed=5, block=trial.row.block, scope=scope)
        assert order[trial.row.position] == trial.row.arm
    again, _, _ = run(asked, engines, done=set(everything))
    assert again == []


def test_an_arm_that_crashes_twice_is_dropped_and_the_others_go_on(run, pool):
    engines = pool(faster={"crash_after": 2})
    trials, lost, live = run(study(), engines)
    assert live == ["baseline", "same"]
    assert [(arm, type(error)) for arm, error in lost] == [("faster", CrashedWhileServing)]
    assert "crash_after reached" in str(lost[0][1])
    assert engines.uses.count("faster") == 2
    assert Counter(each.row.arm for each in trials if not each.row.failed) == {"baseline": 2, "same": 2}
    (evidence,) = [each for each in trials if each.row.arm == "faster"]
    assert not evidence.row.valid


def test_an_arm_that_cannot_start_is_dropped(run, pool):
    trials, lost, live = run(study(), pool(faster={"refuse_start": True}))
    assert live == ["baseline", "same"]
    assert [arm for arm, _ in lost] == ["faster"]
    assert len(trials) == 4


def test_an_engine_that_answers_but_fails_requests_is_dropped_too(run, pool):
    trials, lost, live = run(study(), pool(same={"fail_every": 2}))
    assert live == ["baseline", "faster"]
    assert "requests failed (http_error)" in str(lost[0][1])
    assert len([each for each in trials if not each.row.failed]) == 4


def test_one_crash_is_forgiven(run, pool):
    engines = pool()
    good = engines.deployments["faster"]
    engines.deployments["faster"] = dataclasses.replace(good, args={**good.args, "crash_after": 2})
    with engines.use("faster"):
        engines.deployments["faster"] = good
    trials, lost, live = run(study(), engines)
    assert (lost, live) == ([], list(ARMS))
    assert len(trials) == 6
    assert {each.row.completed for each in trials} == {6}


def test_what_on_failure_raises_ends_the_run(pool, tokenizers):
    """A baseline that is gone must be told as that, whether its process died or its answers failed."""
    for fault in ({"crash_after": 2}, {"fail_every": 2}):
        engines = pool(baseline=fault)

        def gone(arm: str, error: EngineError) -> None:
            raise error

        with pytest.raises(CrashedWhileServing) as caught:
            run_blocks(
                study(), engines, tokenizers["byte_level_bpe"], run_id="run", done=set(), arms=["baseline"],
                on_trial=lambda _: None, on_failure=gone,
            )  # fmt: skip
        assert caught.value.arm == "baseline"
