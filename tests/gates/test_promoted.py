"""Which promotion is served, that it is what was measured, and what is written down of it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from steelyard.engines.base import Deployment, Engine
from steelyard.engines.vllm import production_command
from steelyard.errors import InfrastructureError, InputError
from steelyard.promoted import Promoted, bundle, check_served, chosen, proven_gain
from steelyard.records import GateRow


def gate(low: float, high: float = 9.0, **change: object) -> GateRow:
    row = GateRow(
        run_id="run", arm="arm", gate="gain", category="speed", metric="output_tokens_per_s", scope="chat@c8",
        bound_kind="at_least", bound=1.1, benefit=True, required=True, estimate=low, low=low, high=high, n=4,
        outcome="pass", reason="it rose",
    )  # fmt: skip
    return replace(row, **change)  # type: ignore[arg-type]


def promoted(arm: str, *gates: GateRow, expired: str | None = None) -> Promoted:
    return Promoted(
        study="laptop", arm=arm, run_id="run", promoted_at="2026-11-22 02:00 UTC", deployment_digest="a" * 64,
        baseline_digest="b" * 64, policy_digest="c" * 64, expired_because=expired, gates=gates,
    )  # fmt: skip


DEPLOYMENT = Deployment(
    arm="wide", engine="vllm", model_name="the model", weights="/models/it's here", tokenizer="/models/it's here",
    chat_template=Path("/studies/chat template.jinja"), url=None, device="cpu",
    args={"max_num_seqs": 64, "speculative_config": {"method": "ngram", "num_speculative_tokens": 4}},
    env={"OMP_NUM_THREADS": "1"}, weights_digest="w", tokenizer_digest="t", template_digest="m",
)  # fmt: skip


def test_of_several_the_one_that_proved_most_is_served() -> None:
    wide, fast = promoted("wide", gate(1.5)), promoted("fast", gate(1.2, estimate=4.0), gate(3.0, required=False))
    assert chosen("laptop", [wide, fast]).arm == "wide"
    assert chosen("laptop", [wide, fast], "fast").arm == "fast"
    cheaper = gate(0.2, 0.5, bound_kind="at_most", bound=0.9, metric="usd_per_million_slo_tokens", category="cost")
    assert proven_gain([gate(1.2), cheaper]) == 2.0
    assert proven_gain([gate(1.2, benefit=False), gate(1.4, outcome="inconclusive")]) == 0


def test_what_is_not_in_force_is_refused_with_its_reason() -> None:
    old = promoted("old", gate(9.0), expired="the engine changed")
    assert chosen("laptop", [old, promoted("wide", gate(1.2))]).arm == "wide"
    with pytest.raises(InputError, match="old: the engine changed"):
        chosen("laptop", [old])
    with pytest.raises(InputError, match="Nothing of study laptop is promoted now"):
        chosen("laptop", [])
    with pytest.raises(InputError, match="In force: wide"):
        chosen("laptop", [old, promoted("wide")], "old")


def test_another_deployment_is_not_what_was_promoted() -> None:
    engine = Engine(
        deployment=DEPLOYMENT, base_url="http://127.0.0.1:1", version="1", resolved={}, digest="a" * 64,
        started_at=datetime.now(UTC), start_s=1.0,
    )  # fmt: skip
    check_served(engine, promoted("wide"))
    with pytest.raises(InfrastructureError, match="now serves deployment dddddddddddd; promoted was aaaaaaaaaaaa"):
        check_served(replace(engine, digest="d" * 64), promoted("wide"))


def test_the_script_starts_the_very_command(tmp_path: Path) -> None:
    command, env = production_command(DEPLOYMENT)
    document, script = bundle(promoted("wide", gate(1.5)), DEPLOYMENT, command, env, tmp_path / "new" / "folder")
    told = json.loads(document.read_text())
    assert (told["command"], told["deployment_digest"], told["gates"][0]["low"]) == (command, "a" * 64, 1.5)
    assert told["env"] == {"OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    # A stand-in for python says which words and variables reach it.
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$OMP_NUM_THREADS" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    for given, address in (({}, ["127.0.0.1", "8000"]), ({"HOST": "0.0.0.0", "PORT": "9"}, ["0.0.0.0", "9"])):
        said = subprocess.run(
            [script], env={"PATH": f"{tmp_path}:/usr/bin:/bin", **given}, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        expected = [word for word in command[1:] if not word.startswith(("--host=", "--port="))]
        assert said[0] == "1"
        assert [word for word in said[1:] if not word.startswith(("--host=", "--port="))] == expected
        assert [word.partition("=")[2] for word in said if word.startswith(("--host=", "--port="))] == address
    assert "VLLM_SERVER_DEV_MODE" not in script.read_text(), "no production engine has developers' endpoints"


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="cannot be written"):
        bundle(promoted("wide"), DEPLOYMENT, ["python"], {}, tmp_path / "file")
