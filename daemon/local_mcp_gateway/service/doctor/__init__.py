"""`doctor`: check this machine and installation, and say how to fix what is wrong."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.service.doctor.checks import examine
else:
    __getattr__ = exports(__name__, checks=("examine",))

__all__ = ["examine"]
