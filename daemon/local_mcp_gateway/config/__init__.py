"""The configuration: read once, frozen afterwards. `settings` lists the keys, `load` reads the sources."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.config.load import (
        check_text,
        config_files,
        load_settings,
        parse_value,
        prepare_data_folder,
    )
    from local_mcp_gateway.config.settings import (
        DEFAULT_KEY_FILE,
        ENVIRONMENT_PREFIX,
        Key,
        ReplicaSettings,
        Settings,
        list_keys,
    )
else:
    __getattr__ = exports(
        __name__,
        load=(
            "check_text",
            "config_files",
            "load_settings",
            "parse_value",
            "prepare_data_folder",
        ),
        settings=(
            "DEFAULT_KEY_FILE",
            "ENVIRONMENT_PREFIX",
            "Key",
            "ReplicaSettings",
            "Settings",
            "list_keys",
        ),
    )

__all__ = [
    "DEFAULT_KEY_FILE",
    "ENVIRONMENT_PREFIX",
    "Key",
    "ReplicaSettings",
    "Settings",
    "check_text",
    "config_files",
    "list_keys",
    "load_settings",
    "parse_value",
    "prepare_data_folder",
]
