"""One gateway with servers and calls, and a browser that has come in, shared by the tests of the pages."""

from __future__ import annotations

import asyncio
import html
import http.client
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest

from local_mcp_gateway.database import Connection
from local_mcp_gateway.studio import Door, Powers, Studio
from local_mcp_gateway.studio.tables import opened
from tests.harness import REPOSITORY, GatewayProcess, Place, new_place
from tests.studio.odd import make_odd

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.studio.chromium import Watched
    from tests.studio.scene import Scene

PLAIN = REPOSITORY / "tests" / "gateway" / "servers" / "plain.py"
TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the database of everything that a page has to bear; only read."""
    return make_odd(tmp_path_factory.mktemp("odd") / "odd.db")


@pytest.fixture
def connection(database: Path) -> Iterator[Connection]:
    with opened(Powers(database)) as connection:
        yield connection


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def words(self) -> str:
        """Return the text of the page, without its markup and with single spaces."""
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", self.text)).split())


@dataclass
class Browser:
    """Sends requests as a browser would, cookie and origin included, and follows nothing by itself."""

    url: str
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: str | None = None, **headers: str | None) -> Reply:
        """Send one request; a header of None is left out."""
        parts = urlsplit(self.url)
        given: dict[str, str | None] = {"Accept": "text/html", "Host": parts.netloc}
        if method == "POST":
            given |= {
                "Origin": self.url,
                "Content-Type": "application/x-www-form-urlencoded",
            }
        if self.cookies:
            given["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            data = b"" if body is None else body.encode()
            for name, value in {**given, "Content-Length": str(len(data))}.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(data)
            response = connection.getresponse()
            sent = {name.lower(): value for name, value in response.getheaders()}
            if "set-cookie" in sent:
                name, _, value = sent["set-cookie"].partition(";")[0].partition("=")
                self.cookies[name] = value
            return Reply(response.status, sent, response.read().decode(errors="replace"))
        finally:
            connection.close()

    def get(self, path: str, **headers: str | None) -> Reply:
        return self.ask("GET", path, **headers)

    def page(self, path: str) -> Reply:
        """Return a page that has to be there."""
        reply = self.get(path)
        assert reply.status == 200, (path, reply.status, reply.words[:2000])
        return reply

    @property
    def form_token(self) -> str:
        found = TOKEN.search(self.page("/studio/migrations").text)
        assert found, "every page has a form"
        return found[1]

    def post(self, path: str, **fields: str | list[str]) -> Reply:
        """Send a form of our own page."""
        body = urlencode({"form_token": self.form_token, **fields}, doseq=True)
        body = body.replace("%0D%0A", "%0A").replace("%0A", "%0D%0A")  # as HTML's forms are sent
        return self.ask("POST", path, body)

    def sent(self, path: str, **fields: str | list[str]) -> Reply:
        """Send a form that is accepted, and return the page that follows."""
        reply = self.post(path, **fields)
        assert reply.status == 303, reply.words[:2000]
        return self.page(reply.headers["location"])


@dataclass
class Inside:
    """A browser that has come in to the pages of one database, in this process."""

    studio: Studio
    cookie: str
    form_token: str

    @classmethod
    def of(cls, database: Path, migrations: Path | None = None, **powers: Any) -> Inside:
        door = Door()
        studio = Studio(Powers(database, migrations, **{"writable": True, **powers}), door)
        entered = door.enter(door.make_link())
        assert entered is not None
        return cls(studio, entered[0], entered[1].form_token)

    async def ask(self, path: str, form: dict[str, str] | None = None) -> Reply:
        """Ask for a page, or send a form; return what came back, however much it is."""
        path, _, query = path.partition("?")
        body = urlencode({"form_token": self.form_token, **form}).encode() if form else b""
        sent: list[dict[str, Any]] = []

        read = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if read.is_set():
                await asyncio.Event().wait()  # the browser stays
            read.set()
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = {
            "host": "127.0.0.1:1",
            "origin": "http://127.0.0.1:1",
            "accept": "text/html",
            "cookie": f"studio={self.cookie}",
            "content-type": "application/x-www-form-urlencoded",
        }
        scope = {
            "type": "http",
            "method": "GET" if form is None else "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        await self.studio(scope, receive, send)
        text = b"".join(message.get("body", b"") for message in sent[1:])
        given = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Reply(sent[0]["status"], given, text.decode("utf-8", "replace"))

    async def page(self, path: str) -> Reply:
        reply = await self.ask(path)
        assert reply.status == 200, (path, reply.words[:2000])
        return reply


def come_in(url: str, link: str) -> Browser:
    browser = Browser(url)
    assert browser.get(link.removeprefix(url)).status == 200
    return browser


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway with two servers, of which one is down."""

    place: Place
    gateway: GatewayProcess

    def browser(self) -> Browser:
        return come_in(self.gateway.url, self.place.link())


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    place = new_place(tmp_path_factory.mktemp("studio"), shipped=True)
    place.database.parent.mkdir(parents=True, exist_ok=True)
    with place.serve(env={"LMG_UPSTREAM__NEW_TOOLS": "hold"}) as gateway:
        gateway.wait_ready()
        document = {
            "plain": {
                "command": sys.executable,
                "args": [str(PLAIN)],
                "env": {"A_TOKEN": "hunter2"},
            },
            "gone": {"url": "http://127.0.0.1:9/mcp"},
        }
        done = place.run("server", "import", "-", stdin=json.dumps({"mcpServers": document}))
        assert done.code == 0, done.stderr
        assert place.run("call", "echo", "text=hello").code == 0
        yield Running(place, gateway)
        assert gateway.stop() == 0


@pytest.fixture(scope="session")
def browser(running: Running) -> Browser:
    return running.browser()


@pytest.fixture(scope="module")
def watched(shop: Scene) -> Iterator[Watched]:
    """A real browser before the `shop` of the module."""
    from tests.studio.chromium import NoChromium, Watched, chromium  # only where one is driven

    try:
        with chromium() as browser:
            made = Watched(browser, shop.gateway.url)
            yield made
            made.context.close()
    except NoChromium as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def page(watched: Watched, shop: Scene) -> Page:
    """A page of that browser, which has come in."""
    return watched.enter(shop.place.link())
