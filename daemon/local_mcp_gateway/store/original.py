"""Convert the rows of the original local-mcp-gateway's database into rows of this one.

Its schemas differ in columns that came and went, so each row is read by the columns that it has. What has
no place here is named with its reason, and every row is counted on both sides. Secrets, which were plain
there, are sealed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.database import columns_of
from local_mcp_gateway.errors import UsageProblem, VerificationFailed
from local_mcp_gateway.store.encryption import StoredValue, entries, seal, with_values
from local_mcp_gateway.store.model import ServerDefinition, fit_name
from local_mcp_gateway.store.original_rows import (
    Row,
    call_of,
    clients_by_hand,
    flag_of,
    ms_of,
    number_of,
    read_server,
    text_of,
    times_of,
)
from local_mcp_gateway.store.queries import columns_of as server_columns

if TYPE_CHECKING:
    from local_mcp_gateway.database import Connection
    from local_mcp_gateway.store.encryption import SealingKey

_EXAMPLES = frozenset(
    {
        *("Playwright MCP", "Sequential Thinking", "Filesystem MCP"),
        *("Memory MCP", "GitHub MCP", "Example: Fetch MCP"),
    }
)
"""What its last versions added by themselves."""


class Count(NamedTuple):
    """How many rows of a kind are there, came over, and have no place here."""

    what: str
    there: int
    here: int
    left_out: int


@dataclass(slots=True)
class TakenOver:
    """What became of the rows: counted, and named where something was changed or left out."""

    counts: list[Count] = field(default_factory=list)
    renamed: list[tuple[str, str, str]] = field(default_factory=list)
    """(profile or server, the name there, the name here)."""
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    """(what, name, reason)."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """(server, what is different here)."""
    starts: list[tuple[str, str]] = field(default_factory=list)
    """(server, command): the versions before March 2026 never started one."""
    default_profile: str | None = None
    """Which profile its `gateway` address served, by its name here."""

    def as_json(self) -> dict[str, object]:
        """Return what `db adopt --json` prints of it."""
        return {
            "counts": [count._asdict() for count in self.counts],
            "renamed": [{"what": w, "was": was, "now": now} for w, was, now in self.renamed],
            "left_out": [{"what": w, "name": n, "reason": why} for w, n, why in self.left_out],
            "notes": [{"server": server, "note": note} for server, note in self.notes],
            "starts": [{"server": server, "command": text} for server, text in self.starts],
            "default_profile": self.default_profile,
        }

    def sentences(self) -> Iterator[str]:
        """Yield it as sentences for a person."""
        for count in self.counts:
            left = f", {count.left_out} left out" if count.left_out else ""
            yield f"{count.here} of {count.there} {count.what}{left}."
        for what, was, now in self.renamed:
            yield f"The {what} {was!r} is called {now} here."
        for what, name, reason in self.left_out:
            yield f"Left out: {what} {name}, since {reason}."
        for server, note in self.notes:
            yield f"{server}: {note}."
        for server, command in self.starts:
            yield f"{server} starts a command here, maybe for the first time: {command}"
        if self.default_profile is not None:
            yield f"Its default profile was {self.default_profile}."


def take_over(
    old: Connection, new: Connection, key: Callable[[], SealingKey], *, logs: bool = False
) -> TakenOver:
    """Write into `new`, a fresh database in a transaction, what the rows of `old` become.

    `key` is asked for only if there is something to seal. Raises VerificationFailed if a row is neither
    there nor left out.
    """
    return _TakeOver(old, new, key).run(logs=logs)


class _TakeOver:
    """One take-over: what is known of ids and names so far."""

    def __init__(self, old: Connection, new: Connection, key: Callable[[], SealingKey]) -> None:
        self._old, self._new, self._ask_key = old, new, key
        self._key: SealingKey | None = None
        self._columns = columns_of(old)
        self._has_bearer_bug = "id" in self._columns["profile_mcp_servers"]
        """Its versions from 10 January on sent `Bearer KEY`, whatever the setting said."""
        self._profiles: dict[str, str] = {}
        """Names here by id; `_named`, by the name there."""
        self._named: dict[str, str] = {}
        self._servers: dict[str, ServerDefinition] = {}
        self._names: dict[str, str] = {}
        """Of every server there, by id, for sentences."""
        self._links: dict[tuple[str, str], str] = {}
        """(profile, server) of each place in a profile that came over → the link's own id there."""
        self._done = TakenOver()

    def run(self, *, logs: bool) -> TakenOver:
        """Take everything over, and count it again in the new database."""
        # Another program may have written what is no UTF-8.
        self._old.text_factory = lambda raw: raw.decode(errors="replace")
        self._take_profiles()
        self._take_servers()
        self._take_places()
        self._take_tools()
        self._take_registrations()
        self._take_tokens()
        if logs:
            self._take_logs()
        for row in self._rows("gateway_settings"):
            if row["key"] == "default_gateway_profile":
                self._done.default_profile = self._named.get(str(row["value"]))
        return self._done

    def _rows(self, table: str, order: str = "rowid") -> Iterator[Row]:
        if table not in self._columns:
            return
        cursor = self._old.execute(f'SELECT * FROM "{table}" ORDER BY {order}')
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield dict(zip(names, row, strict=True))

    def _insert(self, table: str, rows: Iterable[dict[str, object]]) -> int:
        """Insert rows, which all have the same columns; return how many there were."""
        rows = iter(rows)
        first = next(rows, None)
        if first is None:
            return 0
        before = self._new.total_changes
        self._new.executemany(
            f"INSERT INTO {table} ({', '.join(first)}) VALUES ({', '.join('?' * len(first))})",
            (tuple(row.values()) for row in chain((first,), rows)),
        )
        return self._new.total_changes - before

    def _count(self, what: str, table: str, there: int, left_out: int) -> None:
        """Count a kind on both sides; raises VerificationFailed if a row is on neither."""
        (here,) = self._new.execute(f"SELECT count(*) FROM {table}").fetchone()
        if there != here + left_out:
            raise VerificationFailed(
                f"Of {there} {what}, {here} came over and {left_out} have no place here.",
                hint="Nothing was changed; report it, with the counts.",
            )
        self._done.counts.append(Count(what, there, here, left_out))

    def _leave_out(self, what: str, name: str, reason: str) -> None:
        self._done.left_out.append((what, name, reason))

    def _sealed(self, server: ServerDefinition, column: str, name: str, value: str) -> str:
        self._key = self._key or self._ask_key()
        return seal(StoredValue(server, column, name, value), self._key).value

    # --- profiles, servers, and which is where ----------------------------------------------------

    def _take_profiles(self) -> None:
        rows = list(self._rows("profiles"))
        for row in rows:
            there = str(row["name"])
            name = self._fit("profile", there, self._profiles.values())
            self._profiles[row["id"]] = self._named[there] = name
        self._insert(
            "profiles",
            (
                {
                    "id": row["id"],
                    "name": self._profiles[row["id"]],
                    "description": row.get("description"),
                    **times_of(row),
                }
                for row in rows
            ),
        )
        self._count("profiles", "profiles", len(rows), 0)

    def _fit(self, what: str, name: str, taken: Collection[str]) -> str:
        fit = fit_name(name, taken)
        if fit != name:
            self._done.renamed.append((what, name, fit))
        return fit

    def _take_servers(self) -> None:
        rows = list(self._rows("mcp_servers"))
        used = {row["mcp_server_id"] for row in self._rows("profile_mcp_servers")}
        taken: list[dict[str, object]] = []
        for row in rows:
            name = str(row["name"])
            self._names[row["id"]] = name
            if name in _EXAMPLES and row["id"] not in used:
                self._leave_out("server", name, "it is an example that no profile uses")
                continue
            notes: list[str] = []
            try:
                server = read_server(row, notes, always_bearer=self._has_bearer_bug)
            except UsageProblem as problem:
                self._leave_out("server", name, problem.message.rstrip("."))
                continue
            fit = self._fit("server", name, {known.name for known in self._servers.values()})
            server = replace(server, name=fit).checked()
            self._servers[server.id] = server
            self._done.notes += [(fit, note) for note in notes]
            if server.command is not None:
                self._done.starts.append((fit, " ".join([server.command, *server.args])))
            values = [
                replace(e, value=self._sealed(server, e.column, e.name, e.value))
                for e in entries(server)
            ]
            columns = zip(_SERVER, server_columns(with_values(server, values)), strict=True)
            taken.append({"id": server.id, **dict(columns), **times_of(row)})
        self._insert("mcp_servers", taken)
        left = len(rows) - len(self._servers)
        self._count("servers", "mcp_servers", len(rows), left)

    def _take_places(self) -> None:
        rows = sorted(self._rows("profile_mcp_servers"), key=lambda row: number_of(row["order"]))
        last: dict[str, int] = {}
        taken: list[dict[str, object]] = []
        for row in rows:
            profile, server = row["profile_id"], row["mcp_server_id"]
            place = (profile, server)
            if profile not in self._profiles or server not in self._servers:
                there = self._names.get(server)
                reason = (
                    "the server or the profile is gone"
                    if there is None or profile not in self._profiles
                    else "its server has no place here"
                )
                where = self._profiles.get(profile, "a profile")
                self._leave_out("place", f"{there or 'a server'} in {where}", reason)
                continue
            self._links[place] = str(row.get("id"))
            last[profile] = last.get(profile, -1) + 1
            taken.append(
                {
                    "profile_id": profile,
                    "mcp_server_id": server,
                    "position": last[profile],
                    "active": flag_of(row.get("is_active")),
                }
            )
        self._insert("profile_mcp_servers", taken)
        self._count("places in profiles", "profile_mcp_servers", len(rows), len(rows) - len(taken))

    def _take_tools(self) -> None:
        places = {link: place for place, link in self._links.items()}
        rows = list(self._rows("profile_mcp_server_tools"))
        taken: list[dict[str, object]] = []
        for row in rows:
            tool = str(row["tool_name"])
            if "profile_mcp_server_id" in row:
                place = places.get(str(row["profile_mcp_server_id"]))
            else:
                place = (row["profile_id"], row["mcp_server_id"])
            if place is None or place not in self._links:
                self._leave_out("tool setting", tool, "its server is not in that profile here")
                continue
            if row.get("custom_input_schema"):
                name = self._servers[place[1]].name
                note = f"the schema that was written for its tool {tool} has no place here"
                self._done.notes.append((name, note))
            taken.append(
                {
                    "profile_id": place[0],
                    "mcp_server_id": place[1],
                    "tool_name": tool,
                    "enabled": flag_of(row.get("is_enabled")),
                    "custom_name": text_of(row.get("custom_name")),
                    "custom_description": text_of(row.get("custom_description")),
                    "updated_at": times_of(row)["updated_at"],
                }
            )
        table = "profile_mcp_server_tools"
        self._insert(table, taken)
        self._count("tool settings", table, len(rows), len(rows) - len(taken))

    # --- what it had signed in with ---------------------------------------------------------------

    def _take_registrations(self) -> None:
        """Take over its registered clients, and those that were written into a server by hand."""
        table = "oauth_client_registrations"
        found = [*self._rows(table), *clients_by_hand(self._rows("mcp_servers"))]
        taken: dict[tuple[str, str], dict[str, object]] = {}
        left = 0
        for row in found:
            server = self._servers.get(row["mcp_server_id"])
            issuer = str(row["authorization_server_url"])
            if server is None or not issuer or (server.id, issuer) in taken:
                left += 1
                name = self._names.get(row["mcp_server_id"], "a server")
                reason = (
                    "its server has no place here"
                    if server is None
                    else "there is another one"
                    if issuer
                    else "it does not say where"
                )
                self._leave_out("registration", f"{name} at {issuer}", reason)
                continue
            secret = text_of(row.get("client_secret"))
            sealed = secret and self._sealed(server, table, f"{issuer} client_secret", secret)
            if text_of(row.get("registration_access_token")):
                note = f"the token that manages its registration at {issuer} has no place here"
                self._done.notes.append((server.name, note))
            taken[server.id, issuer] = {
                "mcp_server_id": server.id,
                "issuer": issuer,
                "client_id": str(row["client_id"]),
                "sealed_client_secret": sealed.encode() if sealed else None,
                "metadata": row.get("metadata", "{}"),
                "created_at": times_of(row)["created_at"],
            }
        self._insert(table, taken.values())
        self._count("registrations", table, len(found), left)

    def _take_tokens(self) -> None:
        table = "oauth_tokens"
        rows = sorted(self._rows(table), key=lambda row: times_of(row)["updated_at"], reverse=True)
        taken: dict[str, dict[str, object]] = {}
        for row in rows:
            server = self._servers.get(row["mcp_server_id"])
            if server is None or server.id in taken:
                name = self._names.get(row["mcp_server_id"], "a server")
                reason = (
                    "its server has no place here" if server is None else "there is a newer one"
                )
                self._leave_out("token", f"of {name}", reason)
                continue
            access = self._sealed(server, table, "access_token", str(row["access_token"]))
            refresh = text_of(row.get("refresh_token"))
            refresh = refresh and self._sealed(server, table, "refresh_token", refresh)
            expires = row.get("expires_at")
            taken[server.id] = {
                "mcp_server_id": server.id,
                "sealed_access_token": access.encode(),
                "sealed_refresh_token": refresh.encode() if refresh else None,
                "token_type": text_of(row.get("token_type")) or "Bearer",
                "scope": text_of(row.get("scope")),
                "expires_at": None if expires is None else ms_of(expires),
                "updated_at": times_of(row)["updated_at"],
            }
        self._insert(table, taken.values())
        self._count("tokens", table, len(rows), len(rows) - len(taken))

    # --- its log ------------------------------------------------------------------------------------

    def _take_logs(self) -> None:
        """Take over its log of calls, without arguments and results: they were not redacted there."""
        (there,) = self._old.execute("SELECT count(*) FROM debug_logs").fetchone()
        brought = self._insert("debug_logs", self._calls())
        if left := there - brought:
            reason = "they had no answer yet, or belong to no profile"
            self._leave_out("log rows", f"({left})", reason)
        self._count("log rows", "debug_logs", there, left)

    def _calls(self) -> Iterator[dict[str, object]]:
        number = 0
        for row in self._rows("debug_logs", "created_at, rowid"):
            call, profile = call_of(row), self._profiles.get(row["profile_id"])
            if call["status"] is None or profile is None:
                continue
            number += 1
            server = self._servers.get(row["mcp_server_id"])
            name = server.name if server else self._names.get(row["mcp_server_id"])
            yield {"id": number, "profile": profile, "server": name, **call}


_SERVER = (
    "name", "kind", "command", "args", "env", "cwd", "url", "headers", "active", "share",
    "max_clients", "idle_stop_s", "timeout_s", "proxy", "ca", "insecure", "client_headers",
    "trust_annotations", "sandbox",
)  # fmt: skip
"""The order of `queries.columns_of`."""
