"""The loop that sends requests on time and keeps what comes back, unread, until the run is over.

One thread, one epoll. While the clock runs it does what cannot wait: send what is due, take what has arrived with the
kernel's stamp, and see where an answer ends. It knows no JSON. Connections are open before they are needed.
"""

from __future__ import annotations

import math
import select
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from steelyard.load.client_http import Answer, BadAnswer
from steelyard.load.client_stream import Piece, RequestRecord, read_stream
from steelyard.load.client_wire import Arrival, ConnectFailed, Connection, Target

# Servers close idle connections after 5 s (uvicorn's default); reusing one at that moment would look like a failure.
KEEPALIVE_S = 2.0
GIVE_UP_AFTER = 3
# How long before a planned arrival its connection is made, and how long a run may wait for its first ones.
AHEAD_S = 0.25
OPENING_S = 5.0
CHECK_S = 0.25
# Finished answers are read after the run; past this they are read at once, on the clock, so that memory stays bounded.
HELD_BYTES = 256 * 2**20
# epoll waits in whole milliseconds, rounded up; less is slept, which is exact to some microseconds.
TICK_S = 0.001
# A wait shorter than this returned at once: something had been waiting for the client.
AT_ONCE_S = 0.0002


@dataclass(slots=True, eq=False)
class Exchange:
    """One request on its way. `full` says that it was sent with vLLM's extra."""

    at: int
    record: RequestRecord
    full: bool
    quiet_since: float
    waited_for_connection: bool = False
    answer: Answer = field(default_factory=Answer)
    pieces: list[Piece] = field(default_factory=list)
    last_at: float = -math.inf


