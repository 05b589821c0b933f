"""`steelyard serve-promoted` and `steelyard bundle`: from the ledger to an engine, or to files that start one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

from steelyard.deployments import deployment
from steelyard.engines.base import Deployment, Engine
from steelyard.engines.launcher import group_members
from steelyard.engines.probe import check_alive
from steelyard.engines.serving import serve
from steelyard.errors import InputError
from steelyard.home import logs_path, weights_path
from steelyard.promoted import Promoted, bundle, check_served, chosen
from steelyard.records import GateRow, Row
from steelyard.study_file import LoadedStudy

RowT = TypeVar("RowT", bound=Row)
LOOK_EVERY_S = 1.0
IN_FORCE = """
    SELECT study, arm, run_id, strftime(promoted_at, '%Y-%m-%d %H:%M UTC') AS promoted_at, deployment_digest,
        baseline_digest, policy_digest, coalesce(expired_because, '') AS expired_because
    FROM promotions_in_force WHERE study = ? ORDER BY promoted_at DESC
"""


class Warehouse(Protocol):
    """What is needed of `warehouse.store.Store`, which this room may not import."""

    def read(self, row_class: type[RowT], **equals: Any) -> list[RowT]:
        """Rows whose columns equal the given values."""

    def query(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """The result of one SELECT as a frame."""


def promoted_of(store: Warehouse, study: str, arm: str | None) -> Promoted:
    """The promotion that was asked for, with its gates."""
    found = [
        Promoted(
            **{**row, "expired_because": row["expired_because"] or None},
            gates=tuple(store.read(GateRow, run_id=row["run_id"], arm=row["arm"])),
        )
        for row in store.query(IN_FORCE, [study]).to_dict("records")
    ]
    return chosen(study, found, arm)


def deployment_of(loaded: LoadedStudy, promoted: Promoted) -> Deployment:
    """The arm as the study has it now. Raises InputError if it has none of that name."""
    arm = next((each for each in loaded.study.arms if each.name == promoted.arm), None)
    if arm is None:
        raise InputError(
            f"{promoted.arm} was promoted and is no longer in the study.", remedy="Put it back, or run the study again."
        )
    return deployment(loaded, arm, weights_into=weights_path())


def serve_promoted(loaded: LoadedStudy, promoted: Promoted, port: int) -> int:
    """Serve what was promoted, and nothing else, until SIGINT or SIGTERM. Raises EngineError if it dies meanwhile."""
    ready = deployment_of(loaded, promoted)
    ended = threading.Event()

    def end(*_: int | FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        limit = loaded.study.hardware.start_timeout_s
        with serve(ready, run_log_dir=logs_path() / "promoted", start_timeout_s=limit, port=port) as engine:
            check_served(engine, promoted)
            print(f"{promoted.arm} of study {promoted.study}, promoted by run {promoted.run_id}", flush=True)
            print(f"deployment  {engine.digest}", flush=True)
            print(f"serving     {engine.base_url}/v1 (model {engine.model_name}); Ctrl-C ends it", flush=True)
            while not ended.wait(LOOK_EVERY_S):
                _must_live(engine)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    print("stopped")
    return 0


def _must_live(engine: Engine) -> None:
    if engine.pgid is not None and not group_members(engine.pgid):
        check_alive(engine)


def bundle_promoted(loaded: LoadedStudy, promoted: Promoted, into: Path) -> int:
    """Write the files of a promotion. Raises InputError for an engine whose command is not ours to give."""
    ready = deployment_of(loaded, promoted)
    if ready.engine != "vllm":
        raise InputError(
            f"{promoted.arm} runs on the engine {ready.engine}, whose command line is not ours to write.",
            remedy="Whoever runs an attached engine has it; anything else starts with `steelyard serve-promoted`.",
        )
    from steelyard.engines.vllm import production_command

    for path in bundle(promoted, ready, *production_command(ready), into):
        print(path)
    return 0
