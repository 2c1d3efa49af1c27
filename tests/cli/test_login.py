"""`server login` as a person uses it: a browser here, a pasted address, and one that never comes back."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import socket
import subprocess
from urllib.parse import urlsplit

import aiohttp
import pytest

from local_mcp_gateway.cli.login import Waiting
from local_mcp_gateway.errors import UpstreamProblem
from local_mcp_gateway.store.encryption import MARK
from tests.cli.sealed import ran
from tests.harness import Place, clean_environment
from tests.issuer import Issuer, browser


def test_a_login_outlives_a_killed_gateway_and_no_secret_is_in_its_file(
    shipped: Place, issuer: Issuer
) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        ran(shipped, "server", "add", "far", "--url", issuer.url)
        told = shipped.run("server", "test", "far")
        assert told.code == 1
        assert "Sign in with `server login far`" in told.stderr
        done = shipped.run("server", "login", "far", env=browser(shipped.root))
        assert done.code == 0, done.stderr
        assert done.stdout == f"Signed in to far at {issuer.origin}/as, with read offline_access.\n"
        ran(shipped, "call", "whoami")
        gateway.process.kill()
        gateway.wait()
    issuer.set(revoke=True)
    with shipped.serve() as gateway:
        gateway.wait_ready()
        ran(shipped, "call", "whoami")
        assert "signed in at" in ran(shipped, "server", "show", "far")
        assert "ready" in ran(shipped, "server", "list")
        issuer.set(revoke=True, token="invalid_grant")
        failed = shipped.run("call", "whoami")
        assert "`server login far`" in failed.stderr
        gateway.wait_for("token.refused")
        shipped.run("call", "whoami")
        assert "needs sign-in" in ran(shipped, "server", "list")
        assert "Sign in with `server login far`" in ran(shipped, "doctor", code=3)
        assert gateway.stop() == 0
    assert issuer.seen("authorize") == 1
    logged = "\n".join(gateway.lines)
    stored = shipped.query("SELECT sealed_client_secret, client_id FROM oauth_client_registrations")
    assert stored
    for secret in ("access-", "refresh-"):
        assert secret not in logged
        assert secret.encode() not in shipped.database.read_bytes()


def test_over_ssh_the_address_is_pasted_and_a_wrong_one_is_told(
    shipped: Place, issuer: Issuer
) -> None:
    ran(shipped, "server", "add", "far", "--url", issuer.url)
    terminal, inside = pty.openpty()
    environment = clean_environment(shipped.home, SSH_CONNECTION="far away", DISPLAY=":0")
    command = [*shipped.command, *shipped.options, "server", "login", "far"]
    with subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, env=environment, close_fds=True
    ) as process:
        os.close(inside)
        text = ""

        def until(wanted: str) -> None:
            nonlocal text
            while not re.search(wanted, text):
                ready, _, _ = select.select([terminal], [], [], 60)
                assert ready, text
                text += os.read(terminal, 4096).decode().replace("\r\n", "\n")

        until(r"paste the address")
        page = next(line.strip() for line in text.splitlines() if "/authorize?" in line)
        sent = _redirect_of(page)
        port = urlsplit(sent).port
        assert port is not None
        wrong = sent.replace(f":{port}/", f":{port + 1}/")
        os.write(terminal, f"{wrong}\n".encode())
        until(r"That is not the address: it does not begin with")
        os.write(terminal, f"{sent.replace('state=', 'state=x')}\n".encode())
        until(r"it belongs to another login")
        os.write(terminal, f"{sent}\n".encode())
        until(r"Signed in to far at ")
        assert process.wait(60) == 0
    os.close(terminal)


def _redirect_of(page: str) -> str:
    async def fetch() -> str:
        async with aiohttp.ClientSession() as http:
            async with http.get(page, allow_redirects=False) as reply:
                return reply.headers["Location"]

    return asyncio.run(fetch())


def test_a_browser_that_never_comes_back_is_told_and_leaves_nothing(
    shipped: Place, issuer: Issuer
) -> None:
    ran(shipped, "server", "add", "far", "--url", issuer.url)
    done = shipped.run("server", "login", "far", "--no-browser", "--timeout", "1")
    assert done.code == 1
    assert "Nobody signed in to 'far' within 1 s; nothing was kept." in done.stderr
    assert "`server login far`" in done.stderr
    assert shipped.query("SELECT * FROM oauth_client_registrations") == []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = shipped.run("server", "login", "far", "--redirect-port", port)
    assert done.code == 2
    assert f"Port {port} of this machine is in use" in done.stderr


def test_a_client_that_a_person_has_registered_keeps_its_port(
    shipped: Place, issuer: Issuer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    ran(shipped, "server", "add", "far", "--url", issuer.url, "--client-id", "mine")
    login = ("server", "login", "far")
    signs_in = browser(shipped.home)
    assert shipped.run(*login, "--redirect-port", str(port), env=signs_in).code == 0
    with socket.create_server(("127.0.0.1", port)):
        done = shipped.run(*login, env=signs_in)
        assert done.code == 2
        assert f"Port {port} of this machine is in use" in done.stderr
    assert shipped.run(*login, env=signs_in).code == 0
    assert f":{port}/callback" in issuer.last["authorize"]["redirect_uri"]


def test_a_page_that_does_not_know_the_client_any_more_has_a_way_out(
    shipped: Place, issuer: Issuer
) -> None:
    ran(shipped, "server", "add", "far", "--url", issuer.url)
    login = ("server", "login", "far")
    signs_in = browser(shipped.home)
    assert shipped.run(*login, env=signs_in).code == 0
    begun = issuer.last["authorize"]
    assert begun["client_id"]
    done = shipped.run("server", "login", "far", "--no-browser", "--timeout", "1")
    assert "after `server logout far` if the page did not know this client" in done.stderr
    ran(shipped, "server", "logout", "far")
    assert shipped.run(*login, env=signs_in).code == 0
    assert issuer.last["authorize"]["client_id"] != begun["client_id"]


def test_a_secret_is_read_from_stdin_or_the_environment_and_sealed(
    shipped: Place, issuer: Issuer
) -> None:
    add = ("server", "add", "far", "--url", issuer.url, "--client-id", "robot")
    done = shipped.run(*add, "--client-credentials", stdin="from-stdin-1\n")
    assert done.code == 0, done.stderr
    ((secret, client),) = shipped.query(
        "SELECT sealed_client_secret, client_id FROM oauth_client_registrations"
    )
    assert client == "robot"
    assert bytes(secret).decode().startswith(MARK)
    assert "needs sign-in" in ran(shipped, "server", "list")
    ran(shipped, "server", "login", "far")
    assert issuer.last["secret"] == "from-stdin-1"
    edit = ("server", "edit", "far", "--client-id", "robot", "--client-secret")
    assert shipped.run(*edit, env={"LMG_CLIENT_SECRET": "from-env-22"}).code == 0
    refused = shipped.run("server", "add", "x", "--client-id", "robot", "--", "true")
    assert refused.code == 2
    assert "is a command and has no client id" in refused.stderr


async def test_only_the_redirect_of_this_login_ends_the_waiting() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    waiting = Waiting("mine", f"{base}/callback")
    answer = asyncio.create_task(waiting.answer([listener], 30, "far"))
    async with aiohttp.ClientSession() as http:

        async def get(path: str) -> tuple[int, str]:
            async with http.get(base + path) as reply:
                return reply.status, await reply.text()

        for path in ("/", "/callback", "/callback?code=1&state=other", "/callback?state=mine"):
            assert (await get(path))[0] == 400
        async with http.post(f"{base}/callback?code=1&state=mine") as posted:
            assert posted.status == 400
        assert not answer.done()
        page = await get("/callback?error=denied&error_description=%3Cb%3E&state=mine")
        assert page[0] == 200
        assert "&lt;b&gt;" in page[1]
    assert (await answer)["error"] == "denied"
    with pytest.raises(UpstreamProblem, match="nothing was kept"):
        await waiting.answer([], 0.01, "far")
