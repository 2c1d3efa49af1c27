"""HTTP for the pages: requests, forms, responses, and the security headers of every response."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote, urlencode

from local_mcp_gateway.errors import UsageProblem

Scope = Mapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]
Headers = list[tuple[bytes, bytes]]
Fields = Mapping[str, list[str]]

MOST_FORM_BYTES: Final = 4 * 1024 * 1024
MOST_FIELDS: Final = 5_000
MOST_DIGITS: Final = 18
HTML: Final = "text/html; charset=utf-8"
_SPACE: Final = b" \t"
SAFE: Final[Headers] = [
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
            b" connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
    ),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    # Not `no-referrer`: a browser would then send `Origin: null` with our own forms.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
NO_STORE: Final = (b"cache-control", b"no-store")


@dataclass(slots=True)
class Request:
    """One request of a browser."""

    method: str
    path: str
    """Still percent-encoded, so that a name may hold a slash."""
    query: Fields
    headers: Mapping[str, str]
    receive: Receive
    form: Fields = field(default_factory=dict)

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> Request:
        """Read the request line and the headers. Raises UsageProblem for a malformed query."""
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1"), value.strip(_SPACE).decode("latin-1")
            glue = "; " if key == "cookie" else ", "
            headers[key] = f"{headers[key]}{glue}{text}" if key in headers else text
        path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
        query = _fields(scope.get("query_string", b"").decode("latin-1"))
        return cls(scope["method"], path.partition("?")[0], query, headers, receive)

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the decoded parts of the path below `/studio`."""
        return tuple(map(unquote, self.path.split("/")[2:]))

    @property
    def by_script(self) -> bool:
        """Return whether a page that is open asks for itself again."""
        return "x-requested-with" in self.headers

    @property
    def host(self) -> str:
        """Return the `Host` header in lower case."""
        return self.headers.get("host", "").lower()

    def asked(self, name: str, default: str = "") -> str:
        """Return the last value of a parameter of the query."""
        return self.query.get(name, [default])[-1]

    def given(self, name: str) -> str:
        """Return the last value of a field of the form; empty without one."""
        return self.form.get(name, [""])[-1]

    def link(self, **changes: object) -> str:
        """Return this address with some parameters of the query changed; None leaves one out."""
        merged: dict[str, list[str]] = {**self.query}
        for name, value in changes.items():
            merged.pop(name, None)
            if value is not None:
                merged[name] = [str(value)]
        query = urlencode(merged, doseq=True)
        return f"{self.path}?{query}" if query else self.path

    async def read_form(self) -> None:
        """Read the fields of a form; raises UsageProblem if it is too large or no form."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise UsageProblem("This address takes a form.", hint="Send it from the page.")
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self.receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = bool(message.get("more_body"))
            if size > MOST_FORM_BYTES:
                raise UsageProblem("The form is too large.", hint="Send less than 4 MiB.")
        self.form = _fields(b"".join(parts).decode("latin-1"))


async def until_left(receive: Receive) -> None:
    """Wait until the browser has left; its request was read to the end."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _fields(text: str) -> dict[str, list[str]]:
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise UsageProblem(
            "What the browser sent cannot be read.", hint="Go back and send it again."
        ) from None


@dataclass(slots=True)
class Response:
    """One response; `chunks` instead of `body` for what is sent as it comes."""

    body: str | bytes = b""
    status: int = 200
    kind: str = HTML
    headers: Headers = field(default_factory=list)
    chunks: AsyncGenerator[bytes, None] | None = None

    async def send(self, send: Send) -> None:
        """Send it."""
        body = self.body.encode("utf-8", "replace") if isinstance(self.body, str) else self.body
        headers = [(b"content-type", self.kind.encode()), *SAFE, *self.headers]
        if not any(name == b"cache-control" for name, _ in headers):
            headers.append(NO_STORE)
        if self.chunks is None:
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if self.chunks is not None:
            async with aclosing(self.chunks) as chunks:
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": body})


def whole_number(text: str) -> int | None:
    """Return the number in a field or an address; None for any other text, and for more than MOST_DIGITS."""
    digits = text.strip()
    plain = digits.isascii() and digits.isdecimal() and len(digits) <= MOST_DIGITS
    return int(digits) if plain else None


def redirect(address: str, *headers: tuple[bytes, bytes]) -> Response:
    """Return the response that sends the browser to another of our pages with GET."""
    return Response(status=303, headers=[(b"location", address.encode("latin-1")), *headers])


def address(*parts: object, **query: object) -> str:
    """Return the address of a page below `/studio`, whatever characters are in its parts."""
    path = "/".join(["/studio", *(quote(str(part), safe="") for part in parts)])
    given = {name: str(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path
