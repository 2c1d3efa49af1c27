"""See and touch the gateway, its migrations and its data in a browser.

Nothing of it is imported before the first page is asked for.
"""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.studio.app import Studio
    from local_mcp_gateway.studio.diagram import draw_database
    from local_mcp_gateway.studio.sessions import Door
    from local_mcp_gateway.studio.visit import Ask, Powers
else:
    __getattr__ = exports(
        __name__,
        app=("Studio",),
        diagram=("draw_database",),
        sessions=("Door",),
        visit=("Ask", "Powers"),
    )

__all__ = ["Ask", "Door", "Powers", "Studio", "draw_database"]
