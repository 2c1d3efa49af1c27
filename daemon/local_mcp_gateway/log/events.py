"""The closed table of events: name → level and one sentence.

It is the contract of whoever reads the log (DESIGN §4): the page in the docs is generated from it, and
a test compares it with what the code emits, both ways. info is normal life, warning means that someone
should look, error that someone must act. Keys carry their unit: `_ms`, `_s`, `bytes`, counts bare.
"""

from __future__ import annotations

from typing import NamedTuple

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Event(NamedTuple):
    """How loud an event is, and what it means."""

    level: str
    sentence: str


EVENTS: dict[str, Event] = {
    # the start, in this order
    "service.starting": Event(
        "info", "The process begins: version, database, migrations folder, address."
    ),
    "guard.waiting": Event(
        "warning", "Another process holds the database's lock; this one waits for it."
    ),
    "guard.locked": Event("info", "The database's lock is ours until the process ends."),
    "guard.checked": Event(
        "info",
        "The database file was examined: new, cleanly stopped, or checked; `complete` is false where the"
        " time limit of the check came first.",
    ),
    "guard.resolved": Event(
        "info", "The folder and the ledger were compared: what is applied, what is pending."
    ),
    "guard.drifted": Event("warning", "The live schema differs from what its migrations produce."),
    "guard.hazard_found": Event(
        "warning", "A pending migration can delete data, block old clients or write a name as text."
    ),
    "guard.progressed": Event(
        "info", "A start takes long: every 5 s, the phase that it is in and how much of it is done."
    ),
    "backup.created": Event("info", "A backup was written, flushed, read back and verified."),
    "backup.pruned": Event("info", "Backups that the retention policy no longer keeps are gone."),
    "backup.prune_failed": Event(
        "warning", "Old backups could not be removed; nothing else is affected."
    ),
    "migration.rehearsed": Event(
        "info", "The pending migrations ran on a copy of the data, and how long it took."
    ),
    "guard.verified": Event(
        "info", "The migrated database kept its rows and keys and has the rehearsed schema."
    ),
    "migration.applied": Event(
        "info", "A migration is committed and durable (one event for each)."
    ),
    "guard.ready": Event(
        "info", "Canonical line of the guard: state, what was applied, duration of each phase."
    ),
    "guard.refused": Event(
        "error", "The guard refuses to start: code, hint and exit code say why and what next."
    ),
    "gateway.listening": Event("info", "The gateway answers at this address."),
    "service.ready": Event(
        "info", "Canonical line of the start: everything is up; duration since the process began."
    ),
    # life
    "server.skipped": Event(
        "warning", "The row of a server in the database cannot be read; the others are served."
    ),
    "upstream.connected": Event("info", "An upstream server answered its first request."),
    "upstream.lost": Event(
        "warning", "An upstream server died or hangs; it is retried after a pause."
    ),
    "upstream.stopped": Event(
        "info", "An upstream server was stopped: idle, removed or at the gateway's stop."
    ),
    "catalog.altered": Event(
        "warning",
        "Tools of a known server have another description or schema, or are new and held.",
    ),
    "catalog.unread": Event(
        "warning",
        "What the database remembers of an upstream is malformed, and passed over; it is met anew.",
    ),
    "catalog.saved": Event(
        "debug",
        "The lists of an upstream, or the names of a profile, were written to the database.",
    ),
    "catalog.unsaved": Event(
        "warning",
        "The lists of an upstream, or the names of a profile, could not be written to the database.",
    ),
    "upstream.wrote": Event("debug", "A line that a stdio upstream wrote to its stderr."),
    "task.failed": Event(
        "error", "A task failed by a fault of the gateway's own; everything else goes on."
    ),
    "call.finished": Event(
        "info", "Canonical line of one request: method, server, outcome, duration."
    ),
    "calls.unsaved": Event(
        "warning", "The database refused a batch of the log of calls; the calls were served."
    ),
    "call.refused": Event(
        "warning", "A request was refused at the door: foreign Host or Origin, missing token."
    ),
    "migration.hot_applied": Event("info", "A migration was applied while the gateway runs."),
    "migration.hot_refused": Event(
        "error", "A saved migration was refused; the gateway serves the old schema."
    ),
    "migration.reverted": Event("info", "A migration was taken back; committed and durable."),
    "migration.mended": Event(
        "warning", "An edited migration was accepted as it is now, on purpose."
    ),
    "migration.rewound": Event(
        "warning",
        "In dev an applied migration was edited or deleted and is taken back; says what is lost.",
    ),
    "database.restored": Event(
        "warning", "The database was replaced by a backup; the old file is kept aside."
    ),
    "database.reset": Event("warning", "The database was made anew, after a backup."),
    "database.seeded": Event("info", "A seed file was executed."),
    "schema.planned": Event("info", "The schema module changed: what `db generate` would write."),
    "schema.generated": Event("info", "The schema module changed: its migration was written."),
    "schema.refused": Event(
        "warning", "The schema module changed, and no migration can be made of it."
    ),
    "dev.watching": Event("info", "Dev mode watches these folders."),
    "dev.polling": Event(
        "warning", "The kernel does not let files be watched; they are looked at every 0.3 s."
    ),
    "dev.reloaded": Event(
        "info", "The program's code changed: the worker was restarted on the same socket."
    ),
    "dev.mended": Event(
        "info", "The migrations folder fits the database again; nothing was to apply."
    ),
    "dev.refused": Event(
        "error",
        "The program does not start, or was killed; the supervisor waits for the next save.",
    ),
    "secrets.key_made": Event(
        "warning",
        "A key for the secrets was made: keep a copy of this file, apart from the backups.",
    ),
    "server.changed": Event("info", "A server or profile was added, edited or removed."),
    "control.listening": Event(
        "debug", "Other commands can reach this process at its control socket."
    ),
    "control.answered": Event(
        "debug", "A command asked over the control socket, and how long it took."
    ),
    "log.dropped": Event(
        "warning",
        "The log could not take this many events: its reader was too slow, or its disk full.",
    ),
    "library.warned": Event("warning", "A library that we use logged a warning."),
    "service.reloading": Event("info", "A reload was asked for by SIGHUP or `reload`."),
    "service.reload_refused": Event(
        "error", "A reload was refused: the service goes on as it was."
    ),
    "service.reloaded": Event(
        "info", "Canonical line of a reload: what changed, how long writers were paused."
    ),
    "service.refused": Event(
        "error", "The service cannot start: code, hint and exit code say why and what next."
    ),
    "service.failed": Event(
        "error", "Something unexpected ended the service; the traceback is in the event."
    ),
    "service.stopping": Event(
        "info", "A stop was asked for; calls in flight may finish until the deadline."
    ),
    "service.stopped": Event(
        "info", "Canonical line of the stop: drained, database closed; the lock goes next."
    ),
}


def level_of(event: str) -> str:
    """Return the event's level; an event that the table lacks is shown, as info, never lost."""
    known = EVENTS.get(event)
    return known.level if known else "info"
