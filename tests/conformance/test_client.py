"""The official suite's scenarios of authorization, with the gateway as the client that signs in."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tests.conformance.suite import run_client
from tests.gateway.support import REPOSITORY

CLIENT = "tests.conformance.client"
AUTH = "auth/"
REVISIONS = {"2025-03-26": 2, "2025-06-18": 3, "2025-11-25": 14, "2026-07-28": 25}
"""Revision → how many scenarios of authorization the suite has for it; for 2024-11-05 it has none."""
CANNOT_PASS = {
    "auth/client-credentials-jwt": "the client's own key instead of a secret (private_key_jwt)",
    "auth/enterprise-managed-authorization": "tokens from a company's identity provider",
    "auth/dpop": "tokens that are bound to a key (RFC 9449)",
    "auth/dpop-nonce": "tokens that are bound to a key (RFC 9449)",
    "auth/wif-jwt-bearer": "the identity of a workload instead of a client (RFC 7523)",
}
"""Extensions that the gateway does not have, and what each needs; no revision requires them."""


async def failing(suite: tuple[str, ...], tmp_path: Path, *chosen: str) -> tuple[int, set[str]]:
    """Run the scenarios of authorization; return how many there are, and which fail."""
    script, out = tmp_path / "client.sh", tmp_path / "out"
    where, python = shlex.quote(str(REPOSITORY)), shlex.quote(sys.executable)
    script.write_text(
        f"#!/bin/sh\ncase $MCP_CONFORMANCE_SCENARIO in {AUTH}*) ;; *) exit 0 ;; esac\n"
        f'cd {where} && exec {python} -m {CLIENT} "$@"\n'
    )
    script.chmod(0o755)
    checks = await run_client(suite, str(script), out, *chosen)
    names = {f"{AUTH}{check.scenario}" for check in checks if (out / AUTH).exists()}
    ran = {f"{AUTH}{folder.name}" for folder in (out / AUTH).iterdir()}
    ours = {name for name in names if any(folder.startswith(f"{name}-2") for folder in ran)}
    failed = {f"{AUTH}{check.scenario}" for check, status in checks.items() if status == "FAILURE"}
    return len(ran), ours & failed


@pytest.mark.parametrize("revision", REVISIONS)
async def test_the_gateway_signs_in_as_each_revision_wants_it(
    tmp_path: Path, suite: tuple[str, ...], revision: str
) -> None:
    chosen = ("--spec-version", revision, "--suite", "all")
    assert await failing(suite, tmp_path, *chosen) == (REVISIONS[revision], set())


async def test_the_extensions_that_the_gateway_lacks_are_these(
    tmp_path: Path, suite: tuple[str, ...]
) -> None:
    count, failed = await failing(suite, tmp_path, "--suite", "extensions")
    assert failed == CANNOT_PASS.keys()
    assert count == len(CANNOT_PASS) + 1, "client-credentials-basic passes"
