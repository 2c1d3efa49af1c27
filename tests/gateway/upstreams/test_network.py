"""How a URL is reached: proxies, certificates, and what each server is given of its own."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from yarl import URL

from local_mcp_gateway.gateway.upstreams.connection import UpstreamDisconnected
from local_mcp_gateway.gateway.upstreams.network import proxy_for
from local_mcp_gateway.gateway.upstreams.process import Output, spawn
from local_mcp_gateway.store.model import ServerDefinition, ServerKind
from tests.gateway.messages import META, MODERN, call
from tests.gateway.support import SERVERS, gateway_of, http, process, serve
from tests.gateway.using import use

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *map(str.lower, VARIABLES), *CERTIFICATES):
        monkeypatch.delenv(name, raising=False)


@asynccontextmanager
async def tunnel(port: int, *, password: str = "") -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a proxy that leads every request and tunnel to this port; yield its URL and what it was asked."""
    asked: list[bytes] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n")[0])
        if password and password.encode() not in head:
            if not head.startswith(b"CONNECT"):
                await reader.read(65536)
            writer.write(b"HTTP/1.1 407 Sign in\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            outer.write(head)
        await asyncio.gather(pump(reader, outer), pump(inner, writer), return_exceptions=True)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()[:2]), asked


def authority(folder: Path) -> tuple[Path, Path]:
    """Make an authority and a certificate of `127.0.0.1` and `far.test` that it signs."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    names = [x509.DNSName("far.test"), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "ca.pem").write_bytes(public)
    (folder / "both.pem").write_bytes(public + private)
    return folder / "ca.pem", folder / "both.pem"


@asynccontextmanager
async def over_tls(port: int, certificate: Path) -> AsyncIterator[int]:
    """Run TLS before this port; yield its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, outer), pump(inner, writer), return_exceptions=True)

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


def port_of(url: str) -> int:
    port = URL(url).port
    assert port is not None
    return port


# --- proxies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_a_server_elsewhere_is_reached_through_the_proxy_of_the_environment(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with process(SERVERS / "plain_http.py") as (_, url), tunnel(port_of(url)) as proxy:
        monkeypatch.setenv(name, proxy[0])
        async with gateway_of(tmp_path, http("far", "http://far.test/mcp")) as running:
            assert await use(running, "echo") == "echo"
        assert all(line.split()[1].startswith(b"http://far.test/") for line in proxy[1])


async def test_a_server_over_tls_is_reached_through_a_tunnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, both = authority(tmp_path)
    async with process(SERVERS / "plain_http.py") as (_, url), over_tls(port_of(url), both) as port:
        async with tunnel(port) as (proxy, asked):
            monkeypatch.setenv("https_proxy", proxy.removeprefix("http://"))
            server = http("far", "https://far.test/mcp", ca=str(ca))
            async with gateway_of(tmp_path, server) as running:
                assert await use(running, "echo") == "echo"
            assert set(asked) == {b"CONNECT far.test:443 HTTP/1.1"}


@pytest.mark.parametrize("own", [False, True])
async def test_a_servers_own_proxy_comes_before_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, own: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with process(SERVERS / "plain_http.py") as (_, url), tunnel(port_of(url)) as proxy:
        server = (
            http("far", "http://far.test/mcp", proxy=proxy[0])
            if own
            else http("near", url.replace("127.0.0.1", "127.0.0.2"), proxy="none")
        )
        async with gateway_of(tmp_path, server) as running:
            said = await use(running, "echo")
        assert said == "echo" or "no connection to 127.0.0.2" in said["message"]
        assert bool(proxy[1]) is own


async def test_a_proxy_that_wants_a_password_or_is_not_there_is_named(tmp_path: Path) -> None:
    async with tunnel(9, password="opensesame") as (proxy, _):
        tls = http("tls", "https://far.test/mcp", proxy=proxy)
        plain = http("plain", "http://far.test/mcp", proxy=proxy)
        gone = http("gone", "http://far.test/mcp", proxy="http://u:secret@127.0.0.1:9")
        socks = http("socks", "http://far.test/mcp", proxy="http://x:y:z")
        async with gateway_of(tmp_path, tls, plain, gone, socks) as running:
            for name, said in (
                ("tls", "its proxy wants a user name and a password"),
                ("plain", "its proxy wants a user name and a password"),
                ("gone", "no connection to its proxy 127.0.0.1:9: Connection refused"),
                ("socks", "the URL of its proxy is not valid"),
            ):
                await running.gateway.registry.upstreams[name].catalog_ready()
                lost = await running.heard("upstream.lost", server=name)
                assert lost["reason"].startswith(said), (name, lost)
                assert "secret" not in lost["reason"]


def test_no_proxy_and_this_machine_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.corp:3128")
    monkeypatch.setenv("NO_PROXY", ".corp,10.0.0.7,exact.test:443")
    assert proxy_for(URL("https://mcp.example.com/mcp")) == URL("http://proxy.corp:3128")
    for url in (
        "https://a.corp/x",
        "https://10.0.0.7/",
        "http://mcp.example.com/",
        "https://[::1]/",
    ):
        assert proxy_for(URL(url)) is None, url
    monkeypatch.delenv("NO_PROXY")
    assert proxy_for(URL("https://localhost:8443/mcp")) is None


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@proxy.corp:1080")
    with pytest.raises(
        UpstreamDisconnected, match=r"socks5://proxy\.corp:1080 is not an HTTP proxy"
    ):
        proxy_for(URL("https://mcp.example.com/mcp"))


