"""The studio: an ASGI application that serves HTML pages, rendered on the server, about the gateway and its database.

A page calls the verbs that the command line calls, or writes rows in a transaction. Whoever creates the
studio passes in what the pages may use (`Powers`), so this package imports nothing of `service`.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway import __version__
from local_mcp_gateway.database import Error, Progress, describe_progress, no_progress
from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.studio import render
from local_mcp_gateway.studio.http import (
    HTML,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    address,
    redirect,
)
from local_mcp_gateway.studio.live import Live
from local_mcp_gateway.studio.visit import Page, Powers, Visit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from local_mcp_gateway.studio.migrations import Standing
    from local_mcp_gateway.studio.sessions import Door

GATEWAY: Final = (
    ("", "Overview", "o"),
    ("servers", "Servers", "s"),
    ("tools", "Tools", "t"),
    ("profiles", "Profiles", "p"),
    ("tokens", "Tokens", "k"),
    ("calls", "Calls", "c"),
)
FIRST: Final = ("bare.html", "enter.html", "base.html", "parts.html", "logo.svg")
"""What the first page is made of, besides its own template."""
LOOK_S: Final = 0.5
LOOK_AGAIN_S: Final = 2.0
DATABASE: Final = (("migrations", "Migrations", "m"), ("data", "Data", "d"))


class Studio:
    """The pages. Call it as an ASGI application; all methods run on the event loop."""

    def __init__(self, powers: Powers, door: Door) -> None:
        from local_mcp_gateway.studio import (
            console,
            data_pages,
            diagram,
            migrations,
            points,
            row_pages,
        )

        self.powers = powers
        self.door = door
        self.live = Live()
        self._standings = migrations.Standings(powers)
        self.routes: dict[tuple[str, str], Page] = {
            **data_pages.ROUTES,
            **row_pages.ROUTES,
            **console.ROUTES,
            **diagram.ROUTES,
            **migrations.ROUTES,
            **points.ROUTES,
        }
        if powers.ask is not None:
            from local_mcp_gateway.studio import calls, overview, profiles, servers, tokens, tools

            for module in (overview, servers, profiles, tokens, tools, calls):
                self.routes |= module.ROUTES
        self.routes |= {("POST", "theme"): _theme, ("POST", "leave"): self._leave}
        self.routes["GET", "working"] = self._progress
        self._pending = 0
        self._looked_at: float | None = None
        self._counting: asyncio.Future[int] | None = None
        self._working: dict[str, tuple[str, int | None]] = {}
        self._rehearsal: tuple[tuple[str, ...], Mapping[str, Any]] = ((), {})

    def prepare(self) -> None:
        """Compile the templates of the first page, before it is asked for. Blocks; for another thread."""
        for name in (*FIRST, "tables.html" if self.powers.ask is None else "overview.html"):
            render.environment().get_template(name)

    @contextmanager
    def working(self, number: str) -> Iterator[Progress]:
        """Show the progress of what is done inside the block to the page that gave it this number."""

        def tell(phase: str, done: int, total: int) -> None:
            self._working[number] = describe_progress(phase, done, total)

        try:
            yield tell if number else no_progress
        finally:
            self._working.pop(number, None)

    async def _progress(self, visit: Visit) -> Response:
        """Tell the page that waits for what it has begun how far that is."""
        words, percent = self._working.get(visit.request.asked("work"), (None, None))
        return Response(json.dumps({"words": words, "percent": percent}), kind="application/json")

    def keep_rehearsal(self, pending: tuple[str, ...], outcome: Mapping[str, Any]) -> None:
        """Keep how the rehearsal of these migrations (their hashes) went, until they are others."""
        self._rehearsal = pending, {**outcome, "at": now_ms()}

    def rehearsal_of(self, pending: tuple[str, ...]) -> Mapping[str, Any] | None:
        """Return how their rehearsal went, if there was one."""
        kept, outcome = self._rehearsal
        return outcome if outcome and kept == pending else None

    @property
    def home(self) -> str:
        """Return the address of the first page."""
        return address("") if self.powers.ask else address("data")

    def link(self) -> str:
        """Return the path that lets one browser in, once."""
        return f"/studio/enter?token={self.door.make_link()}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            response = await self._answer(scope, receive)
        except GatewayError as error:
            response = self._sentence(400, error.message, error.hint)
        await response.send(send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        request = Request.of(scope, receive)
        if (why := self.door.refusal(request)) is not None:
            self.powers.emit("studio.refused", reason=why, path=scope["path"])
            return self._sentence(
                403, why, "Open the address that `local-mcp-gateway open` prints."
            )
        if request.method == "HEAD":
            request.method = "GET"
        parts = request.parts
        if parts[:1] == ("static",) and request.method == "GET":
            return _static(parts[-1])
        if parts == ("enter",) and request.method == "GET":
            return self._enter(request)
        if parts == ("signed-in",) and request.method == "GET":
            # From another site, so without the cookie: this page goes on to where it is sent.
            to = address("sign-in") + request.link().removeprefix(request.path)
            return self._plain("enter.html", 200, to=to)
        session = self.door.session_of(request)
        if session is None:
            return self._outside(request)
        if request.path in {"/", "/studio"}:
            return redirect(self.home)
        return await self._inside(Visit(self, request, session), receive)

    async def _inside(self, visit: Visit, receive: Receive) -> Response:
        request = visit.request
        if request.method == "POST":
            await request.read_form()
            if not self.door.is_own_form(request, visit.session):
                self.powers.emit("studio.refused", reason="foreign form", path=request.path)
                return self._sentence(
                    403, "This form was not made by a page of this session.", "Load the page again."
                )
        if request.parts == ("live",) and request.method == "GET":
            chunks = self.live.stream(receive, lambda: self.door.session_of(request) is not None)
            return Response(kind="text/event-stream", chunks=chunks)
        found = self._route(request)
        if found is None:
            return await visit.page("error.html", status=404, message="There is no such page.",
                                    hint="The list at the side names all of them.")  # fmt: skip
        handler, visit.arguments = found
        try:
            return await handler(visit)
        except GatewayError as error:
            return await visit.page(
                "error.html", status=400, message=error.message, hint=error.hint
            )
        except Error as error:
            return await visit.page(
                "error.html",
                status=400,
                message=f"SQLite refused: {error}.",
                hint="Nothing was changed. Go back; what you typed may still be there.",
            )
        except Exception:  # noqa: BLE001  a page that fails never ends the daemon
            self.powers.emit("studio.failed", path=request.path, traceback=traceback.format_exc())
            return await visit.page(
                "error.html",
                status=500,
                message="This page cannot be shown: the program made a mistake.",
                hint="The log has the details: `local-mcp-gateway logs`. Please report it.",
            )

    def _route(self, request: Request) -> tuple[Page, tuple[str, ...]] | None:
        parts = request.parts
        for (method, pattern), handler in self.routes.items():
            steps = tuple(pattern.split("/"))
            if method != request.method or len(steps) != len(parts):
                continue
            if all(step in {"*", part} for step, part in zip(steps, parts, strict=True)):
                named = [part for step, part in zip(steps, parts, strict=True) if step == "*"]
                return handler, tuple(named)
        return None

    async def page(self, visit: Visit, template: str, *, status: int, **values: Any) -> Response:
        """Return a page with everything that surrounds it."""
        shown = {
            "visit": visit,
            "powers": self.powers,
            "version": __version__,
            "form_token": visit.session.form_token,
            "notice": None if visit.request.by_script else visit.session.take_notice(),
            "theme": _theme_of(visit.request),
            "groups": self._groups(await self.waiting()),
            "here": (visit.request.parts or ("",))[0],
            "problem": visit.problem,
            **values,
        }
        return Response(render.environment().get_template(template).render(shown), status)

    async def standing(self) -> Standing:
        """Return where the database stands."""
        return await asyncio.to_thread(self._standings.read)

    async def waiting(self) -> dict[str, int]:
        """Return how many things wait for a person, by page; migrations are looked at every two seconds at most.

        No page waits long for those: a number that takes longer is on one of the next pages.
        """
        loop = asyncio.get_running_loop()
        is_old = self._looked_at is None or loop.time() - self._looked_at > LOOK_AGAIN_S
        if self._counting is None and is_old:
            self._looked_at = loop.time()
            self._counting = loop.run_in_executor(None, self._standings.count_waiting)
            self._counting.add_done_callback(self._counted)
        if self._counting is not None:
            await asyncio.wait({self._counting}, timeout=LOOK_S)
        return {"migrations": self._pending, **await self._servers_waiting()}

    def _counted(self, counting: asyncio.Future[int]) -> None:
        if counting is self._counting:  # else something has changed since it began
            self._counting = None
            self._pending = counting.result()

    async def _servers_waiting(self) -> dict[str, int]:
        if self.powers.ask is None:
            return {}
        servers = (await self.powers.ask("status", {}))["servers"].values()
        down = {"failed", "needs_sign_in"}
        return {
            "tools": sum(len(server["held"]) for server in servers),
            "servers": sum(server["state"] in down for server in servers),
        }

    def forget_pending(self) -> None:
        """Count the pending migrations again: something has changed."""
        self._pending = 0
        self._looked_at = self._counting = None

    def _groups(self, waiting: Mapping[str, int]) -> list[tuple[str, list[dict[str, Any]]]]:
        words = {"migrations": "pending", "tools": "held", "servers": "not up"}
        groups = [("Gateway", GATEWAY)] if self.powers.ask else []
        return [
            (
                title,
                [
                    {
                        "name": name,
                        "label": label,
                        "key": key,
                        "to": address(name),
                        "count": waiting.get(name, 0),
                        "word": words.get(name, ""),
                    }
                    for name, label, key in items
                ],
            )
            for title, items in [*groups, ("Database", DATABASE)]
        ]

    def _enter(self, request: Request) -> Response:
        entered = self.door.enter(request.asked("token"))
        if entered is None:
            self.powers.emit("studio.refused", reason="no valid link", path="/studio/enter")
            return self._sentence(
                403,
                "This link was used already, or is older than ten minutes.",
                "Make a new one with `local-mcp-gateway open`.",
            )
        self.powers.emit("studio.entered")
        # Not a redirect: after a click in another site's page the browser would not send the cookie on.
        return self._plain("enter.html", 200, self.door.cookie_header(entered[0]), to=self.home)

    async def _leave(self, visit: Visit) -> Response:
        self.door.leave(visit.request)
        return redirect("/", self.door.cookie_header("", 0))

    def _outside(self, request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            if request.method != "GET":
                way = (
                    "Run `local-mcp-gateway open`" if self.powers.ask else "Start `db studio` again"
                )
                return self._sentence(
                    401,
                    "You are signed out, so nothing was changed.",
                    f"{way}, and do it once more.",
                )
            status = 200 if request.path in {"/", "/studio", "/studio/"} else 401
            return self._plain("outside.html", status, database=self.powers.ask is None)
        return Response("Open the pages with `local-mcp-gateway open`.\n", 401, "text/plain")

    def _sentence(self, status: int, message: str, hint: str) -> Response:
        return self._plain("sentence.html", status, message=message, hint=hint)

    @staticmethod
    def _plain(
        template: str, status: int, *headers: tuple[bytes, bytes], **values: Any
    ) -> Response:
        text = render.environment().get_template(template).render(theme="", **values)
        return Response(text, status, HTML, list(headers))


def _static(name: str) -> Response:
    content = render.asset(name)
    if content is None:
        return Response("There is no such file.\n", 404, "text/plain")
    kind = render.KINDS["." + name.rpartition(".")[2]]
    kept = (b"cache-control", b"public, max-age=31536000, immutable")
    return Response(content, 200, kind, [kept])


THEMES: Final = ("", "light", "dark")
YEAR_S: Final = 365 * 86_400


def _theme_of(request: Request) -> str:
    for pair in request.headers.get("cookie", "").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == "studio_theme" and value in THEMES:
            return value
    return ""


async def _theme(visit: Visit) -> Response:
    chosen = visit.request.given("theme")
    if chosen not in THEMES:
        raise UsageProblem(f"There is no theme {chosen!r}.", hint="Choose system, light or dark.")
    cookie = visit.studio.door.cookie_header(chosen, YEAR_S, "studio_theme")
    return redirect(inside(visit.request.given("to"), visit.studio.home), cookie)


def inside(given: str, otherwise: str) -> str:
    """Return an address to go on to if it is one of our own pages."""
    return (
        given
        if given.startswith("/studio/") and given.isascii() and given.isprintable()
        else otherwise
    )
