"""The gateway over https: its owner's certificate is checked, shown, named in URLs, and renewed in place."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from local_mcp_gateway.config.settings import GatewaySettings, Settings
from local_mcp_gateway.errors import ConfigProblem
from local_mcp_gateway.service.admin import OwnAddress
from local_mcp_gateway.service.http import ServerCertificate, check_certificate
from tests.gateway.messages import HELLO
from tests.harness import (
    DEADLINE_S,
    REPOSITORY,
    GatewayProcess,
    Place,
    clean_environment,
    new_place,
)
from tests.service.http.certificates import LOCAL, Files, make_certificate

PLAIN = (sys.executable, str(REPOSITORY / "tests" / "gateway" / "servers" / "plain.py"))


def _other_key(folder: Path) -> Files:
    cert = make_certificate(folder / "one", *LOCAL).cert
    return Files(cert, make_certificate(folder / "other", *LOCAL).key)


def _no_pem(folder: Path) -> Files:
    files = make_certificate(folder, *LOCAL)
    files.cert.write_text("nothing\n")
    return files


def _no_key(folder: Path) -> Files:
    files = make_certificate(folder, *LOCAL)
    return Files(files.cert, files.cert)


def _folder(folder: Path) -> Files:
    return Files(folder, make_certificate(folder, *LOCAL).key)


UNUSABLE: dict[str, tuple[Callable[[Path], Files], str]] = {
    "missing": (
        lambda f: Files(f / "none.pem", f / "none.pem"),
        "none.pem, cannot be read: No such",
    ),
    "a folder": (_folder, "cannot be read: it is a folder"),
    "no PEM": (_no_pem, "cert.pem cannot be used: the file has no certificate in PEM"),
    "no key": (_no_key, "cert.pem has no private key in PEM"),
    "another's key": (_other_key, "key.pem is not the key of the certificate"),
    "a passphrase": (lambda f: make_certificate(f, passphrase="x"), "key.pem has a passphrase"),
    "expired": (
        lambda f: make_certificate(f, days=-1),
        "cert.pem cannot be used: it expired on 20",
    ),
    "not yet": (lambda f: make_certificate(f, begins=1), "cannot be used: it is valid from 20"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_certificate_that_clients_could_not_use_is_refused_with_its_file(
    tmp_path: Path, kind: str
) -> None:
    make, told = UNUSABLE[kind]
    with pytest.raises(ConfigProblem) as refused:
        check_certificate(*_paths(make(tmp_path)))
    assert told in refused.value.message
    assert refused.value.hint


def _paths(files: Files) -> tuple[Path, Path]:
    return files.cert, files.key


@pytest.mark.nightly
def test_a_start_with_an_expired_certificate_makes_no_database(shipped: Place) -> None:
    files = make_certificate(shipped.root / "tls", *LOCAL, days=-1)
    with shipped.serve(env=files.settings) as gateway:
        assert gateway.wait() == 7
        refused = gateway.wait_for("service.refused")
    assert f"The certificate {files.cert} cannot be used: it expired" in refused["message"]
    assert not shipped.database.exists()


def test_a_key_without_a_certificate_is_refused() -> None:
    with pytest.raises(ConfigProblem, match=r"tls_key is set, and gateway\.tls_cert is not"):
        _ = Settings(GatewaySettings(tls_key="/key.pem")).tls_files


def test_certificate_and_key_may_be_in_one_file(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, *LOCAL)
    files.cert.write_bytes(files.cert.read_bytes() + files.key.read_bytes())
    assert set(ServerCertificate(files.cert, files.cert).facts.names) == set(LOCAL)


@pytest.mark.parametrize(
    ("host", "names", "url"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:3001"),
        ("127.0.0.1", ("localhost", "127.0.0.1"), "https://127.0.0.1:3001"),
        ("0.0.0.0", ("localhost", "gateway.lan"), "https://localhost:3001"),
        ("0.0.0.0", ("*.lan", "gateway.lan"), "https://gateway.lan:3001"),
        ("::", ("::1",), "https://[::1]:3001"),
        ("192.168.1.7", ("localhost", "gateway.lan"), "https://localhost:3001"),
        ("127.0.0.1", (), "https://127.0.0.1:3001"),
    ],
)
def test_a_url_has_a_name_that_the_certificate_is_for(
    host: str, names: tuple[str, ...] | None, url: str
) -> None:
    own = OwnAddress(host, 3001, names)
    assert own.url == url
    assert own.leads_here(f"{url}/mcp")


class Secure:
    """A running gateway with a certificate, shared by the tests below."""

    def __init__(self, place: Place, files: Files, gateway: GatewayProcess) -> None:
        self.place, self.files, self.gateway = place, files, gateway
        self.settings = {**files.settings, "LMG_GATEWAY__PORT": gateway.url.rpartition(":")[2]}

    def shown(self) -> bytes | None:
        """Return the certificate that a new connection is shown."""
        host, port = self.gateway.url.rpartition("//")[2].split(":")
        anything = ssl._create_unverified_context()
        with socket.create_connection((host, int(port)), DEADLINE_S) as plain:
            with anything.wrap_socket(plain) as connection:
                return connection.getpeercert(binary_form=True)

    def bridged(self, *arguments: str, **env: str) -> Any:
        """Say hello through `stdio` and return the answer."""
        done = subprocess.run(
            [*self.place.command, *self.place.options, "stdio", *arguments],
            input=json.dumps(HELLO) + "\n",
            capture_output=True,
            text=True,
            env=clean_environment(self.place.home, **env),
            timeout=DEADLINE_S,
            check=False,
        )
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    place = new_place(tmp_path_factory.mktemp("tls"), shipped=True)
    assert place.run("server", "add", "plain", "--", *PLAIN).code == 0
    files = make_certificate(place.root / "tls", *LOCAL)
    with place.serve(env=files.settings) as gateway:
        yield Secure(place, files, gateway.wait_ready())


async def test_real_clients_talk_https_and_a_renewed_certificate_drops_none(secure: Secure) -> None:
    gateway, files = secure.gateway, secure.files
    assert gateway.url.startswith("https://127.0.0.1:")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{gateway.url}/health/ready", ssl=files.trust) as reply:
            assert reply.status == 200
    before = secure.shown()
    async with httpx2.AsyncClient(verify=files.trust) as http_client:
        transport = streamable_http_client(f"{gateway.url}/mcp", http_client=http_client)
        async with Client(transport) as client:
            assert (await client.call_tool("echo", {"x": 1})).content
            renewed = make_certificate(secure.place.root / "renewed", *LOCAL)
            files.replace(renewed)
            gateway.signal(signal.SIGHUP)
            assert gateway.wait_for("tls.renewed")["certificate"] == str(files.cert)
            after = secure.shown()
            assert after != before
            assert after == ssl.PEM_cert_to_DER_cert(renewed.cert.read_text())
            # Its connection is of before: the client trusts only the old certificate.
            assert (await client.call_tool("echo", {"x": 2})).content
    files.key.write_bytes(make_certificate(secure.place.root / "third").key.read_bytes())
    gateway.signal(signal.SIGHUP)
    assert "is not the key" in gateway.wait_for("service.reload_refused")["message"]
    assert secure.shown() == after
    files.replace(renewed)


@pytest.mark.nightly
def test_every_address_that_a_command_prints_is_one_of_https(secure: Secure) -> None:
    address = secure.gateway.url
    assert secure.place.link().startswith(f"{address}/studio/")
    assert secure.place.run("connect", "--json").json()["url"] == f"{address}/mcp"


@pytest.mark.nightly
def test_health_and_doctor_tell_of_https(secure: Secure) -> None:
    ready = secure.place.run("health")
    assert (ready.code, ready.stdout) == (0, f"Ready at {secure.gateway.url}.\n")
    found = secure.place.run("doctor", "--json", env=secure.settings).json()["findings"]
    assert [one["state"] for one in found if one["check"] == "tls"] == ["ok"]
    soon = make_certificate(secure.place.root / "soon", *LOCAL, days=5)
    found = secure.place.run("doctor", "--json", env=soon.settings).json()["findings"]
    assert [one["state"] for one in found if one["check"] == "tls"] == ["note"]


async def test_the_cookie_of_the_pages_goes_over_https_only(secure: Secure) -> None:
    async with httpx2.AsyncClient(verify=secure.files.trust) as browser:
        entered = await browser.get(secure.place.link())
        assert entered.status_code == 200
        assert "; Secure" in entered.headers["set-cookie"]


def test_the_bridge_trusts_the_certificate_of_its_own_gateway_only(secure: Secure) -> None:
    assert "result" in secure.bridged(**secure.settings)
    other = make_certificate(secure.place.root / "other", *LOCAL)
    refused = secure.bridged(**{**secure.settings, **other.settings})["error"]["message"]
    assert f"is not the one in {other.cert}" in refused


@pytest.mark.nightly
def test_the_bridge_trusts_elsewhere_what_the_system_trusts(secure: Secure) -> None:
    url = ("--url", secure.gateway.url)
    assert "is not trusted" in secure.bridged(*url)["error"]["message"]
    assert "result" in secure.bridged(*url, SSL_CERT_FILE=str(secure.files.cert))
    plain = secure.gateway.url.replace("https:", "http:")
    assert "https" in secure.bridged("--url", plain)["error"]["message"]


@pytest.mark.nightly
def test_the_bridge_needs_no_name_of_its_own_gateway(shipped: Place) -> None:
    files = make_certificate(shipped.root / "tls", "gateway.test")
    assert shipped.run("server", "add", "plain", "--", *PLAIN).code == 0
    with shipped.serve(env=files.settings) as gateway:
        gateway.wait_ready()
        secure = Secure(shipped, files, gateway)
        assert shipped.link().startswith("https://gateway.test:")
        assert "result" in secure.bridged(**secure.settings)
