"""A server that wants a sign-in and the issuer of its tokens, as one process; and a person who signs in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import aiohttp
from yarl import URL

from local_mcp_gateway.database import ConnectionPool
from local_mcp_gateway.gateway import Gateway
from local_mcp_gateway.service.admin import OwnAddress
from local_mcp_gateway.service.admin.dispatch import Served, perform
from local_mcp_gateway.service.secrets import Keyring
from tests.harness import poll

SCRIPT = Path(__file__).parent / "gateway" / "servers" / "oauth.py"
REDIRECT = "http://127.0.0.1:49999/callback"


@dataclass(frozen=True, slots=True)
class Issuer:
    """The running process; `set` changes how it behaves."""

    url: str

    @property
    def origin(self) -> str:
        return str(URL(self.url).origin())

    def set(self, **change: Any) -> dict[str, Any]:
        body = json.dumps(change).encode()
        with urlopen(Request(f"{self.origin}/control", body), timeout=30) as reply:
            found: dict[str, Any] = json.loads(reply.read())
            return found

    def seen(self, what: str) -> int:
        """Return how many requests of a kind there were since `reset`."""
        return int(self.set()["seen"].get(what, 0))

    def has_seen(self, what: str) -> None:
        """Wait until there was a request of a kind."""
        poll(lambda: self.seen(what) > 0)

    @property
    def last(self) -> dict[str, Any]:
        found: dict[str, Any] = self.set()["last"]
        return found


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    with subprocess.Popen(
        [sys.executable, str(SCRIPT)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            yield Issuer(child.stdout.readline().strip())
        finally:
            child.kill()


def browser(folder: Path) -> dict[str, str]:
    """Return an environment with a browser that follows where the page leads."""
    script = folder / "browser.sh"
    script.write_text(
        "#!/bin/sh\nexec python3 -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1])' \"$1\"\n"
    )
    script.chmod(0o755)
    return {"BROWSER": f"{script} %s"}


class Person:
    """Uses the gateway's verbs, and a browser that makes one request."""

    def __init__(self, database: ConnectionPool, gateway: Gateway | None, keyring: Keyring) -> None:
        self._served = Served("default", OwnAddress("127.0.0.1", 1))
        self._database, self._gateway, self._keyring = database, gateway, keyring

    async def ask(self, verb: str, **arguments: Any) -> Any:
        with_gateway = (self._database, self._gateway, self._served, self._keyring)
        return await perform(*with_gateway, verb, arguments)

    async def begin(self, name: str, **how: Any) -> dict[str, Any]:
        begun = await self.ask("server.login", name=name, **{"redirect_uri": REDIRECT, **how})
        assert isinstance(begun, dict)
        return begun

    async def browse(self, begun: dict[str, Any]) -> dict[str, str]:
        """Open the page; return what the browser is sent back with."""
        url = URL(begun["login"]["url"], encoded=True)
        async with aiohttp.ClientSession() as http, http.get(url, allow_redirects=False) as page:
            return dict(URL(page.headers["Location"]).query)

    async def log_in(self, name: str, **how: Any) -> Any:
        begun = await self.begin(name, **how)
        if "login" not in begun:
            return begun  # credentials of its own
        answer = await self.browse(begun)
        return await self.ask("server.signed_in", name=name, login=begun["login"], answer=answer)
