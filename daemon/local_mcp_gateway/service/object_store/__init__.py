"""The places off this machine, by URL."""

from local_mcp_gateway.service.object_store.places import (
    KINDS,
    Access,
    Bucket,
    SshFolder,
    open_place,
    place_of,
    require_folder,
    require_keys,
)

__all__ = [
    "KINDS",
    "Access",
    "Bucket",
    "SshFolder",
    "open_place",
    "place_of",
    "require_folder",
    "require_keys",
]
