"""Route requests about MCP tasks to the server that made the task.

A task outlives the request that made it, and the gateway too. So its id says where it is: a client gets
the server's name before the server's own id, and no table is kept. Both kinds of tasks are known: those of
2025-11-25, and the extension `io.modelcontextprotocol/tasks` of the stateless protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.gateway.catalog import Route
from local_mcp_gateway.gateway.protocol import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Answer,
    decode_any,
    decode_batch,
    decode_members,
    edit,
    encode,
    failure,
    jsonrpc,
    member,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import msgspec

    from local_mcp_gateway.gateway.routing.handlers import ClientRequest, Forward
    from local_mcp_gateway.gateway.routing.registry import Registry
    from local_mcp_gateway.gateway.upstreams import Caller, Relay, Upstream

METHODS: Final = ("tasks/get", "tasks/result", "tasks/cancel", "tasks/update", "tasks/list")
NOTIFICATIONS: Final = frozenset({"notifications/tasks", "notifications/tasks/status"})
_RELATED: Final = "io.modelcontextprotocol/related-task"
_BETWEEN: Final = ":"
"""Stands between server and id; no name of a server has it."""


class TaskRequests:
    """Handles requests about tasks. Stateless."""

    def __init__(self, registry: Registry, forward: Forward) -> None:
        self._registry = registry
        self._forward = forward

    async def handle(self, request: ClientRequest) -> Answer:
        """Forward a request about one task, or list those of all servers."""
        members = self._registry.members(request.profile, request.session)
        able = [server for server in members if server.identity and server.identity.makes_tasks]
        view = self._registry.view(request.profile, request.session, request.token_id)
        if request.method == "tasks/list" and view.visibility is not None:
            able = []  # it would list those of tools that do not exist for this client
        if not able:
            return failure(METHOD_NOT_FOUND, f"Method not found: {request.method}")
        if request.method == "tasks/list":
            return await self._list(request, able)
        identity = decode_any(member(request.params, "taskId") or b"null")
        if not isinstance(identity, str):
            return failure(INVALID_PARAMS, "Invalid params: a task has a taskId")
        request.target = identity
        name, _, own = identity.partition(_BETWEEN)
        if name not in {server.name for server in able}:
            return failure(INVALID_PARAMS, "Failed to retrieve task: Task not found")
        params = _edited(request.params, lambda _: own)
        return await self._forward(request, Route(name, own), params, whole=True)

    async def _list(self, request: ClientRequest, able: list[Upstream]) -> Answer:
        """Return the tasks of one server after the other, until one has more of them to come."""
        given = decode_any(member(request.params, "cursor") or b"null")
        name, _, cursor = given.partition(_BETWEEN) if isinstance(given, str) else ("", "", "")
        names = [server.name for server in able if server.identity and server.identity.lists_tasks]
        if given is not None and name not in names:
            return failure(INVALID_PARAMS, "Invalid params: the cursor is not known")
        found: list[msgspec.Raw] = []
        for server in names[names.index(name) if name else 0 :]:
            own = encode(cursor) if cursor else None
            cursor = ""
            params = edit(request.params, {"cursor": own})
            answer = await self._forward(request, Route(server, ""), params, whole=True)
            if answer.failed:
                if len(names) == 1 or own is not None:
                    return answer
                continue
            page = decode_members(answer.body)
            found += decode_batch(page.get("tasks", b"[]"))
            if (following := decode_any(page.get("nextCursor", b"null"))) is not None:
                return _page(found, f"{server}{_BETWEEN}{following}")
        return _page(found, None)


def _page(tasks: list[msgspec.Raw], cursor: str | None) -> Answer:
    page: dict[str, Any] = {"tasks": tasks}
    return jsonrpc.success(page if cursor is None else {**page, "nextCursor": cursor})


def shown_tasks(server: str, body: bytes | memoryview) -> bytes:
    """Return a result or the params of a notification with the ids of tasks as clients know them."""
    raw = bytes(body)
    return _edited(raw, lambda own: f"{server}{_BETWEEN}{own}") if _names_task(raw) else raw


def _names_task(raw: bytes) -> bool:
    """Return whether a task may be named here: cheap, since most results name none."""
    return b'"taskId"' in raw or b"\\u" in raw


def _edited(raw: bytes, change: Callable[[str], str]) -> bytes:
    """Return the object with the ids of its tasks changed, where the specification has them."""
    members = decode_members(raw)
    changes: dict[str, bytes | None] = {}
    if "taskId" in members:
        changes["taskId"] = _changed(members["taskId"], change)
    if "task" in members:
        changes["task"] = _in_task(bytes(members["task"]), change)
    if "tasks" in members and bytes(members["tasks"])[:1] == b"[":
        tasks = [_in_task(bytes(task), change) for task in decode_batch(members["tasks"])]
        changes["tasks"] = b"[" + b",".join(tasks) + b"]"
    if "_meta" in members and (related := member(bytes(members["_meta"]), _RELATED)):
        changed = _in_task(related, change)
        changes["_meta"] = edit(bytes(members["_meta"]), {_RELATED: changed})
    return edit(raw, changes) if changes else raw


def _in_task(task: bytes, change: Callable[[str], str]) -> bytes:
    if task[:1] != b"{" or not (identity := member(task, "taskId")):
        return task
    return edit(task, {"taskId": _changed(identity, change)})


def _changed(identity: bytes | msgspec.Raw, change: Callable[[str], str]) -> bytes:
    known = decode_any(identity)
    return encode(change(known)) if isinstance(known, str) else bytes(identity)


@dataclass(frozen=True, slots=True)
class TaskCaller:
    """The client of a call that may be about a task: what it is sent names the task as it knows it."""

    caller: Caller
    server: str

    @property
    def capabilities(self) -> bytes:
        """Return the capabilities that the client declared."""
        return self.caller.capabilities

    @property
    def log_level(self) -> str | None:
        """Return the log level that the client wants."""
        return self.caller.log_level

    @property
    def client(self) -> object:
        """Return what all calls of this client share."""
        return self.caller.client

    @property
    def relay(self) -> Relay | None:
        """Return the function that streams a large response."""
        return self.caller.relay

    def on_notification(self, method: str, params: bytes) -> None:
        """Pass on a notification, with the ids of tasks changed."""
        self.caller.on_notification(method, shown_tasks(self.server, params) if params else params)

    async def on_request(self, method: str, params: bytes) -> Answer:
        """Pass on a server request, and change the ids back in what the client responds."""
        return await ask_about_task(self.server, self.caller.on_request, method, params)


async def ask_about_task(
    server: str, ask: Callable[[str, bytes], Awaitable[Answer]], method: str, params: bytes
) -> Answer:
    """Send a client a server request; tasks have the ids that each side knows."""
    if not _names_task(params):
        return await ask(method, params)
    answer = await ask(method, shown_tasks(server, params))
    if answer.failed or not _names_task(bytes(answer.body)):
        return answer
    prefix = f"{server}{_BETWEEN}"
    return Answer(_edited(bytes(answer.body), lambda known: known.removeprefix(prefix)))
