"""What `/health/ready` tells whoever asks. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from local_mcp_gateway.log.redact import redact

if TYPE_CHECKING:
    from collections.abc import Mapping


def ready(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status without the lines that servers wrote, and with what looks secret hidden."""
    servers = {
        name: redact({key: value for key, value in server.items() if key != "wrote"})
        for name, server in status["servers"].items()
    }
    return {"status": "ready", **status, "servers": servers}
