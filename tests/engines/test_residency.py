"""Residents with fake engines: who is up, who is frozen, who is replaced, who is given up."""

import dataclasses
import os
import signal
from contextlib import contextmanager

import psutil
import pytest

from steelyard.engines import Deployment
from steelyard.engines import residency as module
from steelyard.engines.launcher import children, group_members, processes_of
from steelyard.engines.probe import one_token
from steelyard.engines.process import close_launchers
from steelyard.engines.residency import Residents
from steelyard.engines.serving import serve
from steelyard.errors import BadArgument, CrashedWhileServing, EngineError, InputError


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "home"))
    yield
    close_launchers(idle_only=False)


def deployments(*names, **args):
    return [
        Deployment(
            arm=name, engine="fake", model_name="demo", weights="", tokenizer="", chat_template=None,
            args=args.get(name, {}), env={}, url=None, device="cpu", weights_digest=None, tokenizer_digest=None,
            template_digest=None, max_answer_wait_s=5.0,
        )
        for name in names
    ]  # fmt: skip


def states(residents):
    """One letter an arm: R for anything that may run, T for frozen."""
    found = {}
    for arm, engine in residents.engines.items():
        letters = {fields[0] for fields in processes_of(engine.pgid).values()}
        found[arm] = "T" if letters == {"T"} else "R"
    return found


def test_all_resident_one_awake_and_nothing_left(tmp_path):
    told = []
    with Residents(deployments("baseline", "a", "b"), mode="auto", run_log_dir=tmp_path, on_event=told.append) as each:
        assert each.start_all() == {}
        groups = [engine.pgid for engine in each.engines.values()]
        assert states(each) == {"baseline": "T", "a": "T", "b": "T"}
        for arm in ("a", "baseline", "b", "a"):
            with each.use(arm) as engine:
                assert engine.arm == arm
                assert one_token(engine.base_url, "demo", timeout_s=5).ok
                assert states(each) == {other: "R" if other == arm else "T" for other in ("baseline", "a", "b")}
        assert [engine.pgid for engine in each.engines.values()] == groups, "nobody was restarted"
        assert each.resident
        assert not each.exclusive
        assert "All 3 engines are resident" in each.reason
        assert len({engine.digest for engine in each.engines.values()}) == 1
    assert [member for group in groups for member in group_members(group)] == []
    assert children(os.getpid()) == []
    assert any("first token" in line for line in told)


def test_exclusive_is_one_at_a_time(tmp_path):
    with Residents(deployments("baseline", "a"), mode="exclusive", run_log_dir=tmp_path) as each:
        assert each.start_all() == {}
        for arm in ("baseline", "a", "baseline"):
            with each.use(arm):
                assert list(each.engines) == [arm]
        assert not each.resident
        assert "as the study asks" in each.reason


GIB = 1 << 30


@pytest.fixture
def memory(monkeypatch):
    """Gives the machine and its engines memory: what is free beyond the reserve, and what each arm takes, in GiB."""

    def give(free, **takes):
        monkeypatch.setattr(
            module, "memory_bytes", lambda engine: None if engine.pgid is None else int(takes.get(engine.arm, 1) * GIB)
        )
        available = module.RESERVE_BYTES + int(free * module.GROWTH * GIB)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": available}))

    return give


def attached(engine, *names):
    """Arms served by an engine that runs already, and that is not theirs."""
    arms = deployments(*names)
    return [dataclasses.replace(each, engine="attach", url=engine.base_url) for each in arms]


@pytest.fixture
def foreign(tmp_path):
    with serve(deployments("foreign")[0], run_log_dir=tmp_path / "foreign", start_timeout_s=20) as engine:
        yield engine


