"""Run the verbs of the control socket, in the daemon and offline.

Arguments and results are JSON values, because a command may send them over the control socket.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from local_mcp_gateway.database import ConnectionPool, Error, ReadOnlyDatabase
from local_mcp_gateway.errors import GatewayError, HistoryRefused, UsageProblem
from local_mcp_gateway.guard import get_status, guarded
from local_mcp_gateway.log import redact_text
from local_mcp_gateway.service.admin import audit, profiles, servers, sign_in, tokens, tools
from local_mcp_gateway.service.admin.own_address import OwnAddress
from local_mcp_gateway.service.admin.servers import approve_tools
from local_mcp_gateway.service.exit_status import root_cause
from local_mcp_gateway.service.options import check_gateway_tables, gateway_options, guard_policy
from local_mcp_gateway.service.replica import replicating
from local_mcp_gateway.service.secrets import Keyring, SealedSignIns, seal_all
from local_mcp_gateway.store import queries, save_audit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from local_mcp_gateway.gateway import Gateway

    Verb = Callable[[ConnectionPool, dict[str, Any]], Awaitable[object]]
    KeyedVerb = Callable[[ConnectionPool, dict[str, Any], Keyring], Awaitable[object]]
    AddingVerb = Callable[[ConnectionPool, dict[str, Any], Keyring, OwnAddress], Awaitable[object]]
    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.log import Emit


_KEYED: dict[str, KeyedVerb] = {
    "server.show": servers.show_server,
    "secrets.seal": seal_all,
}
"""These seal or open values, so they need the keys."""
_ADDING: dict[str, AddingVerb] = {
    "server.add": servers.add_server,
    "server.edit": servers.edit_server,
    "server.import": servers.import_servers,
}
"""These seal values too, and know where this gateway is, which may not be its own server."""
_PLAIN: dict[str, Verb] = {
    "server.list": servers.list_servers,
    "server.remove": servers.remove_server,
    "server.approve": approve_tools,
    "profile.add": profiles.add_profile,
    "profile.list": profiles.list_profiles,
    "profile.show": profiles.show_profile,
    "profile.edit": profiles.edit_profile,
    "profile.remove": profiles.remove_profile,
    "profile.tool": profiles.set_tool,
    "token.create": tokens.create_token,
    "token.edit": tokens.edit_token,
    "token.list": tokens.tokens_as_json,
    "audit.list": audit.list_entries,
    "token.revoke": tokens.revoke_token,
}
VERBS = _KEYED.keys() | _ADDING.keys() | _PLAIN.keys() | sign_in.VERBS
READ_ONLY = {verb for verb in VERBS if verb.endswith((".list", ".show"))}
_LIVE = {"server.list", "server.show"}
"""These also report the server's state if a gateway runs."""
_JOINING = {"server.add", "server.import"}
"""A server that is in no profile is served nowhere, so these need one."""
MOST_LEVELS = 200
"""The deepest nesting of arguments."""
WITH_GATEWAY = {"server.test", "call", "tools"}
"""These talk to upstream servers, so they need a gateway."""


@dataclass(frozen=True, slots=True)
class Served:
    """What the gateway serves to its clients at `/mcp`, and at which address."""

    default_profile: str
    address: OwnAddress
    who: str = "command"
    """By which way in the person came that asks: for the audit."""

    @classmethod
    def of(cls, settings: Settings) -> Served:
        """Build it from the settings."""
        return cls(settings.gateway.default_profile, OwnAddress.of(settings))


def only_reads(verb: str, arguments: dict[str, Any]) -> bool:
    """Tell whether a verb changes nothing, so it needs neither a lock nor an entry in the audit."""
    return verb in READ_ONLY or (verb == "server.import" and bool(arguments.get("dry_run")))


def changes_definitions(verb: str, arguments: dict[str, Any]) -> bool:
    """Tell whether the definitions have to be read again after a verb; a login alone changes nothing."""
    return verb in VERBS - {"server.login"} and not only_reads(verb, arguments)


async def perform(
    database: ConnectionPool,
    gateway: Gateway | None,
    served: Served,
    keyring: Keyring,
    verb: str,
    arguments: dict[str, Any],
) -> object:
    """Run one verb. Raises a GatewayError for the person who typed the command.

    A verb that writes does so in one transaction, together with the reads it depends on.
    """
    _require_plain(arguments)
    if verb in VERBS and not only_reads(verb, arguments):
        return await _perform_recorded(database, gateway, served, keyring, verb, arguments)
    if verb in VERBS:
        if verb in _JOINING and arguments.get("profile") is None:
            arguments["profile"] = await _profile_at_mcp(database, served.default_profile)
        answer = await _do(database, served, keyring, verb, arguments)
        if verb in _LIVE:
            shown: list[Any] = answer if isinstance(answer, list) else [answer]
            states = gateway.status()["servers"] if gateway else {}
            for server in shown:
                server["live"] = states.get(server["name"])
        return answer
    return await _perform_with(database, gateway, served, keyring, verb, arguments)


