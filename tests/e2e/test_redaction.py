"""Secrets in every field that a person can fill, searched in everything that the program says or writes."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.cli.sealed import key_file, ran
from tests.gateway.support import SERVERS
from tests.harness import GatewayProcess, Place, new_place
from tests.issuer import Issuer, browser
from tests.studio.conftest import come_in

pytestmark = pytest.mark.e2e

TELLING = (sys.executable, str(SERVERS / "telling.py"))
SEALED = {
    "a variable of a command": "env-Uq7mT2xLp9",
    "a header": "header-Vw3nK8sRd5",
    "the secret of a client": "client-Bz6hY4cQf1",
    "the value of a variable": "variable-Jk2gN7wXe8",
}
"""What is sealed, or never stored: it is not in the files of the database either."""
WRITTEN = {
    "an argument after an option": "option-Mt5rP1vZa3",
    "an argument with its name": "named-Hs9dL4yCb6",
    "the password of a URL in an argument": "dsn-Ga8kW3uTq2",
    "the user of a URL": "user-Xc4pF6jVn7",
    "the password of a URL": "password-Rn1sD5zHm9",
    "the query of a URL": "query-Ey7bQ2gKt4",
    "the password of a proxy": "proxy-Ow6vJ9xMc3",
    "the password of a setting": "setting-Pf8nC3wZk6",
    "the query of a setting": "asked-Lb4mS9tGv2",
}
"""What is part of a command line or URL: it is stored as it is written."""
PLANTED = {**SEALED, **WRITTEN}


class Searched:
    """What was said and written so far."""

    def __init__(self) -> None:
        self._secrets = {name: [value] for name, value in PLANTED.items()}
        self.places = 0
        self.found: list[str] = []

    def add(self, name: str, values: list[str]) -> None:
        assert values, name
        self._secrets.setdefault(name, []).extend(values)

    def look(self, where: str, text: str | bytes, *, only: tuple[str, ...] = ()) -> None:
        self.places += 1
        content = text.encode() if isinstance(text, str) else text
        for name, values in self._secrets.items():
            if (not only or name in only) and any(value.encode() in content for value in values):
                self.found.append(f"{where}: {name}")


class Receiver(BaseHTTPRequestHandler):
    """Takes traces."""

    bodies: list[bytes]

    def do_POST(self) -> None:
        type(self).bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def receiving() -> Iterator[tuple[str, list[bytes]]]:
    bodies: list[bytes] = []
    server = HTTPServer(("127.0.0.1", 0), type("Receives", (Receiver,), {"bodies": bodies}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def plant(place: Place, issuer: Issuer) -> None:
    """Fill every field."""
    near = ("server", "add", "near", "--env", f"A_VALUE={SEALED['a variable of a command']}")
    arguments = (
        *("--api-key", WRITTEN["an argument after an option"]),
        f"--auth-token={WRITTEN['an argument with its name']}",
        f"postgres://me:{WRITTEN['the password of a URL in an argument']}@db.example/x",
        "${PLANTED}",
    )
    ran(place, *near, "--", *TELLING, *arguments)
    user, password = WRITTEN["the user of a URL"], WRITTEN["the password of a URL"]
    query = f"key={WRITTEN['the query of a URL']}"
    ran(
        place, "server", "add", "gone", "--url", f"http://{user}:{password}@127.0.0.1:9/mcp?{query}"
    )
    ran(place, "server", "add", "bare", "--url", f"http://{user}@127.0.0.1:9/mcp?{query}")
    header = f"X-Key={SEALED['a header']}"
    proxy = f"http://me:{WRITTEN['the password of a proxy']}@127.0.0.1:9"
    ran(place, "server", "add", "behind", "--url", "http://far.example/mcp", "--header", header)
    ran(place, "server", "edit", "behind", "--proxy", proxy)
    far = ("server", "add", "far", "--url", f"{issuer.url}?{query}", "--client-id", "me")
    secret = {"LMG_CLIENT_SECRET": SEALED["the secret of a client"]}
    ran(place, *far, "--client-secret", env=secret)


def settings() -> dict[str, str]:
    """Return each setting that is a URL, with all that a URL may have."""
    password, query = WRITTEN["the password of a setting"], WRITTEN["the query of a setting"]
    url = f"https://me:{password}@127.0.0.1:9"
    return {
        "replica.endpoint": url,
        "backup.copy_endpoint": url,
        "upstream.client_metadata_url": f"{url}/x?key={query}",
        "upstream.registry_url": f"{url}/x?key={query}",
    }


READING = [
    *(["server", "show", name] for name in ("near", "gone", "bare", "behind", "far")),
    *(["server", "test", name] for name in ("near", "gone", "bare", "behind", "far")),
    ["server", "list"],
    ["profile", "list"],
    ["profile", "show", "default"],
    ["tools"],
    ["doctor"],
    ["config", "show"],
    ["config", "check"],
    *(["config", "set", key, value] for key, value in settings().items()),
    ["config", "show"],
    ["audit"],
    ["token", "list"],
    ["logs"],
    ["startup"],
    ["db", "status"],
    ["db", "check"],
    ["db", "history"],
    ["db", "backup", "create"],
    ["db", "backup", "list"],
]
OFFLINE = [
    ["server", "show", "near"],
    ["server", "test", "near"],
    ["server", "test", "gone"],
    ["logs"],
]
FAILING = [
    ["call", "tell"],
    ["server", "add", "near", "--", "true"],
    ["server", "edit", "gone", "--url", "ftp://x:${PLANTED}@y"],
    ["call", "no-such-tool"],
    ["server", "import", "io.github.someone/server", "--yes"],
]


def walk_commands(
    place: Place, searched: Searched, env: dict[str, str], commands: list[list[str]]
) -> None:
    """Run what only says something, as text and as JSON, and what fails."""
    for command in commands:
        for more in ([], ["--json"]):
            done = place.run(*command, *more, env=env)
            assert done.code in {0, 1, 3}, (command, done.stderr)
            searched.look(" ".join(command + more), done.stdout + done.stderr)
    for command in FAILING:
        done = place.run(*command, env=env)
        assert done.code, command
        searched.look(" ".join(command), done.stdout + done.stderr)


def walk_pages(place: Place, gateway: GatewayProcess, searched: Searched) -> None:
    """Open every page that is reached from the first."""
    visitor = come_in(gateway.url, ran(place, "open", "--print").strip())
    waiting, seen = ["/studio/"], set[str]()
    while waiting:
        path = waiting.pop()
        reply = visitor.get(path)
        searched.look(path, reply.text)
        for link in re.findall(r'href="(/studio[^"#]*)', reply.text):
            shape = re.sub(r"[^/?=&]*\d[^/?=&]*", "N", link.replace("&amp;", "&"))
            if shape not in seen and len(seen) < 150:
                seen.add(shape)
                waiting.append(link.replace("&amp;", "&"))
    assert len(seen) > 20, reply.text[:500]


def walk_http(gateway: GatewayProcess, searched: Searched) -> None:
    for path in ("/metrics", "/health/live", "/health/ready"):
        with urlopen(Request(gateway.url + path), timeout=60) as reply:
            searched.look(path, reply.read())


def walk_files(place: Place, searched: Searched) -> None:
    """Read every file that was written; what is part of a command line or URL is stored as written."""
    stored = (*SEALED, "tokens")
    for path in (*place.home.rglob("*"), *place.database.parent.rglob("*")):
        if path.is_file() and path != key_file(place):
            is_database = ".db" in path.suffixes or path.name.endswith(("-wal", "-shm"))
            as_written = (is_database and path.suffix != ".json") or path.name == "gateway.toml"
            only = stored if as_written else ()
            searched.look(str(path.relative_to(place.root)), path.read_bytes(), only=only)


def test_no_secret_is_in_anything_that_the_program_says_or_writes(
    tmp_path: Path, issuer: Issuer
) -> None:
    place, searched = new_place(tmp_path, shipped=True), Searched()
    plant(place, issuer)
    env = {"PLANTED": SEALED["the value of a variable"]}
    with receiving() as (receiver, traces):
        tracing = {"LMG_TELEMETRY__OTLP_ENDPOINT": receiver, "LMG_LOG__PAYLOADS": "true"}
        with place.serve(env={**env, **tracing}) as gateway:
            gateway.wait_ready()
            ran(place, "server", "login", "far", env=browser(tmp_path))
            ran(place, "call", "whoami")
            searched.add("tokens", issuer.set()["tokens"])
            walk_commands(place, searched, env, READING)
            walk_http(gateway, searched)
            walk_pages(place, gateway, searched)
            command = Path(f"/proc/{gateway.process.pid}/cmdline").read_bytes()
            searched.look("ps", command)
            assert gateway.stop() == 0
        searched.look("the log", "\n".join(gateway.lines))
        assert traces
        for body in traces:
            searched.look("a trace", body)
    walk_commands(place, searched, env, OFFLINE)
    walk_files(place, searched)
    assert searched.found == []
    assert searched.places > 150