def test_the_least_recently_used_makes_room_but_not_the_baseline(tmp_path, memory):
    memory(1.5)
    with Residents(deployments("baseline", "a", "b"), mode="auto", run_log_dir=tmp_path) as each:
        assert each.start_all() == {}
        assert "2 of 3 engines are resident at once" in each.reason
        assert set(each.engines) == {"baseline", "b"}
        assert each.resident
        assert each.exclusive, "blocks must go arm by arm, or engines start anew at every load point"
        assert set(each.seen) == {"baseline", "a", "b"}
        assert each.seen["a"].digest == each.engines["b"].digest
        assert each.seen["a"].start_s > 0
        with each.use("a"):
            assert set(each.engines) == {"baseline", "a"}
        with each.use("baseline"):
            pass
        with each.use("b"):
            assert set(each.engines) == {"baseline", "b"}


def test_too_little_memory_means_one_at_a_time(tmp_path, memory):
    memory(0)
    with Residents(deployments("baseline", "a"), mode="resident", run_log_dir=tmp_path) as each:
        assert each.start_all() == {}
        assert "although the study asks for resident" in each.reason
        assert len(each.engines) == 1
        assert each.exclusive


def test_attached_arms_take_no_room_and_the_first_launched_decides(tmp_path, memory, foreign):
    memory(0)
    arms = [*attached(foreign, "baseline", "control"), *deployments("a", "b")]
    with Residents(arms, mode="auto", run_log_dir=tmp_path) as each:
        assert each.start_all() == {}
        assert each.exclusive
        assert set(each.engines) == {"baseline", "control", "b"}
        with each.use("a"), each.use("baseline"):
            assert set(each.engines) == {"baseline", "control", "a"}
    assert group_members(foreign.pgid), "it is not ours to stop"


def test_one_launched_arm_among_attached_ones_stays_up(tmp_path, memory, foreign):
    memory(0)
    with Residents([*attached(foreign, "baseline"), *deployments("a")], mode="auto", run_log_dir=tmp_path) as each:
        assert each.start_all() == {}
        assert (each.exclusive, each.resident) == (False, True)
        assert set(each.engines) == {"baseline", "a"}


def test_only_attached_arms_are_resident(tmp_path, foreign):
    with Residents(attached(foreign, "baseline", "a"), mode="auto", run_log_dir=tmp_path) as each:
        assert each.start_all() == {}
        assert (each.exclusive, each.resident) == (False, True)
        assert "run by somebody else" in each.reason


def test_without_start_all_the_first_need_decides(tmp_path, memory):
    memory(0)
    with Residents(deployments("baseline", "a"), mode="auto", run_log_dir=tmp_path) as each:
        assert each.exclusive, "nobody knows yet, and starts are dear"
        for arm in ("a", "baseline", "a"):
            with each.use(arm):
                assert list(each.engines) == [arm]
    memory(5)
    with Residents(deployments("baseline", "a"), mode="auto", run_log_dir=tmp_path) as each:
        for arm in ("a", "baseline"):
            with each.use(arm):
                pass
        assert set(each.engines) == {"baseline", "a"}
        assert not each.exclusive


def test_an_engine_larger_than_the_first_changes_the_decision(tmp_path, memory):
    def on_event(text):
        if text.startswith("b gave its first token"):
            memory(-1, b=4)

    memory(3)
    arms = deployments("baseline", "a", "b", "c")
    with Residents(arms, mode="auto", run_log_dir=tmp_path, on_event=on_event) as each:
        assert each.start_all() == {}
        # Four of 1 GiB would have fitted, so they were all started.
        assert set(each.seen) == {"baseline", "a", "b", "c"}
        assert each.exclusive
        assert "the largest takes 4.0 GiB" in each.reason
        assert len(each.engines) < 4


