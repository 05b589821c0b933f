from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from steelyard.engines.attach import attach
from steelyard.engines.base import Engine
from steelyard.engines.fake import Behaviour
from steelyard.engines.fake_server import Asked, FakeEngine
from steelyard.load.client import RequestRecord
from steelyard.load.figures import trial_figures
from steelyard.load.trial import Trial, _changes, invalid_reasons, meets, run_trial, trial_id
from steelyard.load.workloads import PlannedRequest, plan_requests, plan_warmup
from steelyard.study import Load, LoadPoint, Slo, Workload

SLO = Slo(ttft_s=1.0, itl_s=0.5)


def where(kind: str = "chat", requests: int = 8, load: Load | None = None, **more: Any) -> LoadPoint:
    load = load or Load(concurrency=4)
    shape = {"prompt_tokens": 48, "output_tokens": 8, **more}
    return LoadPoint(workload=Workload(name="work", kind=kind, requests=requests, load=(load,), **shape), load=load)


@pytest.fixture
def trial(tokenizers):
    def run(engine: Any, point: LoadPoint | None = None, slo: Slo = SLO, warm: int = 2) -> Trial:
        point, tokenizer = point or where(), tokenizers["byte_level_bpe"]
        return run_trial(
            engine, point, plan_requests(point, tokenizer, seed=1, block=3), slo=slo,
            warmup=plan_warmup(point, tokenizer, seed=1, block=3, requests=warm) if warm else (),
            run_id="run", block=3, position=1,
        )  # fmt: skip

    return run


def said(row: Any) -> list[str]:
    """Reasons against a trial, but for those that a busy machine gives: they are true, and not what is tested."""
    busy = ("sent late", "of a core", "together with later ones")
    return [each for each in row.invalid_reasons if not any(words in each for words in busy)]


def test_a_good_trial_fills_every_column(serve, trial):
    done = trial(serve(ttft_s=0.05, itl_s=0.01), where(requests=80, load=Load(concurrency=20)))
    row = done.row
    assert said(row) == []
    assert row.valid == (row.invalid_reasons == [])
    assert row.trial_id == trial_id("run", "demo", "work@c20", 3)
    assert len(row.trial_id) == 16
    assert (row.load_point, row.block, row.position) == ("work@c20", 3, 1)
    assert (row.requests, row.completed, row.failed) == (80, 80, 0)
    assert (row.input_tokens, row.output_tokens, row.engine_output_tokens) == (80 * 48, 80 * 8, 80 * 8)
    # A closed loop has no queue that could only grow.
    assert [column for column, value in row.as_dict().items() if value is None] == ["saturated"]
    assert row.output_tokens_per_s == pytest.approx(640 / row.duration_s)
    assert row.requests_per_s == pytest.approx(80 / row.duration_s)
    assert row.goodput_per_s == row.requests_per_s
    assert row.slo_share == 1.0
    assert 0.05 <= row.ttft_p50_s <= row.ttft_p95_s
    assert 0.008 <= row.itl_p50_s <= row.itl_p95_s
    assert 0.12 <= row.e2e_p50_s <= row.e2e_p95_s <= row.duration_s


def test_rows_belong_together(serve, trial):
    done = trial(serve())
    assert [each.request_index for each in done.requests] == list(range(8))
    assert {each.trial_id for each in (*done.requests, *done.metrics)} == {done.row.trial_id}
    assert all(each.prompt_tokens == each.input_tokens == 48 for each in done.requests)
    assert all(len(each.token_times_s) == each.output_tokens == 8 for each in done.requests)
    assert all(each.met_slo for each in done.requests)
    metrics = {each.metric: each for each in done.metrics}
    # The warm-up is not in the difference.
    assert metrics["vllm:generation_tokens_total"].value == 64
    assert metrics["vllm:prompt_tokens_total"].kind == "counter"
    assert metrics["vllm:num_requests_running"].kind == "gauge"
    assert metrics["vllm:request_queue_time_seconds_count"].value == 8


def test_tails_are_refused_with_few_requests(serve, trial):
    row = trial(serve(), warm=0).row
    assert (row.ttft_p95_s, row.itl_p95_s, row.e2e_p95_s) == (None, None, None)
    assert row.ttft_p50_s is not None
    assert said(row) == []


