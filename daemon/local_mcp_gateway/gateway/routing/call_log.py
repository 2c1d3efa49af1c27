"""The call log: buffered in memory, written to the database in batches, off the message path.

`/metrics` shows what it counts.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.database import ConnectionPool, Error
from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.gateway.protocol import MALFORMED, Answer, decode_any, error_code, member
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.log import SHORT, Emit, beginning, redact_short, redact_text, redact_value
from local_mcp_gateway.store import CallRecord, save_calls

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.gateway.routing.handlers import ClientRequest

MOST_WAITING: Final = 10_000
COUNTED: Final = frozenset(
    {
        "completion/complete",
        "initialize",
        "logging/setLevel",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/subscribe",
        "resources/templates/list",
        "resources/unsubscribe",
        "server/discover",
        "tasks/cancel",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tasks/update",
        "tools/call",
        "tools/list",
    }
)
"""Methods that are counted by name; clients could make up any number of others."""
BATCH_PAUSE_S: Final = 1.0
SHOWN: Final = 256
"""How many characters of a name that a client sent are logged and stored."""
LONGEST_ERROR: Final = 500
LONGEST_PAYLOAD: Final = 65_536
"""How many characters of arguments or of a result are kept."""
LARGEST_PAYLOAD: Final = 4 * LONGEST_PAYLOAD
MOST_WAITING_BYTES: Final = 16 * 1024 * 1024
"""How many bytes of payloads may wait for the database."""


def payload(body: bytes) -> str:
    """Return arguments or a result for the call log: secrets redacted, length limited.

    A payload too large to search for secrets quickly is not kept at all: a part of it would show values
    without the names that mark them as secret.
    """
    if len(body) > LARGEST_PAYLOAD:
        return f"[{len(body)} bytes: too much to be kept]"
    try:
        text = json.dumps(redact_value(parse_json(body)), ensure_ascii=False)
    except (ValueError, RecursionError):  # read, but nested too deep to be searched field by field
        text = redact_text(body.decode("utf-8", "replace"))
    return text[:LONGEST_PAYLOAD]


def target_text(target: str | None) -> str | None:
    """Return the tool, prompt or URI of a call: truncated and redacted."""
    if not target:
        return target
    return redact_short(target) if len(target) <= SHORT else beginning(target, SHOWN)


def error_text(answer: Answer) -> str:
    """Return code and message of an error; a server's message is redacted, too."""
    try:
        message = decode_any(member(answer.body, "message") or b'""')
    except MALFORMED:
        message = ""
    text = message if isinstance(message, str) else ""
    return f"{error_code(answer)} {beginning(text, LONGEST_ERROR)}"


class CallLog:
    """Takes records without waiting; when the database is slow, the oldest unwritten ones are dropped."""

    def __init__(self, database: ConnectionPool, emit: Emit, options: GatewayOptions) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """How many requests have ended, by server, method and status."""
        self.microseconds: Counter[tuple[str, str]] = Counter()
        """How long they took together, by server and method."""
        self._database = database
        self._emit = emit
        self._options = options
        self._waiting: deque[CallRecord] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._writing = asyncio.Lock()

    def record(self, request: ClientRequest, answer: Answer | None, began_ns: int) -> None:
        """Record and report one finished request, with or without a response."""
        duration_us = (time.perf_counter_ns() - began_ns) // 1000
        status, error = "cancelled", None
        if answer is not None:
            status = "error" if answer.failed else "ok"
            error = error_text(answer) if answer.failed else None
        method, target = request.method[:SHOWN], target_text(request.target)
        shown = self._options.log_payloads
        holder = None if request.token is None else request.token.name
        self.add(
            CallRecord(
                now_ms(),
                request.profile,
                request.server,
                method,
                target,
                status,
                error,
                duration_us,
                len(request.params),
                0 if answer is None else answer.relayed_bytes or len(answer.body),
                payload(request.params) if shown else None,
                payload(bytes(answer.body)) if shown and answer else None,
                holder,
                request.client,
            )
        )
        self._emit(
            "call.finished",
            method=method,
            profile=request.profile,
            server=request.server,
            target=target,
            status=status,
            **({} if holder is None else {"holder": holder}),
            duration_ms=duration_us / 1000,
        )

    def add(self, call: CallRecord) -> None:
        """Add one finished call."""
        server = call.server or ""
        method = call.method if call.method in COUNTED else "other"
        self.counts[server, method, call.status] += 1
        self.microseconds[server, method] += call.duration_us
        self._waiting.append(call)
        self._waiting_bytes += _size(call)
        while self._waiting_bytes > MOST_WAITING_BYTES or len(self._waiting) > MOST_WAITING:
            self._waiting_bytes -= _size(self._waiting.popleft())
        self._arrived.set()

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(BATCH_PAUSE_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what is buffered. A database error costs these records, not the calls."""
        async with self._writing:  # also until a batch is written that was taken before
            self._arrived.clear()
            batch = tuple(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            if not batch:
                return
            try:
                await save_calls(self._database, batch, keep=self._options.keep_calls)
            except Error as error:
                self._emit("calls.save_failed", calls=len(batch), message=str(error))


def _size(call: CallRecord) -> int:
    return len(call.request or "") + len(call.response or "")
