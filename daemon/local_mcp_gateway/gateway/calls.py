"""The log of calls: gathered in memory, written to the database in batches, off the message path."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.database.serving import Error
from local_mcp_gateway.log.redact import redact, redact_text
from local_mcp_gateway.store.memory import save_calls

if TYPE_CHECKING:
    from local_mcp_gateway.database.serving import Database
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.store.model import CallRecord

MOST_WAITING: Final = 10_000
COUNTED: Final = frozenset(
    {
        "completion/complete",
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
        "tools/call",
        "tools/list",
    }
)
"""Methods that are counted by name; clients could make up any number of others."""
BATCH_PAUSE_S: Final = 1.0
LONGEST_PAYLOAD: Final = 65_536
"""Characters of arguments or of a result that are kept."""


def payload(body: bytes) -> str:
    """Return arguments or a result for the log of calls: secrets hidden, and not without end."""
    try:
        text = json.dumps(redact(json.loads(body)), ensure_ascii=False)
    except ValueError:
        text = redact_text(body[:LONGEST_PAYLOAD].decode("utf-8", "replace"))
    return text[:LONGEST_PAYLOAD]


class CallLog:
    """Takes records without waiting; when the database is slow, the oldest unwritten ones go."""

    def __init__(self, database: Database, emit: Emit, *, keep: int) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.microseconds: Counter[tuple[str, str]] = Counter()
        self._database = database
        self._emit = emit
        self._keep = keep
        self._waiting: deque[CallRecord] = deque(maxlen=MOST_WAITING)
        self._arrived = asyncio.Event()

    def add(self, call: CallRecord) -> None:
        """Take one finished call."""
        server = call.server or ""
        method = call.method if call.method in COUNTED else "other"
        self.counts[server, method, call.status] += 1
        self.microseconds[server, method] += call.duration_us
        self._waiting.append(call)
        self._arrived.set()

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(BATCH_PAUSE_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits. A database that refuses costs these records, not the calls."""
        self._arrived.clear()
        batch = tuple(self._waiting)
        self._waiting.clear()
        if not batch:
            return
        try:
            await save_calls(self._database, batch, keep=self._keep)
        except Error as error:
            self._emit("calls.unsaved", calls=len(batch), message=str(error))
