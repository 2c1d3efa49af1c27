"""Administer servers and profiles: over the control socket, over REST and offline."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.service.admin.audit import settings_entry
    from local_mcp_gateway.service.admin.client_files import (
        files_of_clients,
        parse_client_file,
        read_entries,
    )
    from local_mcp_gateway.service.admin.connect import (
        CLIENTS,
        Client,
        client_entries,
        client_lines,
        connected,
        file_of,
        greet,
        plan_connect,
        plan_undo,
    )
    from local_mcp_gateway.service.admin.control_socket import NoDaemon, ask, relayed
    from local_mcp_gateway.service.admin.dispatch import READ_ONLY
    from local_mcp_gateway.service.admin.own_address import OwnAddress
    from local_mcp_gateway.service.admin.registry_file import (
        RegistryServer,
        ask_registry,
        is_registry_id,
        read_registry_file,
        status_in_registry,
    )
    from local_mcp_gateway.service.admin.rest import read_token, with_rest
    from local_mcp_gateway.service.admin.servers import server_as_json
    from local_mcp_gateway.service.admin.tokens import has_tokens, needs_token
else:
    __getattr__ = exports(
        __name__,
        audit=("settings_entry",),
        client_files=("files_of_clients", "parse_client_file", "read_entries"),
        connect=(
            "CLIENTS",
            "Client",
            "client_entries",
            "client_lines",
            "connected",
            "file_of",
            "greet",
            "plan_connect",
            "plan_undo",
        ),
        control_socket=("NoDaemon", "ask", "relayed"),
        dispatch=("READ_ONLY",),
        own_address=("OwnAddress",),
        registry_file=(
            "RegistryServer",
            "ask_registry",
            "is_registry_id",
            "read_registry_file",
            "status_in_registry",
        ),
        rest=("read_token", "with_rest"),
        servers=("server_as_json",),
        tokens=("has_tokens", "needs_token"),
    )

__all__ = [
    "CLIENTS",
    "READ_ONLY",
    "Client",
    "NoDaemon",
    "OwnAddress",
    "RegistryServer",
    "ask",
    "ask_registry",
    "client_entries",
    "client_lines",
    "connected",
    "file_of",
    "files_of_clients",
    "greet",
    "has_tokens",
    "is_registry_id",
    "needs_token",
    "parse_client_file",
    "plan_connect",
    "plan_undo",
    "read_entries",
    "read_registry_file",
    "read_token",
    "relayed",
    "server_as_json",
    "settings_entry",
    "status_in_registry",
    "with_rest",
]