def test_each_kind_of_engine_is_sized_by_its_own_first(tmp_path, memory, monkeypatch):
    memory(1, a=9, b=9)
    began = []
    real = module.serve

    @contextmanager
    def serve_as_fake(deployment, **more):
        # Two kinds that start quickly; which processes stand behind a kind does not matter here.
        began.append(deployment.arm)
        with real(dataclasses.replace(deployment, engine="fake"), **more) as engine:
            yield dataclasses.replace(engine, deployment=deployment)

    monkeypatch.setattr(module, "serve", serve_as_fake)
    baseline, *others = deployments("baseline", "a", "b")
    arms = [baseline, *(dataclasses.replace(each, engine="vllm") for each in others)]
    with Residents(arms, mode="auto", run_log_dir=tmp_path) as each:
        assert each.start_all() == {}
        assert began == ["baseline", "a", "b"]
        assert "the largest takes 9.0 GiB" in each.reason
        assert each.exclusive
        assert len(each.engines) == 1


@pytest.mark.parametrize(
    ("shares", "exclusive", "reason"),
    [
        ((0.2, 0.3, 0.25), False, "up to 30% of the accelerator"),
        ((0.2, 0.4, 0.2), True, "2 of 3 engines"),
        ((0.2, None, 0.2), True, "One engine at a time: each claims up to 90%"),
        ((0.2, "much", 0.2), True, "One engine at a time"),
    ],
)
def test_on_an_accelerator_the_greediest_share_decides(tmp_path, shares, exclusive, reason):
    arms = [
        dataclasses.replace(each, device="cuda", args={} if share is None else {"gpu_memory_utilization": share})
        for each, share in zip(deployments("baseline", "a", "b"), shares, strict=True)
    ]
    somewhere = dataclasses.replace(arms[0], arm="x", engine="attach", url="http://127.0.0.1:9", args={})
    with Residents([somewhere, *arms], mode="auto", run_log_dir=tmp_path) as each:
        assert each.exclusive is exclusive
        assert reason in each.reason


def test_a_candidate_that_fails_is_collected_and_the_rest_runs(tmp_path):
    arms = deployments("baseline", "bad", "crash", "good", bad={"no_such": 1}, crash={"refuse_start": True})
    with Residents(arms, mode="auto", run_log_dir=tmp_path) as each:
        failures = each.start_all()
        assert set(failures) == {"bad", "crash"}
        assert isinstance(failures["bad"], BadArgument)
        with each.use("good") as engine:
            assert engine.arm == "good"
        with pytest.raises(EngineError), each.use("crash"):
            pass


def test_a_baseline_that_fails_raises_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(EngineError),
        Residents(
            deployments("baseline", "a", baseline={"refuse_start": True}), mode="auto", run_log_dir=tmp_path
        ) as r,
    ):
        r.start_all()
    assert children(os.getpid()) == []


def test_a_crashed_engine_is_restarted_once(tmp_path):
    with Residents(deployments("baseline", "a"), mode="auto", run_log_dir=tmp_path) as each:
        each.start_all()
        with each.use("a") as engine:
            first = engine
        os.killpg(first.pgid, signal.SIGKILL)
        with each.use("a") as engine:
            assert engine.pgid != first.pgid
            assert engine.digest == first.digest
            second = engine
        os.killpg(second.pgid, signal.SIGKILL)
        with pytest.raises(CrashedWhileServing), each.use("a"):
            pass
        with pytest.raises(CrashedWhileServing), each.use("a"):
            pass
        with each.use("baseline"):
            pass


def measure_and_fail(residents):
    residents.start_all()
    with residents.use("a"):
        raise RuntimeError("boom")


def test_an_error_while_measuring_freezes_and_reaps(tmp_path):
    residents = Residents(deployments("baseline", "a"), mode="auto", run_log_dir=tmp_path)
    with pytest.raises(RuntimeError, match="boom"), residents:
        measure_and_fail(residents)
    assert children(os.getpid()) == []


def test_unknown_arms_and_empty_lists_are_refused(tmp_path):
    with pytest.raises(InputError):
        Residents([], mode="auto", run_log_dir=tmp_path)
    with (
        pytest.raises(InputError, match="no arm other"),
        Residents(deployments("baseline"), mode="auto", run_log_dir=tmp_path) as each,
        each.use("other"),
    ):
        pass


