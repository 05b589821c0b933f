"""What is asked of a client, what it says of it, what really happened, and how far they are apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TTFT_S, ITL_S = 0.05, 0.02
PROMPT_TOKENS = 64
SERVER_LATE_S = 0.005
"""A run in which a token of 1 % of the streams left later than this is marked: the machine was not fit for the load."""
KEYS = ("ttft_p50_err", "ttft_p99_err", "itl_p50_err", "itl_p99_err")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One load: `streams` at once (closed loop) or `rate` a second (Poisson), so many requests of so many tokens."""

    requests: int
    tokens: int
    streams: int | None = None
    rate: float | None = None

    @property
    def name(self) -> str:
        """For file names and logs."""
        return f"c{self.streams}" if self.streams else f"r{self.rate:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a client reports: seconds, one TTFT and one mean ITL a request, and gaps between tokens if it keeps them."""

    ttfts: Sequence[float]
    itls: Sequence[float]
    gaps: Sequence[float] | None = None
    flagged: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the server did, in the same form, and how late the latest token of 1 % of the streams was, seconds."""

    ttfts: Sequence[float]
    itls: Sequence[float]
    gaps: Sequence[float]
    late_p99_s: float
    unstamped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run of one client: `errors` are signed fractions of the truth; `problem` says why there are none."""

    client: str
    cell: Cell
    round: int
    errors: Mapping[str, float] = field(default_factory=dict)
    requests: int = 0
    true_ttft_p50_s: float | None = None
    said_ttft_p50_s: float | None = None
    cpu_s: float | None = None
    wall_s: float | None = None
    server_late: bool = False
    server_late_p99_s: float | None = None
    flagged: Sequence[str] = ()
    problem: str | None = None


def truth_of(told: Mapping[str, Any], cell: Cell) -> Truth:
    """From the server's `/truth`. Streams of another length are probes, and so are the first ones if there are more."""
    streams = [
        each for each in told["streams"] if each["wanted"] == cell.tokens and len(each["sent"]) == each["wanted"]
    ]
    streams = streams[max(0, len(streams) - cell.requests) :]
    gaps = [later - one for each in streams for one, later in itertools.pairwise(each["sent"])]
    return Truth(
        ttfts=[each["sent"][0] - each["arrived"] for each in streams],
        itls=[(each["sent"][-1] - each["sent"][0]) / (cell.tokens - 1) for each in streams],
        gaps=gaps,
        late_p99_s=percentile([each["late"] for each in streams], 0.99) if streams else 0.0,
        unstamped=told["unstamped"],
    )


def percentile(values: Sequence[float], q: float) -> float:
    """The plain empirical quantile: client and server are compared on the same requests, so nothing is inferred."""
    return float(np.quantile(np.asarray(values), q))


def errors_of(said: Said, true: Truth) -> dict[str, float]:
    """Signed errors as fractions of the truth: (the client's percentile - the server's) / the server's."""
    pairs = {"ttft": (said.ttfts, true.ttfts), "itl": (said.itls, true.itls)}
    if said.gaps:
        pairs["gap"] = (said.gaps, true.gaps)
    return {
        f"{name}_p{round(q * 100)}_err": percentile(one, q) / percentile(other, q) - 1
        for name, (one, other) in pairs.items()
        for q in (0.5, 0.99)
    }
