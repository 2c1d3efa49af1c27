"""Bridge a stdio client to the running gateway's HTTP endpoint.

Uses threads and the standard library only: a client starts this process for each session, so it has
to start fast. One thread reads stdin. Each request has a thread that posts it and writes the response
line by line, under one lock. If the gateway was restarted, the bridge repeats the client's own
`initialize` to open a new session and resends the request; the client does not notice.
"""

from __future__ import annotations

import base64
import codecs
import http.client
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

from local_mcp_gateway.gateway.protocol import hops
from local_mcp_gateway.json_input import parse_json

VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
NAMED: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    **dict.fromkeys(("tasks/get", "tasks/update", "tasks/cancel"), "taskId"),
}
ACCEPT: Final = "application/json, text/event-stream"
BRIDGE: Final = "Local-Mcp-Gateway-Bridge"
"""Says that the client cannot repeat arguments as headers (`Mcp-Param-*`)."""
_TOKEN: Final = re.compile(
    rb'[\[\]{}]|"((?:[^"\\]|\\.)*+)"(?:\s*:\s*("(?:[^"\\]|\\.)*+"|-?\d++(?![.eE])))?', re.DOTALL
)
"""A bracket, or a string; if it names a string or an integer, with that."""
PATIENCE_S: Final = 10.0
"""How long to wait for a gateway that is not running (it may be restarting)."""


