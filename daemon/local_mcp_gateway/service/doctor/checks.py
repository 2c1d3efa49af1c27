"""The checks of `doctor`: what is wrong with this machine or installation, and how to fix it.

Each check is a function from the settings to findings. None takes the database's lock, and none writes
anything but a temporary file. A check that itself fails becomes a finding.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.service.doctor import database, machine, upstreams
from local_mcp_gateway.service.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from local_mcp_gateway.config import Settings

_CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    machine.python, machine.engine, machine.folder, machine.filesystem, machine.room,
    database.lock, database.database, database.backups, database.copies, database.secrets,
    machine.clock, machine.port, machine.tls, machine.service,
    upstreams.upstreams,
)  # fmt: skip


def examine(
    settings: Settings,
    serving: GatewayError | None = None,
    servers: Mapping[str, Mapping[str, str | None]] = MappingProxyType({}),
    clients: Sequence[str] = (),
    replica: Mapping[str, Any] | None = None,
) -> Iterator[Finding]:
    """Yield the findings of every check, in the order in which a start would meet them.

    `serving`, `servers` and `replica` are what a running gateway reports about itself, its servers and its
    replica; `clients` are the MCP clients on this machine that point to it.
    """
    if serving is not None:
        yield Finding("gateway", "problem", serving.message, serving.hint)
    for check in _CHECKS:
        name = check.__name__
        try:
            yield from check(settings)
        except GatewayError as error:
            yield Finding(name, "problem", error.message, error.hint)
        except OSError as error:
            yield Finding(name, "problem", f"It cannot be checked: {error}.")
    yield from database.replica(settings, replica)
    yield upstreams.clients(clients)
    yield from upstreams.running(servers)