# --- certificates -------------------------------------------------------------------------------


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Path, Path]:
    return authority(tmp_path)


@pytest.mark.parametrize("how", ["REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "ca"])
async def test_certificates_of_a_company_are_trusted(
    tmp_path: Path, certificates: tuple[Path, Path], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, both = certificates
    if how != "ca":
        monkeypatch.setenv(how, str(ca))
    async with process(SERVERS / "plain_http.py") as (_, url), over_tls(port_of(url), both) as port:
        server = http("far", f"https://127.0.0.1:{port}/mcp", ca=str(ca) if how == "ca" else None)
        async with gateway_of(tmp_path, server) as running:
            assert await use(running, "echo") == "echo"


async def test_an_unknown_certificate_is_refused_in_words_and_taken_only_if_told_to(
    tmp_path: Path, certificates: tuple[Path, Path]
) -> None:
    async with process(SERVERS / "plain_http.py") as (_, url):
        async with over_tls(port_of(url), certificates[1]) as port:
            strict = http("strict", f"https://127.0.0.1:{port}/mcp")
            loose = http("loose", f"https://127.0.0.1:{port}/mcp", insecure=True)
            wrong = http("wrong", f"https://127.0.0.1:{port}/mcp", ca=str(tmp_path / "none.pem"))
            async with gateway_of(tmp_path, strict, loose, wrong) as running:
                assert await use(running, "loose__echo") == "echo" or await use(running, "echo")
                await running.heard("upstream.unverified", server="loose")
                for name, said in (
                    ("strict", "its certificate is not trusted: self"),
                    ("wrong", f"the certificates in {tmp_path}/none.pem cannot be read"),
                ):
                    await running.gateway.registry.upstreams[name].catalog_ready()
                    lost = await running.heard("upstream.lost", server=name)
                    assert lost["reason"].startswith(said), lost


async def test_children_inherit_how_this_machine_reaches_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = (*VARIABLES, *map(str.lower, VARIABLES), *CERTIFICATES)
    for name in (*names, "OF_OURS_ALONE"):
        monkeypatch.setenv(name, f"/{name}")
    printed, ended = bytearray(), asyncio.Event()

    def received(data: bytes) -> Iterator[None]:
        printed.extend(data)
        return iter(())

    env = ServerDefinition("env", ServerKind.STDIO, command="env", env={"NO_PROXY": "own"})
    silent = Output(lambda _: iter(()), lambda: None)
    child = spawn(env)
    await child.connect(Output(received, ended.set), silent, lambda: None)
    await ended.wait()
    await child.end()
    found = dict(line.partition("=")[::2] for line in printed.decode().splitlines())
    assert {name: found[name] for name in names} == {
        **{name: f"/{name}" for name in names},
        "NO_PROXY": "own",
    }
    assert "OF_OURS_ALONE" not in found


# --- what a server is given of its own ----------------------------------------------------------------


async def test_a_servers_own_timeout_ends_its_calls(tmp_path: Path) -> None:
    async with process(SERVERS / "plain_http.py") as (_, url):
        async with gateway_of(tmp_path, http("web", url, timeout_s=1)) as running:
            assert "did not answer within 1 s" in (await use(running, "hang"))["message"]


class Recording:
    """Speaks 2025-11-25 and, if `modern`, 2026-07-28; keeps the headers of each call."""

    def __init__(self, *, modern: bool) -> None:
        self.modern = modern
        self.calls: dict[str, dict[bytes, bytes]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = json.loads((await receive())["body"]) if scope["method"] == "POST" else {}
        self.calls[message.get("method", "")] = dict(scope["headers"])
        versions = {"supportedVersions": [MODERN], "resultType": "complete"}
        about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
        results: dict[str, Any] = {
            "initialize": {"protocolVersion": "2025-11-25", **about},
            "tools/list": {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]},
            "tools/call": {"content": [], "resultType": "complete"},
        }
        if self.modern:
            results["server/discover"] = {**versions, **about}
        result = results.get(message.get("method", ""))
        said = {"result": result} if result else {"error": {"code": -32601, "message": "no"}}
        reply = {"jsonrpc": "2.0", "id": message.get("id"), **said}
        start = {"type": "http.response.start", "status": 200 if "id" in message else 405}
        await send({**start, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(reply).encode()})


@pytest.mark.parametrize("modern", [False, True])
async def test_named_headers_of_the_client_reach_the_server_with_its_call_alone(
    tmp_path: Path, *, modern: bool
) -> None:
    server, other = Recording(modern=modern), Recording(modern=modern)
    async with serve(server) as url, serve(other) as foreign:
        given = http("odd", url, client_headers=("X-User", "x-absent"), headers={"x-user": "none"})
        async with gateway_of(tmp_path, given, http("other", foreign)) as running:
            sent = {"x_user": "ann", "x_other": "secret"}
            about: dict[str, Any] = {"name": "echo", "arguments": {}}
            if modern:
                about |= {"_meta": META}
                sent |= {"mcp_protocol_version": MODERN, "mcp_method": "tools/call"}
                sent |= {"mcp_name": "echo"}
            answer = await (await running.post(call("tools/call", **about), **sent)).json()
            assert "result" in answer
            assert server.calls["tools/call"][b"x-user"] == b"ann"
            assert b"x-other" not in server.calls["tools/call"]
            assert server.calls["tools/list"][b"x-user"] == b"none"
            about["name"] = sent["mcp_name"] = "other__echo"
            await running.post(call("tools/call", **about), **sent)
            assert b"x-user" not in other.calls["tools/call"]