def test_slo_attainment_counts_the_misses(serve, trial):
    # Two seats for four slots: half of the requests wait for 100 ms and more.
    engine = serve(ttft_s=0.1, itl_s=0.0, max_num_seqs=2)
    row = trial(engine, slo=Slo(ttft_s=0.15)).row
    assert 0 < row.slo_share < 1
    assert row.goodput_per_s == pytest.approx(row.slo_share * row.requests_per_s)
    assert row.slo_tokens_per_s == pytest.approx(row.slo_share * row.output_tokens_per_s)


def test_open_loop(serve, trial):
    done = trial(serve(), where(requests=12, load=Load(rate=40.0)))
    assert done.row.load_point == "work@r40"
    assert said(done.row) == []
    scheduled = [each.scheduled_s for each in done.requests]
    assert scheduled[0] == 0.0
    assert scheduled == sorted(scheduled)


def test_a_declared_shared_prefix_may_hit_the_cache_and_others_may_not(serve, trial):
    shared = where("shared_prefix", prompt_tokens=64, shared_tokens=48, requests=8)
    row = trial(serve("a", prefix_cache=True), shared).row
    assert said(row) == []
    # All but the first request of the only prefix find its three blocks of 16.
    assert row.cached_tokens >= 4 * 48
    unique = trial(serve("b", prefix_cache=True)).row
    assert (said(unique), unique.cached_tokens) == ([], 0)
    warm = trial(serve("c", cache_everything=True)).row
    assert not warm.valid
    assert "prompt tokens came from the prefix cache" in said(warm)[0]


def test_a_second_trial_finds_a_cold_cache(serve, trial):
    engine = serve(prefix_cache=True)
    assert [trial(engine).row.cached_tokens for _ in range(2)] == [0, 0]


class Production(FakeEngine):
    """An engine as others run it: no way to reset its cache, which salts keep apart as vLLM does."""

    def __init__(self, owner: str | None, tokenizer: Path, **behaviour: Any) -> None:
        super().__init__(Behaviour.of({"ttft_s": 0.002, **behaviour}), "demo", tokenizer)
        self.owner = owner
        self.salts: list[str | None] = []
        self.caches: dict[str | None, set[int]] = {}

    async def reset(self, _: web.Request) -> web.Response:
        return web.Response(status=404)

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": self.model, "owned_by": self.owner}]})

    def _understand(self, prompt: Any, body: dict[str, Any], limit: int) -> Asked:
        asked = super()._understand(prompt, body, limit)
        asked.tokens = Salted(asked.tokens)
        asked.tokens.salt = body.get("cache_salt")
        if limit > 1:
            self.salts.append(asked.tokens.salt)
        return asked

    def _look_up(self, tokens: list[Any]) -> int:
        self.cached = self.caches.setdefault(tokens.salt, set())
        return super()._look_up(tokens)


class Salted(list):
    salt: str | None = None


@pytest.fixture
def production(deployment, tokenizer_folders):
    """Runs such engines in threads of this process and attaches arms to them."""
    with ExitStack() as attached:

        def start(owner: str | None, *arms: str, **behaviour: Any) -> tuple[Production, list[Engine]]:
            made = Production(owner, tokenizer_folders["byte_level_bpe"], **behaviour)
            url = attached.enter_context(in_thread(made))
            wanted = [dataclasses.replace(deployment(arm), engine="attach", url=url) for arm in arms]
            return made, [attached.enter_context(attach(each)) for each in wanted]

        yield start


@contextmanager
def in_thread(engine: FakeEngine) -> Iterator[str]:
    loop, runner = asyncio.new_event_loop(), web.AppRunner(engine.app(), access_log=None)

    async def begin() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner.addresses[0][1]

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{asyncio.run_coroutine_threadsafe(begin(), loop).result(10)}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_vllm_that_cannot_be_reset_is_measured_cold_by_salts(production, trial):
    """The identity control has the baseline's URL and prompts: unsalted, it would find all of them in the cache."""
    engine, arms = production("vllm", "baseline", "control", prefix_cache=True)
    point = where(prompt_tokens=64, requests=6)
    rows = [trial(arm, point).row for arm in (*arms, arms[0])]
    assert [(said(row), row.cached_tokens) for row in rows] == [([], 0)] * 3
    # Two of warm-up and six measured each: six salts of their own, even where a trial is made a second time.
    salts = list(dict.fromkeys(engine.salts))
    assert None not in salts
    assert [engine.salts.count(salt) for salt in salts] == [2, 6] * 3
    assert all(len(salt) <= 128 and not set(salt) & set("@/\\\0") for salt in salts)