class Loop:
    """One run: fills `records` in place; `read` then reads the answers. Never raises for what a server does.

    `data_of(at, full)` gives the bytes of a request. `refuses(status, text)` says whether an error answer to a full
    request means that it should be sent again without its extra, and `full()` whether requests are sent full.
    """

    def __init__(
        self,
        target: Target,
        records: Sequence[RequestRecord],
        *,
        concurrency: int | None,
        timeout_s: float,
        data_of: Callable[[int, bool], bytes],
        full: Callable[[], bool],
        refuses: Callable[[int, str], bool],
    ) -> None:
        self.target, self.records, self.concurrency, self.timeout_s = target, records, concurrency, timeout_s
        self.data_of, self.full, self.refuses = data_of, full, refuses
        # How long after its arrival each piece of an answer was read, s; how many the kernel had not stamped.
        self.lags = array("d")
        self.unstamped = 0
        self.zero = 0.0
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._exchanges: dict[Connection, Exchange] = {}
        # By time. Those before `_sent` were sent (or given up); in an open loop those before `_reserved` have had
        # a connection made for them.
        self._order = sorted(range(len(records)), key=lambda at: records[at].scheduled_s)
        self._sent = self._reserved = 0
        self._made: dict[int, Connection | None] = {}
        self._idle: deque[Connection] = deque()
        self._free: deque[tuple[Connection | None, float]] = deque()
        self._due = math.inf
        self._next_check = 0.0
        self._dead_in_a_row = 0
        self._finished: list[Exchange] = []
        self._held = 0
        # When the loop last began to wait, when it had before that, and when the last wait ended.
        self._slept = self._slept_before = self._woke = 0.0

    def run(self) -> None:
        """Send everything, and wait for each answer or for the silence that ends it."""
        try:
            self._open_first()
            self.zero = self._slept = time.perf_counter()
            self._next_check = self.zero + self._check_s
            self._plan()
            while self._exchanges or self._free or self._sent < len(self._order):
                self._act()
                self._poll(min(self._due, self._next_check) - time.perf_counter())
                if (now := time.perf_counter()) >= self._next_check:
                    self._end_silences(now)
                    self._next_check = now + self._check_s
        finally:
            for connection in self._connections.values():
                connection.close()
            self._epoll.close()

    def read(self) -> None:
        """Read the answers kept so far into their records."""
        for exchange in self._finished:
            read_stream(exchange.pieces, exchange.record)
        self._finished.clear()
        self._held = 0

    @property
    def _check_s(self) -> float:
        return min(CHECK_S, self.timeout_s / 10)

    # What is due.

    def _open_first(self) -> None:
        """Make the connections that the start needs, before the clock starts."""
        if self.concurrency is not None:
            while len(self._free) < min(self.concurrency, len(self.records)):
                self._free.append((self._connect(), 0.0))
                if self._free[-1][0] is None:
                    break
            self._free.extend([(None, 0.0)] * (min(self.concurrency, len(self.records)) - len(self._free)))
        else:
            self._reserve(AHEAD_S)
        until = time.perf_counter() + min(OPENING_S, self.timeout_s)
        while time.perf_counter() < until and not all(each.ready for each in self._connections.values()):
            self._poll(until - time.perf_counter())

    def _connect(self) -> Connection | None:
        """A connection begun, or None if it failed at once: whoever sends will try again and say why."""
        try:
            connection = Connection(self.target)
        except ConnectFailed:
            return None
        self._watch(connection)
        return connection

    def _reserve(self, until_s: float) -> None:
        """Have a connection for each arrival up to `until_s`, seconds since the start."""
        while self._reserved < len(self._order):
            due_s = self.records[self._order[self._reserved]].scheduled_s
            if due_s > until_s:
                break
            connection = None
            while self._idle and connection is None:
                # The one used last: it is the least likely to be closed.
                candidate = self._idle.pop()
                if candidate.open and candidate.used_at + KEEPALIVE_S > self.zero + due_s:
                    connection = candidate
                else:
                    self._drop(candidate)
            self._made[self._order[self._reserved]] = connection or self._connect()
            self._reserved += 1

    def _plan(self) -> None:
        """When an open loop must act next."""
        self._due = math.inf
        if self.concurrency is None and self._sent < len(self._order):
            self._due = self.zero + self.records[self._order[self._sent]].scheduled_s
            if self._reserved < len(self._order):
                ahead = self.records[self._order[self._reserved]].scheduled_s - AHEAD_S
                self._due = min(self._due, self.zero + ahead)

    def _act(self) -> None:
        """Send what is due, and fill free slots."""
        while (now := time.perf_counter()) >= self._due:
            while self._sent < len(self._order):
                at = self._order[self._sent]
                if self.records[at].scheduled_s > now - self.zero:
                    break
                self._sent += 1
                self._begin(at, self._made.pop(at, None))
            self._reserve(now - self.zero + AHEAD_S)
            self._plan()
        while self._free:
            connection, free_s = self._free.popleft()
            if self._sent == len(self._order):
                if connection is not None:
                    self._drop(connection)
                continue
            at = self._order[self._sent]
            self._sent += 1
            self.records[at].scheduled_s = free_s
            self._begin(at, connection)

    # One request.

    def _begin(self, at: int, connection: Connection | None) -> None:
        record = self.records[at]
        if self._dead_in_a_row >= max(GIVE_UP_AFTER, self.concurrency or 0):
            record.error = "not sent: the engine had stopped answering"
            if self.concurrency is not None:
                self._free.append((connection, record.scheduled_s))
            return
        now = time.perf_counter()
        exchange = Exchange(at, record, self.full(), now)
        self._stamp_sent(exchange, now)
        self._carry(exchange, connection)

    def _stamp_sent(self, exchange: Exchange, now: float) -> None:
        record = exchange.record
        record.sent_s = now - self.zero
        record.origin_s = record.scheduled_s if self.concurrency is None else record.sent_s

    def _carry(self, exchange: Exchange, connection: Connection | None) -> None:
        """Send on `connection`, or on a new one as soon as it is there."""
        if connection is None or not connection.open:
            try:
                connection = Connection(self.target)
            except ConnectFailed as error:
                self._fail(exchange, None, "refused", str(error))
                return
            self._watch(connection)
        self._exchanges[connection] = exchange
        exchange.waited_for_connection = not connection.ready
        if connection.ready:
            self._transmit(connection, exchange)

    def _transmit(self, connection: Connection, exchange: Exchange) -> None:
        data = self.data_of(exchange.at, exchange.full)
        exchange.quiet_since = now = time.perf_counter()
        if self.concurrency is not None:
            self._stamp_sent(exchange, now)
            if exchange.waited_for_connection:
                # A server that ends its connections makes its clients wait; they are not late for that.
                exchange.record.scheduled_s = now - self.zero
        try:
            connection.send(data)
        except OSError as error:
            self._fail(exchange, connection, "broken_stream", f"{type(error).__name__}: {error}")
            return
        self._watch(connection)

    def _complete(self, connection: Connection, exchange: Exchange) -> None:
        """The answer is whole."""
        answer, record = exchange.answer, exchange.record
        del self._exchanges[connection]
        if not answer.keep or connection.waits_to_write:
            self._drop(connection)
        record.end_s = exchange.last_at - self.zero
        self._dead_in_a_row = 0
        if answer.status == 200:
            self._finished.append(exchange)
            self._held += sum(len(piece.data) for piece in exchange.pieces)
            if self._held > HELD_BYTES:
                self.read()
        else:
            text = b"".join(piece.data for piece in exchange.pieces).decode(errors="replace")
            if exchange.full and self.refuses(answer.status or 0, text):
                again = Exchange(exchange.at, record, False, time.perf_counter())
                self._stamp_sent(again, again.quiet_since)
                self._carry(again, connection)
                return
            place = answer.headers.get("location")
            record.status = "http_error"
            record.error = f"HTTP {answer.status}: {f'moved to {place}. ' if place else ''}{text}"[:500]
        self._release(connection, record.end_s)

    def _fail(self, exchange: Exchange, connection: Connection | None, status: str, error: str) -> None:
        """The answer will not come, or not whole."""
        record = exchange.record
        record.status, record.error, record.end_s = status, error[:500], time.perf_counter() - self.zero
        self._dead_in_a_row = self._dead_in_a_row + 1 if status in ("timeout", "refused") else 0
        if exchange.answer.status == 200:
            self._finished.append(exchange)
        if connection is not None:
            self._exchanges.pop(connection, None)
            self._drop(connection)
        self._release(None, record.end_s)

    def _release(self, connection: Connection | None, free_s: float) -> None:
        if connection is not None and not connection.open:
            connection = None
        if self.concurrency is not None:
            self._free.append((connection, free_s))
        elif connection is not None:
            connection.used_at = time.perf_counter()
            self._idle.append(connection)

    def _end_silences(self, now: float) -> None:
        for connection, exchange in list(self._exchanges.items()):
            if now - exchange.quiet_since > self.timeout_s:
                self._fail(exchange, connection, "timeout", f"silent for {self.timeout_s:g} s")

    # Readiness.

    def _watch(self, connection: Connection) -> None:
        """Have epoll tell of what the connection waits for."""
        wanted = select.EPOLLIN | (select.EPOLLOUT if connection.waits_to_write else 0)
        number = connection.sock.fileno()
        if self._connections.get(number) is not connection:
            self._connections[number] = connection
            self._epoll.register(number, wanted)
        elif connection.watched != wanted:
            self._epoll.modify(number, wanted)
        connection.watched = wanted

    def _drop(self, connection: Connection) -> None:
        if connection.open:
            del self._connections[connection.sock.fileno()]
            connection.close()

    def _poll(self, wait: float) -> None:
        """Wait so long for something to happen, and deal with all of it."""
        self._slept_before, self._slept = self._slept, time.perf_counter()
        # Never longer than a tick, whatever is due: only a wait that was to be short shows how late it ended.
        events = self._epoll.poll(TICK_S / 2 if wait >= TICK_S else 0.0)
        self._woke = time.perf_counter()
        if not events and 0 < (left := self._slept + wait - self._woke) < TICK_S:
            time.sleep(left)
        for number, mask in events:
            if (connection := self._connections.get(number)) is not None:
                self._ready(connection, mask)
            if self.zero and (self._free or time.perf_counter() >= self._due):
                self._act()

    def _ready(self, connection: Connection, mask: int) -> None:
        exchange = self._exchanges.get(connection)
        if not connection.ready:
            self._go_on_connecting(connection, exchange)
            return
        try:
            if mask & select.EPOLLOUT:
                connection.flush()
                self._watch(connection)
            arrival = connection.receive() if mask & ~select.EPOLLOUT else None
        except OSError as error:
            arrival = None
            if exchange is not None:
                self._fail(exchange, connection, "broken_stream", f"{type(error).__name__}: {error}")
            else:
                self._drop(connection)
        if arrival is None:
            return
        if exchange is None:
            # Nothing was asked: the server ends a connection that nobody uses.
            self._drop(connection)
        else:
            self._take(connection, exchange, arrival)

    def _go_on_connecting(self, connection: Connection, exchange: Exchange | None) -> None:
        number = connection.sock.fileno()
        try:
            connection.proceed()
        except ConnectFailed as error:
            self._connections.pop(number, None)
            connection.close()
            if exchange is not None:
                self._fail(exchange, connection, "refused", str(error))
            return
        if connection.attempt_changed:
            self._connections.pop(number, None)
            connection.attempt_changed = False
        self._watch(connection)
        if connection.ready and exchange is not None:
            self._transmit(connection, exchange)

    def _take(self, connection: Connection, exchange: Exchange, arrival: Arrival) -> None:
        answer = exchange.answer
        exchange.quiet_since = arrival.read_at
        exchange.last_at = at = max(arrival.at, exchange.last_at)
        if not arrival.data:
            if answer.end():
                self._complete(connection, exchange)
            else:
                said = "in the middle of the answer" if answer.begun else "without an answer"
                self._fail(exchange, connection, "broken_stream", f"the connection ended {said}")
            return
        lag = arrival.read_at - at
        # Whatever this read holds came after the last look at which there was nothing: the start of this wait, if it
        # waited and ended in time. Otherwise the start of the one before, since this one's data may be as old as that.
        in_time = arrival.at >= self._slept and AT_ONCE_S < self._woke - self._slept < 2 * TICK_S
        slack = arrival.read_at - (self._slept if in_time else self._slept_before)
        if not arrival.stamped:
            self.unstamped += 1
            lag = arrival.read_at - min(self._woke, self._slept + TICK_S)
        self.lags.append(lag)
        try:
            body = answer.feed(arrival.data)
        except BadAnswer as error:
            self._fail(exchange, connection, "broken_stream", str(error))
            return
        if body:
            exchange.pieces.append(Piece(at - self.zero, body, slack))
        if answer.done:
            self._complete(connection, exchange)
