"""The service: one process that guards the database and serves the gateway."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.service.copies import copy_now, fetched_copy, make_key, store_of
    from local_mcp_gateway.service.doctor import examine
    from local_mcp_gateway.service.exit_status import reported_error, root_cause
    from local_mcp_gateway.service.options import (
        ServeOptions,
        gateway_policy,
        guard_policy,
        register_sql,
    )
    from local_mcp_gateway.service.run import serve
    from local_mcp_gateway.service.studio import serve_database
else:
    __getattr__ = exports(
        __name__,
        copies=("copy_now", "fetched_copy", "make_key", "store_of"),
        doctor=("examine",),
        exit_status=("reported_error", "root_cause"),
        options=("ServeOptions", "gateway_policy", "guard_policy", "register_sql"),
        run=("serve",),
        studio=("serve_database",),
    )

__all__ = [
    "ServeOptions",
    "copy_now",
    "examine",
    "fetched_copy",
    "gateway_policy",
    "guard_policy",
    "make_key",
    "register_sql",
    "reported_error",
    "root_cause",
    "serve",
    "serve_database",
    "store_of",
]
