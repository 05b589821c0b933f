"""`steelyard desk`: published rows, packets and reports as pages that lead to each other, on loopback. It only reads.

Dagster's pages link here, because a browser follows no link from a served page to a file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pipelines.packets import packet_text
from steelyard.errors import InputError, SteelyardError
from steelyard.home import desk_url, reports_path
from steelyard.records import ROWS
from steelyard.reports.rows_page import NULL, problem_page, rows_page, run_page, runs_page
from warehouse.looking import look, tables
from warehouse.store import Store

LOOPBACK = "127.0.0.1"
Tell = Callable[[str], None]
LONGEST = 15
"""Digits of a place in a table."""
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_RUNS = """
    SELECT run_id, study, status, started_at,
        count(*) FILTER (WHERE verdict = 'promote') AS promoted, count(*) FILTER (WHERE verdict = 'reject') AS rejected,
        count(*) FILTER (WHERE verdict = 'inconclusive') AS inconclusive
    FROM studies LEFT JOIN verdicts USING (run_id)
    GROUP BY ALL ORDER BY started_at DESC LIMIT 500
"""


def serve(port: int, first: str = "", tell: Tell = lambda _: None) -> None:
    """Answer until interrupted, and say where; `first` is the page to name. InputError if the port cannot be had."""
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), Desk)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"Nothing can listen on port {port}: {error}.", remedy="Give another.", field="--port"
        ) from error
    with server:
        tell(f"http://{LOOPBACK}:{server.server_address[1]}/{first} (Ctrl-C ends it)")
        server.serve_forever()


def beside(port: int) -> None:
    """Start the desk as a process that ends with this one, also where this one becomes another program."""
    command = [sys.executable, "-m", "pipelines.desk", str(port), str(os.getpid())]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def page(path: str) -> str:
    """The page behind a path with its query. Raises InputError for one that leads nowhere."""
    try:
        asked = urlsplit(path)
    except ValueError as error:
        raise InputError(f"{path} is no address: {error}.", remedy="Begin with the list of runs: /") from error
    parts = [unquote(each) for each in asked.path.strip("/").split("/") if each]
    given = {
        value if name == NULL else name: None if name == NULL else value
        for name, value in parse_qsl(asked.query, keep_blank_values=True)
    }
    with Store.open_published() as store:
        if not parts:
            return runs_page(store.rows(_RUNS))
        if parts[0] == "runs" and len(parts) in (2, 3):
            run = next(iter(store.rows("SELECT * FROM studies WHERE run_id = $1", [parts[1]])), None)
            if run is None:
                raise InputError(
                    f"Run {parts[1]} is not published.", remedy="Rows of a run are here once it has ended."
                )
            return _run(store, run) if len(parts) == 2 else _of_run(store, parts[1], parts[2], given)
    raise InputError(f"There is no page {asked.path}.", remedy="Begin with the list of runs: /")


def _run(store: Store, run: dict[str, Any]) -> str:
    run_id, meanings = run["run_id"], tables(store)
    verdicts = store.rows("SELECT arm, role, verdict, reasons FROM verdicts WHERE run_id = $1 ORDER BY arm", [run_id])
    found = [each.TABLE for each in ROWS if each.TABLE in meanings]
    counts = [
        (name, meanings[name], int(store.scalar(f"SELECT count(*) FROM {name} WHERE run_id = $1", [run_id])))
        for name in found
    ]
    papers = [("Packet, for who signs", "packet")] if store.rows(_SEALED, [run_id]) else []
    papers += [("Report", "report")] if (reports_path() / f"{run_id}.html").is_file() else []
    return run_page(run, verdicts, [each for each in counts if each[2]], papers)


_SEALED = "SELECT 1 FROM ledger WHERE run_id = $1 AND kind = 'run' LIMIT 1"


def _of_run(store: Store, run_id: str, name: str, given: dict[str, str | None]) -> str:
    if name == "packet":
        return packet_text(store, run_id)
    if name == "report":
        file = reports_path() / f"{run_id}.html"
        if not file.is_file():
            raise InputError(f"There is no report {file}.", remedy=f"Make it again: steelyard report {run_id}")
        return file.read_text("utf-8")
    at = given.pop("at", "0") or ""
    if not at.isdecimal() or len(at) > LONGEST:
        raise InputError(f"{at!r} is no place to begin at.", remedy="Follow a link.")
    given = {each: text for each, text in given.items() if each != "run_id"}
    return rows_page(run_id, given, look(store, name, {"run_id": run_id, **given}, int(at)))


class Desk(BaseHTTPRequestHandler):
    """Answers GET and HEAD to who asks for this machine by its own name; a page elsewhere must not read through it."""

    server_version, sys_version, protocol_version = "steelyard", "", "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        self._answer(self.wfile.write)

    def do_HEAD(self) -> None:
        self._answer(lambda _: None)

    def _answer(self, write: Callable[[bytes], object]) -> None:
        status, text = self._found()
        body = text.encode()
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        write(body)

    def _found(self) -> tuple[int, str]:
        host = None
        with suppress(ValueError):
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in {LOOPBACK, "localhost", "::1", urlsplit(desk_url()).hostname}:
            return 421, problem_page("Another host was asked for.", f"Open {desk_url()}.")
        try:
            return 200, page(self.path)
        except SteelyardError as error:
            return 404 if isinstance(error, InputError) else 503, problem_page(error.message, error.remedy)
        except Exception as error:  # noqa: BLE001
            # Rows that somebody damaged may raise anything; whoever looks at them must be told, not hung up on.
            why = f"These rows cannot be shown ({type(error).__name__}: {error})."
            return 500, problem_page(why, "steelyard verify says what was changed.")

    def log_message(self, *_: object) -> None:
        return


def main() -> None:
    """Serve for as long as the process that started this lives."""
    port, parent = int(sys.argv[1]), int(sys.argv[2])

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
    # Ctrl-C is meant for the web server, and ends this with it.
    with suppress(KeyboardInterrupt):
        serve(port)


if __name__ == "__main__":
    main()
