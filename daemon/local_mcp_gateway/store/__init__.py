"""The gateway's own rows: servers, profiles, caches and the log of calls."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.store.cache import (
        load_approved,
        load_catalogs,
        load_names,
        save_calls,
        save_catalogs,
        save_names,
    )
    from local_mcp_gateway.store.encryption import (
        KEY_BYTES,
        SEALED_COLUMNS,
        SealingKey,
        StoredValue,
        entries,
        has_sealed,
        open_value,
        opened_server,
        seal,
        with_values,
    )
    from local_mcp_gateway.store.model import (
        COLUMNS,
        NO_PROXY,
        CallRecord,
        CatalogEntry,
        CatalogKind,
        Member,
        Prefix,
        ProfileDefinition,
        ServerDefinition,
        ServerKind,
        Share,
        ToolSetting,
        fit_name,
    )
    from local_mcp_gateway.store.original import TakenOver, take_over
    from local_mcp_gateway.store.queries import load_definitions
    from local_mcp_gateway.store.variables import expand_variables, find_variables
else:
    __getattr__ = exports(
        __name__,
        cache=(
            "load_approved",
            "load_catalogs",
            "load_names",
            "save_calls",
            "save_catalogs",
            "save_names",
        ),
        encryption=(
            "KEY_BYTES",
            "SEALED_COLUMNS",
            "SealingKey",
            "StoredValue",
            "entries",
            "has_sealed",
            "open_value",
            "opened_server",
            "seal",
            "with_values",
        ),
        model=(
            "COLUMNS",
            "NO_PROXY",
            "CallRecord",
            "CatalogEntry",
            "CatalogKind",
            "Member",
            "Prefix",
            "ProfileDefinition",
            "ServerDefinition",
            "ServerKind",
            "Share",
            "ToolSetting",
            "fit_name",
        ),
        original=("TakenOver", "take_over"),
        queries=("load_definitions",),
        variables=("expand_variables", "find_variables"),
    )

__all__ = [
    "COLUMNS",
    "KEY_BYTES",
    "NO_PROXY",
    "SEALED_COLUMNS",
    "CallRecord",
    "CatalogEntry",
    "CatalogKind",
    "Member",
    "Prefix",
    "ProfileDefinition",
    "SealingKey",
    "ServerDefinition",
    "ServerKind",
    "Share",
    "StoredValue",
    "TakenOver",
    "ToolSetting",
    "entries",
    "expand_variables",
    "find_variables",
    "fit_name",
    "has_sealed",
    "load_approved",
    "load_catalogs",
    "load_definitions",
    "load_names",
    "open_value",
    "opened_server",
    "save_calls",
    "save_catalogs",
    "save_names",
    "seal",
    "take_over",
    "with_values",
]