class OpenRequest:
    """A request that its client still waits for."""

    def __init__(self) -> None:
        self.connection: http.client.HTTPConnection | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Close its connection, or keep it from being sent."""
        self.cancelled = True
        if self.connection is not None and self.connection.sock is not None:
            with suppress(OSError):
                self.connection.sock.shutdown(2)


class Bridge:
    """One client on stdin and stdout."""

    def __init__(
        self,
        url: str,
        output: IO[str],
        token: str | None = None,
        absent: Callable[[str], None] = lambda _: None,
        certificate: Path | None = None,
    ) -> None:
        """Reach the gateway at a URL; `absent` is called with the sentence for a person if there is none.

        `certificate` is the file of this very gateway's: no other one is accepted then, whatever its name.
        Without it the certificates that the system trusts are.
        """
        parts = urlsplit(url)
        if not parts.hostname or parts.scheme not in {"http", "https"}:
            raise ValueError("it has no http:// or https:// and host")
        self._absent = absent
        self._secure = parts.scheme == "https"
        self._certificate = certificate
        self._system: ssl.SSLContext | None = None
        self._host, self._port = parts.hostname, parts.port or (443 if self._secure else 80)
        self._origin, self._path = f"{parts.scheme}://{self._host}:{self._port}", parts.path
        self._output = output
        self._authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._writing = threading.Lock()
        self._opening = threading.Lock()
        self.refused: str | None = None
        """Why the gateway rejected the client's `initialize`, if it did."""
        self._hello: bytes | None = None
        self._session: dict[str, str] = {}
        self._open: dict[str, OpenRequest] = {}
        """By the id of the request."""
        self._working: set[threading.Thread] = set()

    def run(self, lines: Iterable[bytes]) -> None:
        """Serve until stdin ends, then wait for the outstanding responses."""
        for line in lines:
            body = line.strip().removeprefix(codecs.BOM_UTF8)
            if not body:
                continue
            try:
                message = parse_json(body)
            except ValueError:
                self._write_error(_id_in(body), -32700, "Parse error")
                continue
            if isinstance(message, list):  # a JSON-RPC batch, which only 2025-03-26 has
                self._start(self._call, body, {"id": None}, OpenRequest(), wait=True)
                continue
            self._take(body, message if isinstance(message, dict) else {})
        for thread in tuple(self._working):
            thread.join()
        if self._session:
            with suppress(OSError, http.client.HTTPException):
                self._request("DELETE", b"", self._session).close()

    def _take(self, body: bytes, message: Mapping[str, Any]) -> None:
        method, identity = message.get("method"), message.get("id")
        if method == "initialize":
            self._initialize(body, identity)
        elif method is not None and identity is not None:
            listening = method == "subscriptions/listen"
            self._open[json.dumps(identity)] = request = OpenRequest()
            self._start(self._call, body, message, request, wait=not listening)
        elif method == "notifications/cancelled":
            self._cancel(body, message)
        else:
            with suppress(OSError, http.client.HTTPException):
                self._request("POST", body, self._headers(message)).close()
            if method == "notifications/initialized":
                self._start(self._listen, wait=False)

    def _start(self, work: Any, *arguments: Any, wait: bool) -> None:
        def run() -> None:
            try:
                work(*arguments)
            finally:
                self._working.discard(thread)

        thread = threading.Thread(target=run, daemon=True)
        if wait:
            self._working.add(thread)
        thread.start()

    # --- to the gateway -------------------------------------------------------------------------

    def _initialize(self, body: bytes, identity: Any) -> None:
        self._hello = body
        try:
            text = _for(identity, self._shake_hands())
            self.refused = parse_json(text).get("error", {}).get("message")
            self._write(text)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            self._write_error(identity, -32001, self._why(error))

    def _why(self, error: Exception) -> str:
        """Say why the gateway does not answer; where none runs, also to the person, and how to start one."""
        if isinstance(error, UnusableCertificate):
            return str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._not_trusted(error)
        if isinstance(error, http.client.RemoteDisconnected) and not self._secure:
            return f"{self._origin} closed the connection: it may be served with https:// now."
        if not isinstance(error, ConnectionRefusedError):
            return f"The gateway does not answer: {error}"
        text = (
            f"No gateway is running at {self._origin}: start one with"
            " `local-mcp-gateway serve`, or `local-mcp-gateway service start`."
        )
        self._absent(text)
        return text

    def _shake_hands(self) -> str:
        assert self._hello is not None, "the client has said initialize"
        with _patiently(lambda: self._request("POST", self._hello or b"", {})) as reply:
            text = reply.read().decode()
            session = reply.headers["Mcp-Session-Id"]
        version = parse_json(text).get("result", {}).get("protocolVersion", "")
        if session:
            self._session = {"Mcp-Session-Id": session, "MCP-Protocol-Version": version}
        return text

    def _call(self, body: bytes, message: Mapping[str, Any], request: OpenRequest) -> None:
        identity = message["id"]
        try:
            session = self._session
            reply = _patiently(lambda: self._request("POST", body, self._headers(message), request))
            if reply.status == 404 and session and self._hello is not None:
                reply.close()
                self._renew(session)
                reply = self._request("POST", body, self._headers(message), request)
            with reply:
                for text in _messages(reply):
                    self._write(_for(identity, text) if reply.status >= 400 else text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not request.cancelled:
                self._write_error(identity, -32001, self._why(error))
        finally:
            if self._open.get(key := json.dumps(identity)) is request:
                del self._open[key]

    def _renew(self, old: Mapping[str, str]) -> None:
        """Open a new session, once for all requests that found the old one gone."""
        with self._opening:
            if self._session is not old:
                return
            self._shake_hands()
        ready = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        self._request("POST", ready, self._session).close()
        self._start(self._listen, wait=False)

    def _listen(self) -> None:
        """Forward server messages from the GET stream while this session lasts."""
        session, last = self._session, ""
        while session is self._session:
            headers = {**session, "Accept": "text/event-stream"}
            if last:
                headers["Last-Event-ID"] = last
            with (
                suppress(OSError, http.client.HTTPException),
                self._request("GET", b"", headers) as reply,
            ):
                if reply.status != 200:
                    return
                for number, text in _events(reply):
                    last = number or last
                    if text:
                        self._write(text)
            time.sleep(0.5)

    def _cancel(self, body: bytes, message: Mapping[str, Any]) -> None:
        """Tell the gateway in a session, and close the connection: it may not have read the request yet."""
        if self._session:
            with suppress(OSError, http.client.HTTPException):
                self._request("POST", body, self._session).close()
        params = message.get("params")
        key = json.dumps(params.get("requestId") if isinstance(params, dict) else None)
        if (request := self._open.pop(key, None)) is not None:
            request.cancel()

    def _headers(self, message: Mapping[str, Any]) -> dict[str, str]:
        params = message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        version = meta.get(VERSION_KEY) if isinstance(meta, dict) else None
        method = message.get("method")
        if not isinstance(version, str) or not isinstance(method, str):
            return self._session
        headers = {"MCP-Protocol-Version": _header(version), "Mcp-Method": _header(method)}
        name = (params or {}).get(NAMED.get(method, ""))
        if isinstance(name, str):
            headers["Mcp-Name"] = _header(name)
        return headers

    def _request(
        self,
        method: str,
        body: bytes,
        headers: Mapping[str, str],
        request: OpenRequest | None = None,
    ) -> http.client.HTTPResponse:
        connection = self._connection()
        sent = {"Content-Type": "application/json", "Accept": ACCEPT, "Connection": "close"}
        sent[BRIDGE] = "1"
        if via := os.environ.get(hops.VARIABLE):
            sent[hops.HEADER] = via
        with ExitStack() as unanswered:
            unanswered.callback(connection.close)
            if request is not None:
                request.connection = connection
                connection.connect()
                if request.cancelled:  # before there was something to close
                    raise ConnectionAbortedError
            connection.request(method, self._path, body, {**sent, **self._authorization, **headers})
            response = connection.getresponse()
            unanswered.pop_all()
            return response

    def _connection(self) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port)
        if self._certificate is not None:  # it may have been renewed since the last request
            context = _only(self._certificate)
        else:
            context = self._system = self._system or ssl.create_default_context()
        return http.client.HTTPSConnection(self._host, self._port, context=context)

    def _not_trusted(self, error: ssl.SSLCertVerificationError) -> str:
        if self._certificate is None:
            return (
                f"The certificate of {self._origin} is not trusted: {error.verify_message}. Trust its issuer"
                " on this machine, or name its file in SSL_CERT_FILE."
            )
        return (
            f"The certificate of {self._origin} is not the one in {self._certificate}. If that file is newer,"
            " `local-mcp-gateway reload` applies it."
        )

    # --- to the client --------------------------------------------------------------------------

    def _write(self, text: str) -> None:
        with self._writing:
            self._output.write(text + "\n")
            self._output.flush()

    def _write_error(self, identity: Any, code: int, text: str) -> None:
        error = {"code": code, "message": text}
        self._write(json.dumps({"jsonrpc": "2.0", "id": identity, "error": error}))


