"""`server login` and `server logout`: sign in to a server in a browser, on this machine or on another.

The browser is sent back to a port of this machine, which is bound before anything else and held until the end.
Where the browser is on another machine, that page does not load: its address is pasted here instead. Either
has to carry the state of this login; anything else is told so, and the login goes on waiting.
"""

from __future__ import annotations

import os
import sys
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import click

from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.client import answer_to
from local_mcp_gateway.errors import Exit, UpstreamProblem, UsageProblem

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Coroutine

    from local_mcp_gateway.cli.context import Invocation

PATH: Final = "/callback"
PORTS: Final = (49152, 65535)
TRIES: Final = 16
_PAGE: Final = (
    "<!doctype html><meta charset=utf-8><title>Local MCP Gateway</title>"
    "<body style='font-family:sans-serif;margin:4em'><h1>{title}</h1><p>{text}</p>"
)


@click.command()
@click.argument("name", shell_complete=complete.servers)
@click.option("--browser/--no-browser", default=True, help="Open the page, or only print it.")
@click.option("--scope", help="Rights to ask for, instead of those that the server names.")
@click.option(
    "--resource/--no-resource",
    default=None,
    help="Tell the sign-in server which server the tokens are for; some refuse that [default: as last time].",
)
@click.option(
    "--redirect-host",
    type=click.Choice(["127.0.0.1", "localhost"]),
    help="How the browser is sent back, where the sign-in page insists on one [default: 127.0.0.1].",
)
@click.option(
    "--redirect-port",
    type=click.IntRange(1, 65535),
    help="The port that it is sent back to, where one is registered [default: one of its own].",
)
@click.option(
    "--timeout", "timeout_s", type=click.IntRange(min=1), default=300, metavar="SECONDS",
    show_default=True, help="How long to wait for the browser.",
)  # fmt: skip
@ui.as_json_option
@click.pass_obj
def login(
    invocation: Invocation,
    *,
    name: str,
    browser: bool,
    scope: str | None,
    resource: bool | None,
    redirect_host: str | None,
    redirect_port: int | None,
    timeout_s: int,
    as_json: bool,
) -> int:
    """Sign in to a server that wants it: in the browser, here or on another machine.

    The gateway keeps what it is given, sealed, and refreshes it. Over ssh: open the printed page, and paste
    the address that the browser ends at. A client of its own (`server add --client-credentials`) needs no
    browser.
    """
    found = answer_to(invocation, "server.show", name=name)
    known = found["sign_in"] or {}
    before = urlsplit(known.get("redirect_uri") or "")
    if before.path != PATH:  # the last sign-in was on the pages
        before = urlsplit("")
    host = redirect_host or before.hostname or "127.0.0.1"
    # What a person has registered has this port; the gateway registers itself with any.
    registered = before.port if known.get("client_kind") == "own" else None
    own = before.port or _own_port(found["name"])
    sockets = _bind(host, redirect_port or registered, own)
    redirect_uri = f"http://{host}:{sockets[0].getsockname()[1]}{PATH}"
    try:
        done = answer_to(
            invocation,
            "server.login",
            name=name,
            redirect_uri=redirect_uri,
            scope=scope,
            resource=resource,
            document=invocation.settings.upstream.client_metadata_url,
        )
        if "login" in done:
            pending = done["login"]
            waiting = Waiting(pending["state"], redirect_uri)
            _show(pending["url"], name)
            if browser:
                _open_browser(pending["url"])
            again = known.get("client_kind") == "dynamic"
            answer = _run(waiting.answer(sockets, timeout_s, name, registered=again))
            done = answer_to(
                invocation, "server.signed_in", name=name, login=pending, answer=answer
            )
    finally:
        for each in sockets:
            each.close()
    if as_json:
        ui.print_json(done)
    else:
        rights = f", with {done['scope']}" if done["scope"] else ""
        ui.tell(f"Signed in to {name} at {done['issuer']}{rights}.")
    return Exit.OK


@click.command()
@click.argument("name", shell_complete=complete.servers)
@ui.as_json_option
@click.pass_obj
def logout(invocation: Invocation, *, name: str, as_json: bool) -> int:
    """Forget the tokens of a server, and revoke them where it can be done."""
    done = answer_to(invocation, "server.logout", name=name)
    if as_json:
        ui.print_json(done)
    elif not done["had_tokens"]:
        ui.tell(f"Nobody was signed in to {name}.")
    else:
        revoked = " Its tokens are revoked." if done["revoked"] else ""
        ui.tell(f"Signed out of {name}.{revoked}")
    return Exit.OK


def _run(waiting: Coroutine[Any, Any, dict[str, str]]) -> dict[str, str]:
    import asyncio

    return asyncio.run(waiting)


def _own_port(name: str) -> int:
    """Return a port that stays the same for a server: some pages know only the one of the first time."""
    first, last = PORTS
    return first + zlib.crc32(name.encode()) % (last - first - TRIES)


