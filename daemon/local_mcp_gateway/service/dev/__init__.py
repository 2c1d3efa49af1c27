"""Dev mode: a supervisor that restarts the worker, and the worker that applies saved migrations."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.service.dev.supervisor import Supervisor, end_with
    from local_mcp_gateway.service.dev.worker import HotApply, saves_of
else:
    __getattr__ = exports(
        __name__,
        supervisor=("Supervisor", "end_with"),
        worker=("HotApply", "saves_of"),
    )

__all__ = ["HotApply", "Supervisor", "end_with", "saves_of"]
