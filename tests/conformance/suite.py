"""The official conformance suite: found or fetched, run against a URL, and its checks as a value."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGE: Final = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
OLDEST_NODE: Final = 22
REVISIONS: Final = {
    "2025-06-18": ("--spec-version", "2025-06-18"),
    "2025-11-25": ("--requirements", "2025-11-25"),
    "2026-07-28": ("--requirements", "2026-07-28"),
}
"""Revision → what chooses its scenarios. The older ones have none that is not among these."""
JUDGED: Final = frozenset({"SUCCESS", "FAILURE", "WARNING"})
_STAMP: Final = re.compile(r"-\d{4}-\d\d-\d\dT.*")

Checks = dict["Check", str]


class Missing(Exception):
    """The suite cannot be run here, and why."""


@dataclass(frozen=True, order=True)
class Check:
    """One check of a scenario; `number` tells apart those of the same name."""

    scenario: str
    name: str
    number: int


def find_node() -> str:
    """Return a Node.js that is new enough: `CONFORMANCE_NODE`, or the one in PATH. Raises Missing."""
    node = os.environ.get("CONFORMANCE_NODE") or shutil.which("node")
    if node is None:
        raise Missing(f"needs Node.js {OLDEST_NODE} or later")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)", said)
    if version is None or int(version[1]) < OLDEST_NODE:
        raise Missing(f"needs Node.js {OLDEST_NODE} or later, found {said.strip() or 'none'}")
    return node


def installed(folder: Path) -> tuple[str, ...]:
    """Return the command of the suite, fetched once by npm into `folder`. Raises Missing."""
    node = find_node()
    script = folder / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    if not (folder / "complete").exists():
        if (npm := shutil.which("npm")) is None:
            raise Missing("needs npm")
        (folder / "package.json").write_text('{"private": true}')
        command = [npm, "install", "--silent", "--no-audit", "--no-fund", PACKAGE]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            raise Missing(f"npm install: {(done.stderr or done.stdout).strip()[-300:]}")
        (folder / "complete").touch()
    return node, str(script)


async def run(suite: tuple[str, ...], url: str, out: Path, *chosen: str) -> Checks:
    """Run scenarios against a server; what the suite thinks of them as a whole is not asked."""
    command = (*suite, "server", "--url", url, *chosen, "--output-dir", str(out))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    return checks_in(out)


def checks_in(out: Path) -> Checks:
    """Return the checks that a run has written."""
    found: Checks = {}
    for file in out.rglob("checks.json"):
        scenario = _STAMP.sub("", file.parent.name).removeprefix("server-")
        seen: Counter[str] = Counter()
        for check in json.loads(file.read_text()):
            name = check["id"]
            found[Check(scenario, name, seen[name])] = check["status"]
            seen[name] += 1
    return {check: status for check, status in found.items() if status in JUDGED}


async def run_client(suite: tuple[str, ...], command: str, out: Path, *chosen: str) -> Checks:
    """Run scenarios whose server the suite plays, against a client that `command` starts."""
    arguments = ("client", "--command", command, *chosen, "--timeout", "60000")
    process = await asyncio.create_subprocess_exec(
        *suite,
        *arguments,
        "--output-dir",
        str(out),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    return checks_in(out)


def differences(direct: Checks, through: Checks) -> dict[Check, tuple[str, str]]:
    """Return every check that ends otherwise through the gateway: as it ended directly, and there."""
    pairs = {
        check: (direct.get(check, "none"), through.get(check, "none"))
        for check in direct.keys() | through.keys()
    }
    return {check: pair for check, pair in sorted(pairs.items()) if pair[0] != pair[1]}


def passed(checks: Checks) -> int:
    """Return how many checks passed."""
    return sum(status == "SUCCESS" for status in checks.values())
