"""Our client as a process of its own, and the plain aiohttp client that one would write first.

    python -m benchmarks.client_truth_parts.own --client steelyard URL --tokens 32 --requests 60 --streams 20 --out FILE

Writes what it measured, and for ours what a trial would hold against it, as one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.client_truth_parts.cell import PROMPT_TOKENS
from benchmarks.client_truth_parts.server import MODEL
from steelyard.digest import text_digest
from steelyard.load.client import OK, drive
from steelyard.load.client_doubts import worst_of_95
from steelyard.load.trial import invalid_reasons
from steelyard.load.workloads import PlannedRequest
from steelyard.study import Load, LoadPoint, Workload

TIMEOUT_S = 60.0


def planned(count: int, tokens: int, rate: float | None, seed: int) -> list[PlannedRequest]:
    """Requests with prompts of words, Poisson arrivals if there is a rate."""
    chance, due, requests = random.Random(seed), 0.0, []
    for index in range(count):
        prompt = f"request {index} " + "word " * (PROMPT_TOKENS - 2)
        requests.append(
            PlannedRequest(
                index=index, prompt=prompt, prompt_hash=text_digest(prompt), prompt_tokens=PROMPT_TOKENS,
                output_tokens=tokens, scheduled_s=due,
            )
        )  # fmt: skip
        due += chance.expovariate(rate) if rate else 0.0
    return requests


def steelyard(url: str, requests: list[PlannedRequest], load: Load, tokens: int) -> dict[str, Any]:
    """Our client, judged as in any trial."""
    run = drive(url, MODEL, requests, load=load, timeout_s=TIMEOUT_S)
    good = [each for each in run.records if each.status == OK]
    workload = Workload.model_validate(
        {
            "name": "truth", "kind": "chat", "requests": len(requests), "load": [load],
            "prompt_tokens": PROMPT_TOKENS, "output_tokens": tokens,
        }
    )  # fmt: skip
    reasons = invalid_reasons(
        LoadPoint(workload=workload, load=load), requests, run.records,
        lateness=[each.sent_s - each.scheduled_s for each in run.records if each.sent_s is not None],
        cpu_share=run.cpu_s / run.wall_s, engine_output_tokens=None, cached_tokens=None,
        lags_s=run.lags_s, kernel_stamps=run.kernel_stamps,
    )  # fmt: skip
    return {
        "ttfts": [each.ttft_s for each in good],
        "itls": [each.itl_s for each in good],
        "gaps": [later - one for each in good for one, later in itertools.pairwise(each.token_times_s)],
        # The bench's server does not tokenize, so it counts other prompt tokens than were planned.
        "flagged": [each for each in reasons if "prompt tokens than were planned" not in each],
        "window_cpu_s": run.cpu_s,
        "window_s": run.wall_s,
        "lag_p95_s": worst_of_95(run.lags_s),
        "kernel_stamps": run.kernel_stamps,
    }


async def plain(url: str, requests: list[PlannedRequest], load: Load) -> dict[str, Any]:
    """Post, iterate over lines, stamp, parse: nothing prepared and nothing deferred."""
    import aiohttp

    ttfts: list[float] = []
    itls: list[float] = []
    gaps: list[float] = []

    async def ask(session: aiohttp.ClientSession, request: PlannedRequest) -> None:
        body = {
            "model": MODEL, "prompt": request.prompt, "max_tokens": request.output_tokens, "stream": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        times = []
        sent = time.perf_counter()
        async with session.post(f"{url}/v1/completions", json=body) as answer:
            async for line in answer.content:
                if line.startswith(b"data:") and b"[DONE]" not in line:
                    at = time.perf_counter()
                    times += [at] if json.loads(line[5:])["choices"] else []
        ttfts.append(times[0] - sent)
        itls.append((times[-1] - times[0]) / (len(times) - 1))
        gaps.extend(later - one for one, later in itertools.pairwise(times))

    async def slot(session: aiohttp.ClientSession, queue: Any) -> None:
        for request in queue:
            await ask(session, request)

    async def arrive(session: aiohttp.ClientSession, request: PlannedRequest, zero: float) -> None:
        await asyncio.sleep(request.scheduled_s - (time.perf_counter() - zero))
        await ask(session, request)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        if load.concurrency is not None:
            queue = iter(requests)
            await asyncio.gather(*(slot(session, queue) for _ in range(load.concurrency)))
        else:
            zero = time.perf_counter()
            await asyncio.gather(*(arrive(session, each, zero) for each in requests))
    return {"ttfts": ttfts, "itls": itls, "gaps": gaps, "flagged": []}


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client_truth_parts.own", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--client", choices=("steelyard", "aiohttp"), required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--streams", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    load = Load(concurrency=options.streams, rate=options.rate)
    requests = planned(options.requests, options.tokens, options.rate, options.seed)
    if options.client == "steelyard":
        told = steelyard(options.url, requests, load, options.tokens)
    else:
        told = asyncio.run(plain(options.url, requests, load))
    options.out.write_text(json.dumps(told), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
