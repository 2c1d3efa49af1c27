"""Read a client's YAML file as the values that JSON has, in YAML 1.2's core schema.

YAML 1.1, which PyYAML follows, takes `yes` for true, `2026-11-29` for a date and `012` for ten; the
clients that write these files do not.
"""

from __future__ import annotations

import re
from typing import Any

_CORE = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]+", "-+0123456789"),
)
"""Which plain words are not text: tag, spelling, first characters."""


def parse_yaml(text: str) -> object:
    """Return the document; raises ValueError with the line of a mistake, and for aliases."""
    import yaml  # no other command needs it

    class Core(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's own form

    for tag, spelling, first in _CORE:
        letters = ["" if letter == "\0" else letter for letter in first]
        Core.add_implicit_resolver(
            f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{spelling})$"), letters
        )
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("aliases are not read; write the values out")
        return yaml.load(text, Core)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        at = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{error.problem}{at}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None
