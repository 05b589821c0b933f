"""Small synchronous HTTP to an engine, standard library only: probes must work where nothing else is installed."""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.error
import urllib.request
from typing import Any


class Unreachable(Exception):
    """Nobody answers: refused, reset or closed without an answer."""


class NoAnswerInTime(Exception):
    """A connection was made, but no answer came in time."""


class Answer:
    """Status and body of an answer, whatever the status."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON, None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def text(self) -> str:
        """The first 300 characters of the body."""
        return self.body[:2000].decode(errors="replace")[:300]


_LOOPBACK = re.compile(r"https?://(?:127\.[\d.]+|localhost|\[::1\])(?::\d+)?(?:/|$)")
# Loopback engines must not be asked through a proxy that the environment names for the outside world.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(
    url: str, *, payload: Any = None, method: str | None = None, timeout_s: float = 5.0, local: bool = True
) -> Answer:
    """GET, or POST `payload` as JSON. `local` bypasses proxies. Raises Unreachable or NoAnswerInTime.

    `STEELYARD_API_KEY` goes along as a bearer token to engines somebody else runs, never to local ones.
    """
    headers = {"Content-Type": "application/json"}
    if not local and (key := os.environ.get("STEELYARD_API_KEY")):
        headers["Authorization"] = f"Bearer {key}"
    data = None if payload is None else json.dumps(payload).encode()
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    opening = _direct.open if local or _LOOPBACK.match(url) else urllib.request.urlopen
    try:
        with opening(request, timeout=max(0.05, timeout_s)) as response:
            return Answer(response.status, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())
    except TimeoutError as error:
        raise NoAnswerInTime(url) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise NoAnswerInTime(url) from error
        raise Unreachable(f"{url}: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{url}: {error!r}") from error
