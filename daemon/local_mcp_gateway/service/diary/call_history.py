"""The log of calls, read from the database as events of the log, without asking or locking anybody."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from local_mcp_gateway.database.connections import reading
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.service.diary.history import Line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIELDS = (
    "profile, server, method, target, status, error, duration_us, request_bytes, response_bytes,"
    " request, response"
)


def calls_in(database: Path) -> Iterator[Line]:
    """Yield every call that is kept, oldest first; a second or so behind what happens."""
    if not database.exists():
        return
    with reading(database) as reader:
        tables = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'debug_logs'"
        if reader.execute(tables).fetchone() is None:
            raise UsageProblem(
                f"{database} holds no log of calls.", hint="`db migrate` brings it up to date."
            )
        names = FIELDS.replace(" ", "").split(",")
        for created_at, *values in reader.execute(
            f"SELECT created_at, {FIELDS} FROM debug_logs ORDER BY id"
        ):
            fields = {
                name: value for name, value in zip(names, values, strict=True) if value is not None
            }
            fields["duration_ms"] = fields.pop("duration_us") / 1000
            level = "info" if fields["status"] == "ok" else "warning"
            yield Line(
                datetime.fromtimestamp(created_at / 1000, UTC), level, "call.finished", fields
            )