def _patiently(request: Any) -> http.client.HTTPResponse:
    """Send a request; retry for a while if the gateway refuses the connection."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            reply: http.client.HTTPResponse = request()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return reply


class UnusableCertificate(OSError):
    """The gateway's own certificate cannot be read; a gateway that runs has an earlier one."""

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(
            f"The certificate {file} cannot be used: {why}. Put a valid one there, or leave"
            " gateway.tls_cert empty for http."
        )


def _only(file: Path) -> ssl.SSLContext:
    """Return a context that accepts the first certificate in a file, under any name, and nothing else.

    Raises UnusableCertificate.
    """
    try:
        text = file.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise UnusableCertificate(file, error.strerror or str(error)) from None
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    first = begin + text.partition(begin)[2].partition(end)[0] + end
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=first)
    except ssl.SSLError:
        raise UnusableCertificate(file, "the file has no certificate in PEM") from None
    return context


def _for(identity: Any, text: str) -> str:
    """Return a gateway error with the id of the request, since the gateway may not have read it."""
    with suppress(ValueError):
        message = parse_json(text)
        if isinstance(message, dict) and message.get("id") is None and "error" in message:
            return json.dumps({**message, "id": identity})
    return text


def _id_in(body: bytes) -> Any:
    """Return the id at the top of a message that cannot be parsed, or None: its client waits for it."""
    level = 0
    for found in _TOKEN.finditer(body):
        level += (found[0] in b"{[") - (found[0] in b"}]")
        if level == 1 and found[1] == b"id" and found[2] is not None:
            with suppress(ValueError):
                return parse_json(found[2])
    return None


def _messages(reply: http.client.HTTPResponse) -> Iterator[str]:
    if (reply.headers["Content-Type"] or "").startswith("text/event-stream"):
        yield from (text for _, text in _events(reply) if text)  # a priming event has none
    elif text := reply.read().decode().replace("\n", " "):
        yield text


def _events(reply: http.client.HTTPResponse) -> Iterator[tuple[str, str]]:
    """Yield id and data of each event; a JSON text may span several data lines."""
    number, data = "", []
    for raw in reply:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif line.startswith("id:"):
            number = line[3:].strip()
        elif not line and data:
            yield number, " ".join(data)
            number, data = "", []


def _header(value: str) -> str:
    if value.isascii() and value.isprintable() and value == value.strip():
        return value
    value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # as the gateway
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="
