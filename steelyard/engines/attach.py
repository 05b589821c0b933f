"""An engine somebody else runs, at any OpenAI-compatible URL: asked, never started and never stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from steelyard.engines.base import Deployment, Engine
from steelyard.engines.http import NoAnswerInTime, Unreachable
from steelyard.engines.identity import deployment_digest
from steelyard.engines.probe import check_model, has_token, one_token, version_of
from steelyard.errors import CrashedWhileServing, Hung, InputError

# What differs between two answers of one engine.
_VOLATILE = frozenset({"created", "permission"})


@contextmanager
def attach(deployment: Deployment) -> Iterator[Engine]:
    """The engine at `deployment.url`, once it has answered with a token of the right model.

    Raises InputError without a URL, WrongModelServed, Hung, or CrashedWhileServing if nobody answers. What it serves
    can change behind our back: its digest holds only what it says of itself. `STEELYARD_API_KEY` is sent along.
    """
    if not deployment.url:
        raise InputError(f"{deployment.arm}: engine attach needs a url.", remedy="Give the arm a url.", field="url")
    base_url = deployment.url.rstrip("/").removesuffix("/v1").rstrip("/")
    arm, model = deployment.arm, deployment.model_name
    began, started_at = time.monotonic(), datetime.now(UTC)
    try:
        entry = check_model(base_url, model, arm, timeout_s=deployment.max_answer_wait_s, local=False)
        answer = one_token(base_url, model, timeout_s=deployment.max_answer_wait_s, local=False)
    except Unreachable as error:
        raise CrashedWhileServing(
            f"Nobody answers at {error}.", remedy="Start the engine, or correct the url.", arm=arm
        ) from None
    except NoAnswerInTime:
        raise Hung(
            f"{base_url} gave no token within {deployment.max_answer_wait_s:g} s.",
            remedy="Look at the engine there; restarting it is up to whoever runs it.",
            arm=arm,
        ) from None
    if not has_token(answer):
        raise CrashedWhileServing(
            f"{base_url} answered {answer.status} to a one-token completion: {answer.text}.",
            remedy="It must serve /v1/completions; set STEELYARD_API_KEY if it asks for a key.",
            arm=arm,
        )
    version = version_of(base_url, local=False)
    resolved: dict[str, Any] = {
        "url": base_url,
        "model": model,
        "models_entry": {key: value for key, value in entry.items() if key not in _VOLATILE},
    }
    yield Engine(
        deployment=deployment,
        base_url=base_url,
        version=version,
        resolved=resolved,
        digest=deployment_digest(deployment, version=version, resolved=resolved),
        started_at=started_at,
        start_s=time.monotonic() - began,
        extra={"launch": "attached"},
    )
