"""How a URL is reached: through which proxy, which certificates are trusted, how long it may take.

What a server is given (`--proxy`, `--ca`, `--insecure`) comes first, then the variables that machines in
companies set for all programs: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY in either case; SSL_CERT_FILE
and SSL_CERT_DIR, which OpenSSL itself reads; REQUESTS_CA_BUNDLE and NODE_EXTRA_CA_CERTS, which add to the
system's certificates. No proxy is used for this machine itself. stdio servers inherit these variables.
"""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from local_mcp_gateway.gateway.upstreams.connection import UpstreamDisconnected
from local_mcp_gateway.store import NO_PROXY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.abc import AbstractResolver

    from local_mcp_gateway.store import ServerDefinition

ACCEPTED: Final = "gzip, deflate"
CONNECT_S: Final = 10
HEADER_BYTES: Final = 64 * 1024
"""How long a header of an answer may be: long policies and cookies are usual."""
ADDED_CERTIFICATES: Final = ("REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
PROXY_SIGN_IN: Final = (
    "its proxy wants a user name and a password: give them in the URL of the proxy"
)
LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class _Pool(aiohttp.TCPConnector):
    """The connections to one server."""

    def give_up(self) -> None:
        """Use each connection for one request from now on."""
        self._force_close = True


def give_up_pool(http: aiohttp.ClientSession) -> None:
    """Reuse no connection to a server that has closed one while it was in use."""
    if isinstance(http.connector, _Pool):
        http.connector.give_up()


def client_session(
    server: ServerDefinition, middlewares: Sequence[aiohttp.ClientMiddlewareType] = ()
) -> aiohttp.ClientSession:
    """Return a session with a pool of its own: idle connections close before most servers do it (5 s).

    Each request passes through the `middlewares`, which add what authorizes it. Cookies are kept, since load balancers tell by them where a session lives; they go to their own host
    only, and are sent as they came. Raises UpstreamDisconnected if proxy or certificates are of no use.
    """
    url = URL(server.url or "")
    return aiohttp.ClientSession(
        connector=_Pool(limit=0, keepalive_timeout=4, ssl=_trust(server, url)),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        cookie_jar=aiohttp.CookieJar(unsafe=True, quote_cookie=False),
        auto_decompress=False,
        headers={"Accept-Encoding": ACCEPTED},
        max_field_size=HEADER_BYTES,
        proxy=proxy_of(server, url),
        middlewares=middlewares,
    )


def sign_in_session(server: ServerDefinition, resolver: AbstractResolver) -> aiohttp.ClientSession:
    """Return a session for a sign-in at a server, which goes to other hosts too; without a proxy.

    Raises UpstreamDisconnected if the server's certificates are of no use.
    """
    trust = _trust(server, URL("https://any"))
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust, resolver=resolver, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def proxy_of(server: ServerDefinition, url: URL) -> URL | None:
    """Return the proxy to a URL: the server's own, or what the environment says."""
    if server.proxy is None:
        return proxy_for(url)
    return None if server.proxy == NO_PROXY else proxy_url(server.proxy)


def proxy_for(url: URL) -> URL | None:
    """Return the proxy that the environment names for a URL, if any."""
    host = url.host or ""
    proxies = getproxies()
    given = proxies.get(url.scheme) or proxies.get("all")
    if not given or host in LOCAL or proxy_bypass(host):
        return None
    return proxy_url(given)


def proxy_url(given: str) -> URL:
    """Return the URL of a proxy; a host and port alone are of an HTTP proxy."""
    try:
        proxy = URL(given if "://" in given else f"http://{given}")
    except ValueError:
        raise UpstreamDisconnected("the URL of its proxy is not valid", unsent=True) from None
    if proxy.scheme not in {"http", "https"} or not proxy.host:
        raise UpstreamDisconnected(
            f"its proxy {proxy.scheme}://{proxy.host}:{proxy.port} is not an HTTP proxy",
            unsent=True,
        )
    return proxy


def _trust(server: ServerDefinition, url: URL) -> ssl.SSLContext | bool:
    """Return what aiohttp trusts: a context, True for its own, or False for any certificate."""
    if url.scheme != "https" or server.insecure:
        return not server.insecure
    added = [os.environ[name] for name in ADDED_CERTIFICATES if os.environ.get(name)]
    given = () if server.ca is None else (server.ca,)
    return _context((*(path for path in added if Path(path).exists()), *given))


@lru_cache(16)
def _context(files: tuple[str, ...]) -> ssl.SSLContext | bool:
    """Return what trusts the system's certificates and those in files or folders."""
    if not files:
        return True
    context = ssl.create_default_context()
    for path in files:
        try:
            folder = Path(path).is_dir()
            context.load_verify_locations(None if folder else path, path if folder else None)
        except (OSError, ssl.SSLError) as error:
            why = getattr(error, "strerror", None) or "it holds no certificate"
            raise UpstreamDisconnected(
                f"the certificates in {path} cannot be read: {why}", unsent=True
            ) from None
    return context


def unreachable(error: aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError) -> str:
    """Describe why there is no connection, without the URL, which may hold a secret."""
    match error:
        case aiohttp.ClientHttpProxyError(status=407):
            return PROXY_SIGN_IN
        case aiohttp.ClientHttpProxyError():
            return f"its proxy answered HTTP {error.status}"
        case aiohttp.ClientProxyConnectionError():
            return f"no connection to its proxy {error.host}:{error.port}: {_why(error)}"
        case aiohttp.ClientConnectorCertificateError():
            said = getattr(error.certificate_error, "verify_message", "") or "it is not valid"
            return f"its certificate is not trusted: {said}; `server edit --ca` names its authority"
        case aiohttp.ClientConnectorSSLError():
            return f"no TLS with {error.host}:{error.port}: {_why(error)}"
        case _:
            return f"no connection to {error.host}:{error.port}: {_why(error)}"


def _why(error: aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
    if (number := getattr(cause, "errno", None)) and number > 0 and not hasattr(cause, "reason"):
        return os.strerror(number)
    return str(getattr(cause, "reason", None) or getattr(cause, "strerror", None) or "refused")