def test_salts_leave_a_declared_shared_prefix_its_hits(production, trial):
    _, arms = production("vllm", "baseline", "control", prefix_cache=True)
    shared = where("shared_prefix", prompt_tokens=64, shared_tokens=48, requests=8)
    rows = [trial(arm, shared).row for arm in arms]
    assert [said(row) for row in rows] == [[], []]
    assert 4 * 48 <= rows[0].cached_tokens == rows[1].cached_tokens <= 7 * 48


def test_an_unknown_engine_that_cannot_be_reset_is_not_believed(production, trial):
    engine, (arm,) = production("somebody", "baseline")
    row = trial(arm).row
    assert not row.valid
    assert len(said(row)) == 1
    assert "its prefix cache could not be reset" in said(row)[0]
    assert set(engine.salts) == {None}, "it may refuse what it does not know"


def test_our_own_server_has_no_cache_to_reset(production, trial):
    engine, (arm,) = production("steelyard", "baseline")
    assert said(trial(arm).row) == []
    assert set(engine.salts) == {None}


def test_an_attached_engine_that_can_be_reset_needs_no_salt(serve, trial, deployment):
    served = serve(prefix_cache=True)
    with attach(dataclasses.replace(deployment(), engine="attach", url=served.base_url)) as engine:
        rows = [trial(engine).row for _ in range(2)]
    assert [(said(row), row.cached_tokens) for row in rows] == [([], 0)] * 2


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ({"fail_every": 4}, "requests failed (http_error)"),
        ({"break_stream_every": 4}, "requests failed (broken_stream)"),
        ({"extra_prompt_tokens": 2}, "counts other prompt tokens than were planned in 8 requests"),
        ({"uncounted_tokens": 3}, "the engine's own counter says 40 output tokens, its answers say 64"),
    ],
)
def test_every_lie_of_an_engine_is_a_reason(serve, trial, args, reason):
    row = trial(serve(**args), warm=0).row
    assert not row.valid
    assert len(said(row)) == 1
    assert reason in said(row)[0]
    assert row.failed == (2 if "every" in next(iter(args)) else 0)
    assert row.completed + row.failed == row.requests == 8


def test_one_failure_in_many_is_counted_and_tolerated(serve, trial):
    row = trial(serve(fail_every=60), where(requests=60, load=Load(concurrency=10)), warm=0).row
    assert (row.failed, said(row)) == (1, [])
    assert row.slo_share == pytest.approx(59 / 60)


def test_a_dead_engine_gives_an_invalid_trial_not_an_exception(serve, trial):
    done = trial(serve(crash_after=3), warm=0)
    assert not done.row.valid
    assert done.row.failed > 0
    assert {each.met_slo for each in done.requests if each.status != "ok"} == {False}
    assert done.row.engine_output_tokens is None


def test_nothing_completed_is_unknown_not_zero(serve, trial):
    row = trial(serve(fail_every=1), warm=0).row
    assert (row.completed, row.failed, row.slo_share) == (0, 8, 0.0)
    assert (row.output_tokens_per_s, row.ttft_p50_s, row.goodput_per_s) == (None, None, None)