def test_renewed_engines_have_the_same_past_and_are_the_same_deployments(tmp_path):
    told = []
    with Residents(deployments("baseline", "a", "b"), mode="auto", run_log_dir=tmp_path, on_event=told.append) as each:
        each.start_all()
        before = {arm: (engine.pgid, engine.digest) for arm, engine in each.engines.items()}
        each.renew(["a", "baseline", "b"])
        assert {arm: engine.pgid for arm, engine in each.engines.items()} == {
            arm: pgid for arm, (pgid, _) in before.items()
        }, "nobody had answered anything"
        with each.use("baseline") as engine:
            assert one_token(engine.base_url, "demo", timeout_s=5).ok
        each.renew(["a", "baseline"])
        after = {arm: (engine.pgid, engine.digest) for arm, engine in each.engines.items()}
        assert set(after) == {"a", "baseline"}, "an arm that is not wanted any more is stopped"
        for arm, (pgid, digest) in after.items():
            assert pgid != before[arm][0]
            assert digest == before[arm][1]
        assert not any(group_members(pgid) for pgid, _ in before.values())
        assert states(each) == {"baseline": "T", "a": "T"}
        assert "started anew" in told[-1]
        told.clear()
        each.renew(["a", "baseline"])
        assert told == []


def test_engines_that_take_turns_are_stopped_and_start_with_their_turn(tmp_path):
    with Residents(deployments("baseline", "a"), mode="exclusive", run_log_dir=tmp_path) as each:
        each.start_all()
        with each.use("a") as engine:
            group = engine.pgid
        each.renew(["a", "baseline"])
        assert not each.engines, "whoever is timed first is started for it"
        assert not group_members(group)


def test_an_arm_that_cannot_start_again_is_told_when_it_is_used(tmp_path, monkeypatch):
    with Residents(deployments("baseline", "a"), mode="auto", run_log_dir=tmp_path) as each:
        each.start_all()
        with each.use("a"):
            pass
        broken = dataclasses.replace(each.deployments["a"], args={"refuse_start": True})
        monkeypatch.setitem(each.deployments, "a", broken)
        each.renew(["a", "baseline"])
        assert each.failures == {}, "it is tried once more when it is used"
        with pytest.raises(EngineError), each.use("a"):
            pass
        with each.use("baseline"):
            pass


def test_arms_come_and_go_while_others_stay(tmp_path):
    baseline, a, b = deployments("baseline", "a", "b")
    with Residents([baseline], mode="auto", run_log_dir=tmp_path) as each:
        with each.use("baseline") as engine:
            group = engine.pgid
        for more in (a, b):
            each.add(more)
            with each.use(more.arm):
                pass
        assert set(each.engines) == {"baseline", "a", "b"}
        assert not each.exclusive
        gone = each.engines["a"].pgid
        each.remove("a")
        assert group_members(gone) == []
        with pytest.raises(InputError, match="no arm a"), each.use("a"):
            pass
        each.add(a)
        with each.use("a") as engine:
            assert engine.pgid != gone
        assert each.engines["baseline"].pgid == group, "nobody else was restarted"
        with pytest.raises(InputError, match="an arm a already"):
            each.add(a)
    assert children(os.getpid()) == []


def test_the_baseline_may_go_too(tmp_path):
    baseline, a = deployments("baseline", "a")
    with Residents([baseline, a], mode="auto", run_log_dir=tmp_path) as each:
        each.start_all()
        each.remove("baseline")
        assert each.baseline == "a"
        each.add(baseline)
        with each.use("baseline"):
            assert set(each.engines) == {"baseline", "a"}
        each.remove("a")
        each.remove("baseline")
        assert each.engines == {}
        each.add(a)
        with each.use("a"):
            assert each.baseline == "a"