def _bind(host: str, chosen: int | None, own: int) -> list[socket.socket]:
    """Return sockets that listen on loopback: on the chosen port, else on the first free one."""
    import socket

    families = [(socket.AF_INET, "127.0.0.1")]
    if host == "localhost" and _has_ipv6():
        families.append((socket.AF_INET6, "::1"))
    for port in [chosen] if chosen else [*range(own, own + TRIES), 0]:
        bound: list[socket.socket] = []
        try:
            for family, address in families:
                at = bound[0].getsockname()[1] if bound else port
                bound.append(socket.create_server((address, at), family=family))
            return bound
        except (OSError, OverflowError):
            for each in bound:
                each.close()
    raise UsageProblem(
        f"Port {chosen} of this machine is in use, so the browser cannot be sent back to it.",
        hint="Is another `server login` waiting? Else give another port with --redirect-port.",
    )


def _has_ipv6() -> bool:
    import socket

    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def _show(url: str, name: str) -> None:
    """Print the page for who has the browser elsewhere."""
    click.echo(f"Sign in on this page, so that the gateway may use {name}:\n\n  {url}\n", err=True)
    if sys.stdin.isatty():
        text = "If it ends at a page that does not load, paste the address of that page here."
        click.echo(text, err=True)


def _open_browser(url: str) -> None:
    """Open the page where there is a browser; some of those commands return when it is closed."""
    remote = "SSH_CONNECTION" in os.environ and "BROWSER" not in os.environ
    graphical = any(key in os.environ for key in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
    if graphical and not remote:
        import threading
        import webbrowser

        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


class Waiting:
    """A login that waits for what the browser is sent back with."""

    def __init__(self, state: str, redirect_uri: str) -> None:
        self._state = state
        self._redirect = urlsplit(redirect_uri)
        self._answer: asyncio.Future[dict[str, str]]

    async def answer(
        self,
        sockets: list[socket.socket],
        timeout_s: float,
        name: str,
        *,
        registered: bool = False,
    ) -> dict[str, str]:
        """Return the query of the first redirect that belongs to this login.

        `registered`: as a client that the page may not know any more.
        """
        import asyncio

        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        servers = [await asyncio.start_server(self._serve, sock=each) for each in sockets]
        pasting = sys.stdin.isatty()
        if pasting:
            loop.add_reader(sys.stdin.fileno(), self._pasted)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer
        except TimeoutError:
            after = f", after `server logout {name}` if the page did not know this client"
            after = after if registered else ""
            raise UpstreamProblem(
                f"Nobody signed in to {name!r} within {timeout_s:g} s; nothing was kept.",
                hint=f"Run `server login {name}` again{after}.",
            ) from None
        finally:
            if pasting:
                loop.remove_reader(sys.stdin.fileno())
            for server in servers:
                server.close()

    def problem(self, path: str, query: dict[str, str]) -> str:
        """Say why a redirect does not belong to this login; "" if it does."""
        if path != self._redirect.path:
            return f"there is nothing at {path!r}"
        if query.get("state") != self._state:
            return "it belongs to another login, or to an older one"
        if not query.keys() & {"code", "error"}:
            return "it has neither a code nor an error"
        return ""

    def _pasted(self) -> None:
        line = sys.stdin.readline()
        if not line:  # the end of a terminal's input: only the port is left
            self._answer.get_loop().remove_reader(sys.stdin.fileno())
            return
        url = urlsplit(line.strip())
        if not line.strip() or self._answer.done():
            return
        query = dict(parse_qsl(url.query))
        why = self.problem(url.path, query)
        if (url.scheme, url.netloc) != (self._redirect.scheme, self._redirect.netloc):
            why = f"it does not begin with {self._redirect.geturl()}"
        if why:
            ui.tell(f"That is not the address: {why}. Paste it again.", fg="yellow", err=True)
        else:
            self._answer.set_result(query)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request of the browser."""
        import asyncio

        with suppress(ConnectionError, ValueError, EOFError, TimeoutError):
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
            method, target, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
            url = urlsplit(target)
            query = dict(parse_qsl(url.query))
            why = "only GET is answered" if method != "GET" else self.problem(url.path, query)
            why = why or ("this login has ended" if self._answer.done() else "")
            if why:
                status, page = "400 Bad Request", _PAGE.format(title="No", text=f"{_html(why)}.")
            elif "error" in query:
                reason = query.get("error_description") or query["error"]
                text = f"{_html(reason)}. You can close this page."
                status, page = "200 OK", _PAGE.format(title="It was refused", text=text)
            else:
                text = "The gateway goes on from here. You can close this page."
                status, page = "200 OK", _PAGE.format(title="Signed in", text=text)
            body = page.encode()
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\n"
                f"Content-Length: {len(body)}\r\nReferrer-Policy: no-referrer\r\n"
                "Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
            if not why and not self._answer.done():
                self._answer.set_result(query)
        writer.close()


def _html(text: str) -> str:
    from html import escape

    return escape(text[:300])
