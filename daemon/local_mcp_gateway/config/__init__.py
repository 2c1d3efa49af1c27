"""The configuration: read once, frozen afterwards. `settings` lists the keys, `load` reads the sources."""

from local_mcp_gateway.config.load import config_files, load
from local_mcp_gateway.config.settings import Key, Settings, keys

__all__ = ["Key", "Settings", "config_files", "keys", "load"]
