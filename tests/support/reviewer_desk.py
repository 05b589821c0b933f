"""A reviewer's desk over a run that waits for two roles: their keys, their registry, the commands they type."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
import yaml
from fake_study import ANSWERS, SMALL, WIDE, write_fake_study

from steelyard.cli import main
from steelyard.review.keys import new_key
from warehouse.store import Store

# Slow, so that a busy machine's client is not late by much of a token.
SLOW = {"engine": "fake", "args": {"answers_file": ANSWERS, "max_num_seqs": 4, "ttft_s": 0.04, "itl_s": 0.012}}
CLAIM = {"workload": "chat", "load": "c16"}
CANDIDATES = [
    {"name": "wide", "lever": "batching", "claim": CLAIM, "args": {"max_num_seqs": 16}},
    {"name": "unsafe", "lever": "quantization", "claim": CLAIM, "args": {"max_num_seqs": 16, "unsafe_share": 0.5}},
]
PEOPLE = {
    "ana@example.org": ("responsible-ai", ["trust"]),
    "bo@example.org": ("sre", ["platform"]),
    "cy@example.org": ("sre", ["inference"]),
    "dee@example.org": ("sre", ["platform"]),
}


def measure(folder: Path) -> None:
    """Run a study that waits for two roles, below `folder`; keys and registry beside its studies."""
    study = write_fake_study(
        folder / "studies" / "good", study="good", candidates=CANDIDATES, divergence=None, suites=SMALL, baseline=SLOW,
        policy={**WIDE, "sign_offs": ["responsible-ai", "sre"], "sign_off_days": 30},
    )  # fmt: skip
    lines = {person: new_key(folder / f"{person}.key") for person in PEOPLE}
    registry = [
        {"person": person, "roles": [role], "teams": teams, "public_key": lines[person]}
        for person, (role, teams) in PEOPLE.items()
    ]
    (folder / "studies" / "reviewers.yaml").write_text(yaml.safe_dump({"reviewers": registry}))
    with pytest.MonkeyPatch.context() as patch:
        at(folder, patch)
        patch.setenv("STEELYARD_SUBMITTER", "dee@example.org")
        assert main(["run", str(study), "--quiet"]) == 0


def at(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("STEELYARD_HOME", str(folder / "var"))
    patch.setenv("STEELYARD_STUDIES", str(folder / "studies"))


class Desk:
    """A copy of the place, so that each test may spoil it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.live = folder / "var" / "warehouse.duckdb"
        with Store.open_published() as store:
            self.run = str(store.scalar("SELECT run_id FROM studies"))
            self.digest = self.do("review", self.run)[1].split()[1]

    def do(self, *words: str) -> tuple[int, str]:
        status = main(list(words))
        told = self._capsys.readouterr()
        return status, told.out + told.err

    def sign(self, person: str, *more: str, role: str | None = None, decision: str = "approve") -> tuple[int, str]:
        role = role or PEOPLE[person][0]
        key = ["--key", str(self.folder / f"{person}.key")] if "--key" not in more else []
        packet = ["--packet", self.digest[:16]] if "--packet" not in more else []
        return self.do("sign", self.run, "--as", person, "--role", role, "--decision", decision, *key, *packet, *more)

    def query(self, sql: str) -> list[tuple[object, ...]]:
        with duckdb.connect(self.folder / "var" / "published" / "steelyard.duckdb", read_only=True) as connection:
            return connection.execute(sql).fetchall()
