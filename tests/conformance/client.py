"""The gateway as the client of a conformance scenario: add its server, sign in, list and call its tools.

The suite runs this with the URL of the scenario's server, and looks at what arrives there. The browser is one
request: the sign-in page of a scenario redirects at once. Ends with 1 where the gateway gives up.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from local_mcp_gateway.database import ConnectionPool
from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.gateway import Gateway
from local_mcp_gateway.service.secrets import Keyring, SealedSignIns
from tests.gateway.support import QUICK, create_database
from tests.issuer import Person

DOCUMENT: Final = "https://conformance-test.local/client-metadata.json"
MOST_LOGINS: Final = 3
LOGIN: Final = "server login"
NAME: Final = "scenario"


class User(Person):
    """Does what a person does with the gateway."""

    _logins = 0

    async def use(self) -> None:
        """Connect twice and call each tool; sign in where the answer says so."""
        await self._do("server.test", name=NAME)
        await self._do("server.test", name=NAME)
        for tool in await self.ask("tools"):
            await self._do("call", tool=tool["name"], arguments={})

    async def _do(self, verb: str, **arguments: Any) -> None:
        while True:
            try:
                await self.ask(verb, **arguments)
            except GatewayError as error:
                if LOGIN not in f"{error.message} {error.hint}" or self._logins == MOST_LOGINS:
                    raise
                self._logins += 1
                await self.log_in(NAME, document=DOCUMENT)
            else:
                return


async def main(url: str) -> int:
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    scenario = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
    client: dict[str, Any] | None = None
    if "client_id" in context:
        grant = "client_credentials" if "client-credentials" in scenario else None
        secret = context.get("client_secret")
        client = {"client_id": context["client_id"], "client_secret": secret, "grant": grant}
    with tempfile.TemporaryDirectory() as folder:
        keyring = Keyring(Path(folder, "key"))
        path = create_database(Path(folder, "gateway.db"))
        async with ConnectionPool.open(path) as database:
            tokens = SealedSignIns(database, keyring)
            opening = Gateway.open(database, QUICK, unseal=keyring.open, sign_ins=tokens)
            async with opening as gateway:
                user = User(database, gateway, keyring)
                await user.ask("server.add", name=NAME, url=url, client=client)
                await gateway.reload()
                try:
                    await user.use()
                except GatewayError as error:
                    print(error.message, error.hint, file=sys.stderr)
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
