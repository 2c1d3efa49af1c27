"""The commented default file, made from the list of keys."""

from __future__ import annotations

import json
from collections.abc import Mapping

from local_mcp_gateway.config.settings import Settings, keys


def commented_defaults() -> str:
    """Return `config/gateway.toml`: every key with its sentence, its variable and its default."""
    defaults = Settings()
    lines = [
        "# Local MCP Gateway: every setting, its unit and its default.",
        "# Remove the `#` before a key to change it. Later wins: this file, LMG_SECTION__KEY, options.",
    ]
    section = ""
    for key in keys():
        if key.section != section:
            section = key.section
            lines += ["", f"# {type(getattr(defaults, section)).__doc__}", f"[{section}]"]
        words = " | ".join(f'"{choice}"' for choice in key.choices)
        lines.append(f"# {key.help}" + (f" One of {words}." if words else ""))
        lines.append(f"# {key.name} = {_as_toml(key.default)}")
    return "\n".join(lines) + "\n"


def _as_toml(value: object) -> str:
    """Write a value: TOML's strings, numbers and arrays are JSON's."""
    return "{}" if isinstance(value, Mapping) else json.dumps(value)