def test_a_busy_client_is_a_reason(serve, trial):
    """Real threads eat this process's CPU: the client cannot prove that it did not measure itself."""
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(2000))

    threads = [threading.Thread(target=burn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        row = trial(serve(ttft_s=0.2), warm=0).row
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    # How much CPU they get depends on the machine; what is recorded and what is judged must agree in any case.
    assert row.client_cpu_share > 0.1
    assert any("of a core" in each for each in row.invalid_reasons) == (row.client_cpu_share > 0.9)


def records(count: int = 4, e2e: float = 0.1, late: float = 0.0) -> tuple[list[PlannedRequest], list[RequestRecord]]:
    planned = [
        PlannedRequest(index=i, prompt="p", prompt_hash="h", prompt_tokens=48, output_tokens=8, scheduled_s=0.0)
        for i in range(count)
    ]
    return planned, [
        RequestRecord(
            index=i, scheduled_s=0.0, sent_s=late, origin_s=0.0, first_token_s=e2e / 2, end_s=e2e,
            token_times_s=[e2e / 2, e2e], input_tokens=48, output_tokens=8, status="ok", finish_reason="length",
        )
        for i in range(count)
    ]  # fmt: skip


def judge(count: int = 4, e2e: float = 0.1, late: float = 0.0, **more: Any) -> list[str]:
    planned, done = records(count, e2e, late)
    told = {"cpu_share": 0.1, "engine_output_tokens": 8.0 * count, "cached_tokens": 0.0, **more}
    return invalid_reasons(where(requests=count), planned, done, lateness=[late] * count, **told)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({}, None),
        ({"late": 0.0099}, None),
        ({"late": 0.0101}, "sent late"),
        # With answers of 3 s the client may be 30 ms late.
        ({"late": 0.029, "e2e": 3.0}, None),
        ({"late": 0.031, "e2e": 3.0}, "sent late"),
        ({"cpu_share": 0.9}, None),
        ({"cpu_share": 0.91}, "0.91 of a core"),
        ({"cached_tokens": 9.0}, None),
        ({"cached_tokens": 10.0}, "10 of 192 prompt tokens came from the prefix cache"),
        ({"cached_tokens": None, "engine_output_tokens": None, "cpu_share": None}, None),
        ({"engine_output_tokens": 33.0}, "says 33 output tokens, its answers say 32"),
    ],
)
def test_the_limits_of_validity(told, reason):
    reasons = judge(**told)
    assert (reasons == []) if reason is None else (len(reasons) == 1 and reason in reasons[0])


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        ([8, 8, 8, 8], None),
        ([9, 8, 8, 8], "more output tokens than were asked for in 1 requests (request 0: 9 instead of 8)"),
        ([8, 8, 8, 2], "26 of the 32 output tokens asked for"),
    ],
)
def test_answers_of_other_lengths_are_no_measurement_of_the_load(tokens, reason):
    planned, done = records()
    done = [dataclasses.replace(each, output_tokens=count) for each, count in zip(done, tokens, strict=True)]
    found = invalid_reasons(
        where(requests=4), planned, done, lateness=[0.0] * 4, cpu_share=0.1, engine_output_tokens=None,
        cached_tokens=None,
    )  # fmt: skip
    assert (found == []) if reason is None else (len(found) == 1 and reason in found[0])


def test_counters_without_a_reading_before_are_unknown():
    after = {"tokens_total": ("counter", 480.0), "running": ("gauge", 2.0)}
    assert _changes({}, after) == {"running": ("gauge", 2.0)}
    assert _changes({"other": ("counter", 1.0)}, after) == after


def test_prompt_tokens_that_nobody_told_are_unknown():
    _, done = records()
    known = trial_figures(done, Slo(ttft_s=1), duration_s=1.0)["input_tokens"]
    done[0] = dataclasses.replace(done[0], input_tokens=None)
    assert (known, trial_figures(done, Slo(ttft_s=1), duration_s=1.0)["input_tokens"]) == (192, None)


def test_slo_of_one_request():
    _, (record, *_) = records(2, e2e=0.8)
    assert meets(record, Slo(ttft_s=0.4))
    assert not meets(record, Slo(ttft_s=0.39))
    assert meets(record, Slo(e2e_s=0.8))
    assert not meets(record, Slo(ttft_s=1, itl_s=0.05))
    assert not meets(dataclasses.replace(record, status="broken_stream"), Slo(ttft_s=10))


def test_trial_ids_differ_where_trials_do():
    ids = {trial_id(*each) for each in (("r", "a", "w@c1", 0), ("r", "b", "w@c1", 0), ("r", "a", "w@c1", 1))}
    assert len(ids) == 3
    assert trial_id("r", "a", "w@c1", 0) in ids
