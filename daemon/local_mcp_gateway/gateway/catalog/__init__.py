"""The lists that servers offer, and how a profile merges, names and approves them. Pure."""

from local_mcp_gateway.gateway.catalog.header_params import (
    HEADER_PREFIX,
    HeaderParam,
    header_fault,
    header_params_of,
    headers_for,
)
from local_mcp_gateway.gateway.catalog.item_schema import validate
from local_mcp_gateway.gateway.catalog.merge import (
    KEYS,
    LISTS,
    MEMBERS,
    Item,
    Lists,
    NameTable,
    ProfileView,
    Reader,
    Route,
    body_of,
    hash_of,
    items_of,
    merge_lists,
    names_to_keep,
    read_names,
    remembered,
    routes_of,
)
from local_mcp_gateway.gateway.catalog.server_catalog import (
    HELD,
    ServerCatalog,
    differs,
    held_message,
)
from local_mcp_gateway.gateway.catalog.uris import clashing, uri_prefix, with_shown_uris

__all__ = [
    "HEADER_PREFIX",
    "HELD",
    "KEYS",
    "LISTS",
    "MEMBERS",
    "HeaderParam",
    "Item",
    "Lists",
    "NameTable",
    "ProfileView",
    "Reader",
    "Route",
    "ServerCatalog",
    "body_of",
    "clashing",
    "differs",
    "hash_of",
    "header_fault",
    "header_params_of",
    "headers_for",
    "held_message",
    "items_of",
    "merge_lists",
    "names_to_keep",
    "read_names",
    "remembered",
    "routes_of",
    "uri_prefix",
    "validate",
    "with_shown_uris",
]
