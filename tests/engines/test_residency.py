"""Residents with fake engines: who is up, who is frozen, who is replaced, who is given up."""

import os
import signal

import psutil
import pytest

from steelyard.engines import Deployment
from steelyard.engines import residency as module
from steelyard.engines.launcher import children, group_members, processes
from steelyard.engines.probe import one_token
from steelyard.engines.process import close_launchers
from steelyard.engines.residency import Residents
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
        letters = {processes()[pid][0] for pid in group_members(engine.pgid)}
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


def test_the_least_recently_used_makes_room_but_not_the_baseline(tmp_path, monkeypatch):
    class Memory:
        available = 0

    def memory():
        # Room for the baseline and one more, whatever a fake takes.
        Memory.available = module.RESERVE_BYTES + int(1.5 * module.GROWTH * (module.memory_bytes(first[0]) or 0))
        return Memory

    first = []
    original = Residents._decide

    def decide(self, engine):
        first.append(engine)
        original(self, engine)

    monkeypatch.setattr(psutil, "virtual_memory", memory)
    monkeypatch.setattr(Residents, "_decide", decide)
    with Residents(deployments("baseline", "a", "b"), mode="auto", run_log_dir=tmp_path) as each:
        assert each.start_all() == {}
        assert "2 of 3 engines are resident at once" in each.reason
        assert set(each.engines) == {"baseline", "b"}
        with each.use("a"):
            assert set(each.engines) == {"baseline", "a"}
        with each.use("baseline"):
            pass
        with each.use("b"):
            assert set(each.engines) == {"baseline", "b"}


def test_too_little_memory_means_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": module.RESERVE_BYTES}))
    with Residents(deployments("baseline", "a"), mode="resident", run_log_dir=tmp_path) as each:
        assert each.start_all() == {}
        assert "although the study asks for resident" in each.reason
        assert len(each.engines) == 1


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
