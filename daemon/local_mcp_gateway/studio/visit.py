"""What the function behind a page gets: the request, the session, and what pages may use (`Powers`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from local_mcp_gateway.database import reading
from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.studio.http import Response, redirect
from local_mcp_gateway.studio.sessions import Notice, Session

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from local_mcp_gateway.database import Connection, ConnectionPool, Progress
    from local_mcp_gateway.studio.http import Request
    from local_mcp_gateway.studio.sessions import Door


class Ask(Protocol):
    """Runs one verb, as the command line does."""

    def __call__(
        self, verb: str, arguments: dict[str, Any], progress: Progress = ..., /
    ) -> Awaitable[Any]:
        """Return what the verb answers; its progress is told meanwhile."""


Page = Callable[["Visit"], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Powers:
    """What the pages may reach."""

    database: Path
    migrations: Path | None = None
    backups: Path | None = None
    ask: Ask | None = None
    """None: no gateway, so only the pages about the database are there."""
    pool: ConnectionPool | None = None
    """The open database of a gateway; rows are written through it."""
    work: Ask | None = None
    """Runs commands of the guard: `rehearse`, `backup`, `verify`, `compare`, `draft`, `generate`, and without
    a gateway `restore`."""
    look: Callable[[Path], AbstractContextManager[Connection]] = reading
    """Opens the database for reading. A process that serves it may do so through SQLite only."""
    prepare: Any = None
    """Registers what migrations use beyond SQLite, on a connection."""
    record: Callable[[Any, str, str, str | None], Awaitable[None]] | None = None
    """Puts what is changed into the audit of a gateway, in the transaction of the change."""
    changed: Callable[[], Awaitable[None]] | None = None
    """Called after rows were changed."""
    own: str = ""
    """`http://HOST:PORT`, where clients reach the gateway."""
    default_profile: Callable[[], str] = lambda: "default"
    client_entries: Callable[[str], Iterable[tuple[str, str]]] = lambda _: ()
    """Return which clients reach the profile at an address how, as `connect` does."""
    client_document: str = ""
    """The URL of this gateway's metadata as a client of other servers' sign-in."""
    writable: bool = False
    """Whether rows may be changed."""
    last_start: Callable[[], Mapping[str, Any] | None] = lambda: None
    emit: Callable[..., None] = lambda *_, **__: None
    protected: frozenset[str] = frozenset()
    """Tables whose rows are never changed here."""
    masked: frozenset[tuple[str, str]] = frozenset()
    """Columns (table, name) whose values are neither shown nor changed."""


class Pages(Protocol):
    """What a page may ask of the studio that serves it."""

    powers: Powers
    door: Door

    @property
    def home(self) -> str:
        """Return the address of the first page."""

    async def page(self, visit: Visit, template: str, *, status: int, **values: Any) -> Response:
        """Return a page with everything that surrounds it."""

    async def standing(self) -> Any:
        """Return where the database stands, a `migrations.Standing`."""

    def forget_pending(self) -> None:
        """Count the pending migrations again: something has changed."""

    def working(self, number: str) -> AbstractContextManager[Progress]:
        """Show the progress of what is done inside the block to the page that gave it this number."""

    def keep_rehearsal(self, pending: tuple[str, ...], outcome: Mapping[str, Any]) -> None:
        """Keep how the rehearsal of these migrations (their hashes) went, until they are others."""

    def rehearsal_of(self, pending: tuple[str, ...]) -> Mapping[str, Any] | None:
        """Return how their rehearsal went, if there was one."""


@dataclass(slots=True)
class Visit:
    """One request of a browser that has come in."""

    studio: Pages
    request: Request
    session: Session
    arguments: tuple[str, ...] = ()
    """The named parts of the path."""
    problem: GatewayError | None = None
    """Why the form that is shown again was refused."""

    @property
    def powers(self) -> Powers:
        """Return what the pages may reach."""
        return self.studio.powers

    async def ask(self, verb: str, **arguments: Any) -> Any:
        """Run one verb of the gateway."""
        assert self.powers.ask is not None, "the pages of the gateway are there with one only"
        with self.studio.working(self.request.given("work")) as progress:
            return await self.powers.ask(verb, arguments, progress)

    async def work(self, verb: str, **arguments: Any) -> Any:
        """Run one command of the guard; raises UsageProblem where that is not done from here."""
        if self.powers.work is None:
            raise UsageProblem("This is not done from here.", hint=f"Use `db {verb}`.")
        with self.studio.working(self.request.given("work")) as progress:
            return await self.powers.work(verb, arguments, progress)

    async def page(self, template: str, *, status: int | None = None, **values: Any) -> Response:
        """Return a page; its status is 400 if it shows why a form was refused."""
        chosen = status or (400 if self.problem else 200)
        return await self.studio.page(self, template, status=chosen, **values)

    def confirm(self, name: str, done: str) -> None:
        """Raise UsageProblem if another name than this was typed to confirm; `done`: "removed"."""
        if self.request.given("typed").strip() != name:
            raise UsageProblem(
                f"Nothing was {done}: the name that was typed is another one.", hint=f"Type {name}."
            )

    def back(self, to: str, text: str, *, undo: int | None = None) -> Response:
        """Return to a page, which says once what was done."""
        self.session.notice = Notice(text, undo)
        return redirect(to)


def refused_on(page: Page) -> Callable[[Page], Page]:
    """Have a form that is refused answered with its page, which says why."""

    def of(handler: Page) -> Page:
        @wraps(handler)
        async def answer(visit: Visit) -> Response:
            try:
                return await handler(visit)
            except GatewayError as error:
                visit.problem = error
                return await page(visit)

        return answer

    return of
