"""A gateway that is signed in to the server of `tests.issuer`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.service.secrets import Keyring
from tests.gateway.support import Running, gateway_of, http
from tests.gateway.using import use
from tests.issuer import Issuer, Person

HOUR_MS = 3_600_000


class Signed:
    """A running gateway, its person and its one server, `far`."""

    def __init__(self, running: Running, keyring: Keyring) -> None:
        self.running = running
        self.person = Person(running.database, running.gateway, keyring)

    async def call(self) -> Any:
        return await use(self.running, "whoami")

    async def refused(self) -> str:
        """Return what a client reads of a call that failed."""
        error = await self.call()
        assert isinstance(error, dict), error
        return str(error["message"])

    async def age(self, left_ms: int) -> None:
        """Leave a token of an hour so many milliseconds of life."""
        now = now_ms()
        async with self.running.database.transaction() as writer:
            await writer.execute(
                "UPDATE oauth_tokens SET expires_at = ?, updated_at = ?",
                (now + left_ms, now + left_ms - HOUR_MS),
            )
        await self.running.gateway.reload()

    async def tokens(self) -> list[tuple[Any, ...]]:
        rows = await self.running.database.fetch_all("SELECT * FROM oauth_tokens")
        return [tuple(row) for row in rows]

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.running.gateway.status()["servers"]["far"]
        return found


@asynccontextmanager
async def opened(tmp_path: Path, issuer: Issuer) -> AsyncIterator[Signed]:
    """Run a gateway before the server, with what was signed in before, if anything."""
    keyring = Keyring(tmp_path / "key")
    async with gateway_of(tmp_path, http("far", issuer.url), keyring=keyring) as running:
        yield Signed(running, keyring)


@asynccontextmanager
async def signed_in(tmp_path: Path, issuer: Issuer, **login: Any) -> AsyncIterator[Signed]:
    async with opened(tmp_path, issuer) as signed:
        await signed.person.log_in("far", **login)
        assert await signed.call()
        yield signed