async def _perform_recorded(
    database: ConnectionPool,
    gateway: Gateway | None,
    served: Served,
    keyring: Keyring,
    verb: str,
    arguments: dict[str, Any],
) -> object:
    """Run a verb that changes something, and put it into the audit; in the same transaction, if it has one."""
    entry = audit.entry_of(served.who, verb, arguments)
    try:
        if verb in sign_in.VERBS:
            answer = await _perform_with(database, gateway, served, keyring, verb, arguments)
            await save_audit(database, [entry])
            return answer
        async with database.transaction() as within:
            if verb in _JOINING and arguments.get("profile") is None:
                arguments["profile"] = await _profile_at_mcp(within, served.default_profile)
            answer = await _do(within, served, keyring, verb, arguments)
            await save_audit(within, [entry])
        if verb == "secrets.seal" and isinstance(answer, dict):
            answer["overwritten"] = await database.empty_wal()
    except GatewayError as problem:
        outcome = "refused" if isinstance(problem, UsageProblem) else "error"
        with suppress(*Error):  # perhaps it is the database that failed
            failed = entry._replace(outcome=outcome, detail=redact_text(problem.message))
            await save_audit(database, [failed])
        raise
    else:
        return answer


async def _perform_with(
    database: ConnectionPool,
    gateway: Gateway | None,
    served: Served,
    keyring: Keyring,
    verb: str,
    arguments: dict[str, Any],
) -> object:
    """Run a verb that talks to others, and holds no lock on the database meanwhile."""
    if verb in sign_in.VERBS:
        return await sign_in.perform(database, gateway, keyring, verb, arguments)
    if verb not in WITH_GATEWAY or gateway is None:
        raise UsageProblem(
            f"The running gateway does not know {verb!r}.",
            hint="It is of another version than this command: restart it.",
        )
    if verb == "tools":
        return await tools.list_tools(database, gateway, arguments)
    if verb == "server.test":
        return await tools.check_server(database, gateway, arguments["name"])
    return await tools.call_tool(database, gateway, served.default_profile, arguments)


def _require_plain(arguments: object) -> None:
    """Raise UsageProblem for text that SQLite cannot store and for JSON nested too deeply."""
    level, depth = [arguments], 0
    while level:
        if (depth := depth + 1) > MOST_LEVELS:
            raise UsageProblem(
                f"The arguments are nested deeper than {MOST_LEVELS} levels.",
                hint="Use fewer levels.",
            )
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.keys()
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str) and not _is_text(value):
                raise UsageProblem(
                    f"{value!r} is not valid text: half of a surrogate pair is missing.",
                    hint="Write it in UTF-8, or with both halves of a \\u escape.",
                )
        level = inner


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


async def _do(
    database: ConnectionPool, served: Served, keyring: Keyring, verb: str, arguments: dict[str, Any]
) -> object:
    if verb in _ADDING:
        return await _ADDING[verb](database, arguments, keyring, served.address)
    if verb in _KEYED:
        return await _KEYED[verb](database, arguments, keyring)
    return await _PLAIN[verb](database, arguments)


async def _profile_at_mcp(database: ConnectionPool, default: str) -> str:
    """Return the profile that `/mcp` serves: the default profile, or the only one."""
    names = [profile.name for profile in await queries.list_profiles(database)]
    return names[0] if default not in names and len(names) == 1 else default


def answer(settings: Settings, verb: str, arguments: dict[str, Any], emit: Emit) -> Any:
    """Run one verb offline and return what the daemon would answer. Blocks.

    A verb that writes raises LockHeld if another process holds the lock.
    """
    keyring = Keyring.of(settings, emit)
    if only_reads(verb, arguments):
        try:
            with ReadOnlyDatabase.open_at(settings.database_path) as looked_at:
                served = Served.of(settings)
                read = partial(perform, looked_at, None, served, keyring, verb, arguments)
                return anyio.run(read)
        except UsageProblem as error:
            if "gap" in error.data:  # it may be another program's
                _require_ours(settings)
            raise
    policy = replicating(settings, guard_policy(settings))
    guard = guarded(settings.database_path, settings.migrations_folder, policy=policy, emit=emit)
    with guard:
        check_gateway_tables(settings.database_path, settings.migrations_folder)
        try:
            return anyio.run(partial(_answer, settings, keyring, verb, arguments))
        except BaseExceptionGroup as group:
            raise root_cause(group) from None


def _require_ours(settings: Settings) -> None:
    """Raise HistoryRefused where the next start would refuse the database."""
    problems = get_status(settings.database_path, settings.migrations_folder).problems
    if problems:
        raise HistoryRefused(problems) from None


async def _answer(
    settings: Settings, keyring: Keyring, verb: str, arguments: dict[str, Any]
) -> object:
    served = Served.of(settings)
    async with ConnectionPool.open(settings.database_path) as database:
        if verb not in WITH_GATEWAY:
            return await perform(database, None, served, keyring, verb, arguments)
        from local_mcp_gateway.gateway import Gateway

        options = gateway_options(settings)
        kept = SealedSignIns(database, keyring)
        async with Gateway.open(database, options, unseal=keyring.open, sign_ins=kept) as gateway:
            return await perform(database, gateway, served, keyring, verb, arguments)
