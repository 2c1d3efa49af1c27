"""Who may see the pages: one-time links, sessions in memory, and the checks of every request.

A link is shown to whoever can reach the control socket, works once and ends after ten minutes. It
becomes a cookie that no script can read and that no other site's request carries. Sessions are kept in
memory, so they end with the daemon, or after twelve hours.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from local_mcp_gateway.studio.http import Request

LINK_S: Final = 600.0
SESSION_S: Final = 12 * 3600.0
MOST_LINKS: Final = 32
MOST_SESSIONS: Final = 64
MOST_UNDO: Final = 20
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST: Final = re.compile(r"(?:\[([\da-f:.]+)\]|([\w.-]+))(?::\d{1,5})?", re.ASCII)


@dataclass(slots=True)
class Notice:
    """What the next page says once: a sentence, and the number of a change that can be undone."""

    text: str
    undo: int | None = None
    bad: bool = False


@dataclass(slots=True)
class Session:
    """One browser that has come in."""

    form_token: str
    """What every form carries, so that no other site's form is taken for ours."""
    ends_at: float
    notice: Notice | None = None
    undo: dict[int, object] = field(default_factory=dict)
    """Number → how to take a change of this browser back; the newest ones."""
    logins: dict[str, tuple[str, object]] = field(default_factory=dict)
    """State of a sign-in that waits for its answer → the server, and what finishing it takes."""
    queries: list[str] = field(default_factory=list)
    """The SQL that this browser ran, newest first."""
    counts: dict[object, int] = field(default_factory=dict)
    """What was counted, and when in the life of the database → how many rows; the newest ones."""

    def remember(self, way_back: object) -> int:
        """Keep how to take a change back and return its number."""
        number = max(self.undo, default=0) + 1
        self.undo[number] = way_back
        for old in list(self.undo)[:-MOST_UNDO]:
            del self.undo[old]
        return number

    def take_notice(self) -> Notice | None:
        """Return the notice and forget it."""
        notice, self.notice = self.notice, None
        return notice


class Door:
    """Lets browsers in."""

    def __init__(
        self,
        allowed_hosts: Collection[str] = (),
        *,
        cookie: str = "studio",
        secure: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cookie = cookie
        self._attributes = "HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")
        self._hosts = LOOPBACK | {host.lower() for host in allowed_hosts}
        self._clock = clock
        self._links: dict[bytes, float] = {}
        self._sessions: dict[bytes, Session] = {}

    def make_link(self) -> str:
        """Return the token of a link that works once."""
        token = secrets.token_urlsafe(32)
        self._links[_digest(token)] = self._clock() + LINK_S
        _drop_oldest(self._links, MOST_LINKS)
        return token

    def enter(self, token: str) -> tuple[str, Session] | None:
        """Use a link up: return the value of the cookie and the session; None if it is not valid."""
        ends_at = self._links.pop(_digest(token), None)
        if ends_at is None or ends_at <= self._clock():
            return None
        value = secrets.token_urlsafe(32)
        session = Session(secrets.token_urlsafe(32), self._clock() + SESSION_S)
        self._sessions[_digest(value)] = session
        _drop_oldest(self._sessions, MOST_SESSIONS)
        return value, session

    def session_of(self, request: Request) -> Session | None:
        """Return the session whose cookie the request carries."""
        digest = self._shown(request)
        session = None if digest is None else self._sessions.get(digest)
        if session is not None and digest is not None and session.ends_at <= self._clock():
            del self._sessions[digest]
            return None
        return session

    def leave(self, request: Request) -> None:
        """End the session of the request."""
        if (digest := self._shown(request)) is not None:
            self._sessions.pop(digest, None)

    def cookie_header(
        self, value: str, age_s: float = SESSION_S, name: str = ""
    ) -> tuple[bytes, bytes]:
        """Return the header that gives the session's cookie, or another one, to the browser."""
        text = f"{name or self.cookie}={value}; Path=/; {self._attributes}; Max-Age={age_s:.0f}"
        return b"set-cookie", text.encode()

    def refusal(self, request: Request) -> str | None:
        """Return why a request is refused before anything else is checked, or None.

        A page of another site may reach us under its own name (DNS rebinding), so the name is checked.
        What changes something has to come from a page of this very origin: another port of this machine
        is another program.
        """
        found = _HOST.fullmatch(request.host)
        if found is None or (found[1] or found[2]) not in self._hosts:
            return "This name is not allowed; the setting gateway.allowed_hosts lists more."
        origin = request.headers.get("origin")
        ours = (f"http://{request.host}", f"https://{request.host}")
        if origin is not None and origin.lower() not in ours:
            return "This request came from a page of another site."
        if request.method not in {"GET", "HEAD"} and origin is None:
            return "This request does not say which page it came from."
        site = request.headers.get("sec-fetch-site", "none")
        top = request.headers.get("sec-fetch-dest", "document") == "document"
        if site in {"cross-site", "same-site"} and not (request.method == "GET" and top):
            return "This request came from a page of another site."
        return None

    @staticmethod
    def is_own_form(request: Request, session: Session) -> bool:
        """Tell whether a form was made by a page of this session."""
        shown = request.given("form_token").encode()
        return hmac.compare_digest(shown, session.form_token.encode())

    def _shown(self, request: Request) -> bytes | None:
        for pair in request.headers.get("cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self.cookie:
                return _digest(value)
        return None


def _digest(token: str) -> bytes:
    """Return what is kept of a secret: looking it up takes no time that tells how much of it is right."""
    return sha256(token.encode("utf-8", "replace")).digest()


def _drop_oldest(
    kept: dict[bytes, object] | dict[bytes, float] | dict[bytes, Session], most: int
) -> None:
    for old in list(kept)[: max(0, len(kept) - most)]:
        del kept[old]
