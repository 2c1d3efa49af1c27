"""A place with a token in it: what the tests of the secrets share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.harness import REPOSITORY, Place

SECRET = "correct-horse-battery-staple"
PLAIN = (sys.executable, str(REPOSITORY / "tests" / "gateway" / "servers" / "plain.py"))


def key_file(place: Place) -> Path:
    return place.home / ".config" / "local-mcp-gateway.key"


def ran(place: Place, *arguments: str | Path, code: int = 0, **more: Any) -> str:
    done = place.run(*arguments, **more)
    assert done.code == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def add(place: Place, name: str = "github", *options: str) -> None:
    ran(place, "server", "add", name, "--env", f"TOKEN={SECRET}", *options, "--", *PLAIN)


def values(place: Place, server: str = "github") -> dict[str, str]:
    shown = json.loads(ran(place, "server", "show", server, "--secrets", "--json"))
    found: dict[str, str] = {**shown["env"], **shown["headers"]}
    return found


def secrets_finding(place: Place, state: str) -> str:
    found = json.loads(place.run("doctor", "--json").stdout)["findings"]
    said = [item for item in found if item["check"] == "secrets"]
    assert state in {item["state"] for item in said}, said
    return "\n".join(f"{item['message']} {item['hint']}" for item in said)
