"""The table of log events: each name, its level and its meaning.

The documentation is generated from it, and a test compares it with every event that the code emits.
info is normal operation, warning means that someone should look, error that someone must act. Keys
carry their unit: `_ms`, `_s`, `bytes`; counts have none.
"""

from __future__ import annotations

from typing import NamedTuple

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Event(NamedTuple):
    """The level of an event, and what it means."""

    level: str
    sentence: str


EVENTS: dict[str, Event] = {
    # The start, in this order.
    "service.starting": Event(
        "info", "The process starts: its version, the database and the migrations folder."
    ),
    "guard.waiting": Event(
        "warning", "Another process holds the lock of the database; this one waits for it."
    ),
    "guard.locked": Event("info", "This process holds the lock of the database until it ends."),
    "guard.checked": Event(
        "info",
        "The database file is new, was stopped cleanly, or was checked. `complete` is false if the time limit"
        " ended the check.",
    ),
    "guard.resolved": Event(
        "info", "The folder was compared with the ledger: what is applied, what is pending."
    ),
    "guard.drifted": Event("warning", "The schema is not the one that the migrations make."),
    "guard.hazard_found": Event(
        "warning",
        "A pending migration can delete or change data, break clients or write a name as text.",
    ),
    "guard.not_checked_in_full": Event(
        "warning",
        "The database is larger than `[guard] full_check_limit_bytes`: its indexes were not compared with"
        " their tables before it was changed.",
    ),
    "guard.values_not_compared": Event(
        "warning",
        "The values of a rebuilt table were not compared, only counted: it has more than `[guard]"
        " compare_limit_values`, or its file adds or deletes rows in a way that hides which ones it copied.",
    ),
    "guard.progressed": Event(
        "info", "A start takes long. Every 5 s: its phase, and how much of it is done."
    ),
    "backup.created": Event(
        "info", "A backup was written, flushed to disk, read back and verified."
    ),
    "backup.reused": Event(
        "info", "Nothing was written since the newest backup was made, so that one is the backup."
    ),
    "backup.pruned": Event("info", "Backups that the retention policy does not keep were removed."),
    "backup.prune_failed": Event(
        "warning", "Old backups could not be removed; nothing else is affected."
    ),
    "migration.rehearsed": Event(
        "info", "The pending migrations ran on a copy of the data; how long that took."
    ),
    "guard.verified": Event(
        "info", "The migrated database kept its rows and keys, and has the rehearsed schema."
    ),
    "migration.applied": Event("info", "A migration is committed and durable. One event for each."),
    "guard.ready": Event(
        "info", "The guard in one line: state, what was applied, duration of each phase."
    ),
    "guard.refused": Event(
        "error", "The guard refuses to start: code, hint and exit code say why, and what to do."
    ),
    "tls.ends_soon": Event(
        "warning",
        "The https certificate expires in less than 14 days; reported at the start and every day.",
    ),
    "gateway.listening": Event("info", "The gateway answers at this address."),
    "gateway.full": Event(
        "warning",
        "No descriptor is left for more clients; they wait until there is one, and none is refused.",
    ),
    "service.ready": Event(
        "info", "The start in one line: everything is up; duration since the process started."
    ),
    # After the start.
    "server.skipped": Event(
        "warning",
        "The row of a server in the database cannot be read; the other servers are served.",
    ),
    "upstream.connected": Event("info", "An upstream server answered its first request."),
    "upstream.starting": Event(
        "info",
        "A server takes longer than `connect_timeout_s` to start, but works on it; the gateway waits.",
    ),
    "upstream.unverified": Event(
        "warning", "An upstream server's certificate is not checked (`--insecure`)."
    ),
    "upstream.lost": Event(
        "warning",
        "The connection to an upstream server broke, or the server hangs; it is retried after a pause.",
    ),
    "upstream.stopped": Event(
        "info", "An upstream server was stopped: it was idle or removed, or the gateway stops."
    ),
    "token.refreshed": Event("info", "The token of a server was refreshed, ahead of its expiry."),
    "token.delayed": Event(
        "warning", "A token could not be refreshed now; it is tried again after a pause."
    ),
    "token.refused": Event(
        "warning",
        "The refresh of a token was refused, which is final: `server login` signs in again.",
    ),
    "token.save_failed": Event(
        "error",
        "A refreshed token could not be written to the database; it is used until a restart.",
    ),
    "catalog.altered": Event(
        "warning",
        "Tools of a known server have another description or schema, or are new and held back.",
    ),
    "catalog.load_failed": Event(
        "warning",
        "The lists of an upstream in the database are malformed; they are fetched again.",
    ),
    "catalog.saved": Event(
        "debug",
        "The lists of an upstream, or the names of a profile, were written to the database.",
    ),
    "catalog.save_failed": Event(
        "warning",
        "The lists of an upstream, or the names of a profile, could not be written to the database.",
    ),
    "upstream.logged": Event(
        "debug",
        "A line that a stdio upstream wrote to stderr, or what is wrong with one of its lists.",
    ),
    "task.failed": Event(
        "error", "A task of the gateway failed because of a bug; everything else goes on."
    ),
    "call.finished": Event("info", "One request in one line: method, server, outcome, duration."),
    "calls.save_failed": Event(
        "warning", "Calls could not be written to the log of calls; they were served."
    ),
    "call.refused": Event("warning", "A request was refused: foreign Host or Origin, or no token."),
    "migration.hot_applied": Event("info", "A migration was applied while the gateway runs."),
    "migration.hot_refused": Event(
        "error", "A saved migration was refused; the gateway goes on with the old schema."
    ),
    "migration.reverted": Event("info", "A migration was reverted; that is committed and durable."),
    "migration.repaired": Event(
        "warning", "`db repair` accepted an edited migration, or marked one as applied."
    ),
    "migration.rewound": Event(
        "warning",
        "In dev mode an applied migration was edited or deleted, so it was reverted; says what was lost.",
    ),
    "database.gone": Event(
        "error",
        "The file that is served was deleted, moved or replaced: nothing more is written until it is back.",
    ),
    "database.returned": Event("info", "The file that is served is back."),
    "backup.copied": Event("info", "A backup was copied off the machine and read back there."),
    "backup.copy_failed": Event(
        "warning",
        "Backups could not be copied off the machine; it is tried again. Those here are whole.",
    ),
    "backup.copies_pruned": Event(
        "info", "Copies off the machine that retention does not keep were removed."
    ),
    "database.restored": Event(
        "warning", "The database was replaced by a backup; the old file is kept."
    ),
    "replica.started": Event("info", "Litestream replicates the database to this URL."),
    "replica.behind": Event(
        "warning",
        "The replica has not had the newest changes for this long; why, if Litestream said it.",
    ),
    "replica.caught_up": Event("info", "The replica has everything again."),
    "replica.failed": Event(
        "error", "The database is not replicated: code and hint say why. The gateway keeps serving."
    ),
    "replica.lost": Event("warning", "Litestream ended by itself; it is restarted."),
    "replica.pinned": Event(
        "info", "The replica has the state before this migration, as this transaction."
    ),
    "replica.not_pinned": Event(
        "warning",
        "The replica does not have everything before this migration; the migration is applied anyway.",
    ),
    "replica.stopped": Event("info", "The replica has everything, up to this transaction."),
    "replica.left_behind": Event(
        "warning", "The gateway stopped before the replica had everything; the next start sends it."
    ),
    "database.reindexed": Event(
        "warning", "The indexes of the database were rebuilt, after a backup."
    ),
    "database.reset": Event("warning", "The database was created again, after a backup."),
    "database.taken_over": Event(
        "warning",
        "A database of the original local-mcp-gateway was replaced by a new one with its rows.",
    ),
    "database.seeded": Event("info", "A seed file was run."),
    "schema.planned": Event("info", "The schema module changed: what `db generate` would write."),
    "schema.generated": Event("info", "The schema module changed: its migration was written."),
    "schema.refused": Event(
        "warning", "The schema module changed, but no migration can be generated from it."
    ),
    "dev.watching": Event("info", "Dev mode watches these folders."),
    "dev.polling": Event(
        "warning", "The kernel cannot watch more files; they are polled every 0.3 s."
    ),
    "dev.reloaded": Event(
        "info",
        "The code of the program, or a setting that is read at the start, changed: the worker was restarted on the same socket.",
    ),
    "dev.recovered": Event(
        "info", "The migrations folder fits the database again; there was nothing to apply."
    ),
    "dev.refused": Event(
        "error",
        "The worker does not start, or was killed; the supervisor waits for the next save.",
    ),
    "secrets.key_created": Event(
        "warning",
        "A key for the secrets was created: keep a copy of this file, apart from the backups.",
    ),
    "server.changed": Event("info", "A server or profile was added, edited or removed."),
    "studio.entered": Event("info", "A browser opened the pages with a link that `open` made."),
    "studio.refused": Event(
        "warning", "A request for a page was refused: another site, a foreign form, or a used link."
    ),
    "studio.changed": Event("info", "Rows were changed on a page: the table, and how many."),
    "studio.failed": Event(
        "error", "A page could not be shown because of a bug; everything else goes on."
    ),
    "control.listening": Event("debug", "Commands can reach this process at its control socket."),
    "control.answered": Event(
        "debug", "A command asked over the control socket; how long the answer took."
    ),
    "log.dropped": Event(
        "warning",
        "Events were lost: the reader of the log is too slow, or its disk is full. `count` says how many.",
    ),
    "library.warned": Event("warning", "A library logged a warning."),
    "service.reloading": Event("info", "SIGHUP or `reload` asked for a reload."),
    "service.reload_incomplete": Event(
        "error", "The database is changed, but the gateway goes on with what it read before."
    ),
    "service.reload_refused": Event(
        "error", "A reload was refused; the service continues unchanged."
    ),
    "tls.renewed": Event("info", "A reload read another certificate; new connections get it."),
    "service.reloaded": Event(
        "info", "A reload in one line: what changed, how long writers were paused."
    ),
    "service.refused": Event(
        "error", "The service cannot start: code, hint and exit code say why, and what to do."
    ),
    "service.failed": Event("error", "A bug ended the service; the traceback is in the event."),
    "service.stopping": Event(
        "info", "The service stops; calls in flight may finish until the deadline."
    ),
    "service.stopped": Event(
        "info", "The stop in one line: calls finished, database closed; the lock is released next."
    ),
}


class _Levels(dict[str, str]):
    def __missing__(self, event: str) -> str:
        return "info"  # an event that the table does not have is not lost


LEVEL_OF = _Levels((name, event.level) for name, event in EVENTS.items())
"""The level of each event."""
