"""The errors that a person can act on: each has a code, one sentence, a hint and an exit code.

Each class is one situation. Its base says who has to act: the person who typed the command, the author
of a migration, the owner of the database, the machine, or an upstream server. Nothing here does I/O;
the command line turns an error into one line (or one JSON object) and its exit code.

Exit codes are the contract of scripts and of the systemd unit (`RestartPreventExitStatus=`):
4 and 9 can pass by themselves and are retried, 2, 5, 6, 7 and 8 need a person.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import ClassVar

from local_mcp_gateway.frozen import frozen


class Exit(IntEnum):
    """The process exit codes. If several apply at once, 6 wins over 8, and 8 over 3."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    DIFFERS = 3
    LOCKED = 4
    MIGRATION = 5
    DAMAGED = 6
    CONFIG = 7
    REFUSED = 8
    NO_BACKUP = 9


class ProblemCode:
    """The closed set of history problems that `resolve` and the folder reader can report."""

    EDITED = "edited"
    MISSING = "missing"
    OUT_OF_ORDER = "out_of_order"
    NEWER_DATABASE = "newer_database"
    UNJOURNALED = "unjournaled"
    DUPLICATE = "duplicate"
    BAD_JOURNAL = "bad_journal"
    BAD_ENCODING = "bad_encoding"
    DIALECT = "dialect"
    COLLISION = "collision"
    NO_HASH = "no_hash"
    NOT_OUR_TABLE = "not_our_table"
    ORIGINAL = "original"
    APPLIED_ELSEWHERE = "applied_elsewhere"


@frozen
class Problem:
    """One mismatch between a folder and a database, as `db status --json` shows it."""

    code: str
    message: str
    hint: str
    tag: str | None = None


class GatewayError(Exception):
    """An error for a person to act on; with this code, one that was not foreseen.

    `message` is one sentence that says what is wrong and where; `hint` says what to do next; `data`
    carries the same facts as values for logs and `--json`.
    """

    code: ClassVar[str] = "unexpected"
    exit_code: ClassVar[Exit] = Exit.UNEXPECTED
    default_hint: ClassVar[str] = (
        "Run the command again with --log-level debug and report what it prints."
    )

    def __init__(self, message: str, *, hint: str | None = None, **data: object) -> None:
        # A message of a library or another program may lack the full stop.
        message = message if message.endswith((".", "?", "!")) else f"{message}."
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        self.data = data

    def as_json(self) -> dict[str, object]:
        """Return the object that `--json` prints under `error`."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "exit_code": int(self.exit_code),
        }


# --- the person who typed the command -----------------------------------------------------------


class UsageProblem(GatewayError):
    """The command line asks for something that does not exist or does not fit together."""

    code = "usage"
    exit_code = Exit.USAGE
    default_hint = "See --help for what this command takes."


class SchemaProblem(GatewayError):
    """The schema that was asked for cannot be read, or SQLite refuses a statement of it."""

    code = "schema"
    exit_code = Exit.USAGE
    default_hint = "Correct the schema and run the command again; nothing was written."


class NotConfirmed(GatewayError):
    """A destructive command was neither confirmed nor given --yes."""

    code = "not_confirmed"
    exit_code = Exit.USAGE
    default_hint = "Run it again with --yes, or type the name that it asks for."


class NoSuchBackup(GatewayError):
    """No backup of this database has that name."""

    code = "no_such_backup"
    exit_code = Exit.USAGE
    default_hint = "See `db backup list` for the names."


class ConfigProblem(GatewayError):
    """A configuration file, environment variable or option holds a value that cannot be used."""

    code = "config"
    exit_code = Exit.CONFIG
    default_hint = "Correct the value and start again; `config show` lists every setting."


class DatabasePathProblem(GatewayError):
    """The database cannot be opened or created where the configuration says."""

    code = "database_path"
    exit_code = Exit.CONFIG
    default_hint = "Create the folder or give another place with --database or DATABASE_PATH."


class MigrationsFolderProblem(GatewayError):
    """The migrations folder does not exist or cannot be read."""

    code = "migrations_folder"
    exit_code = Exit.CONFIG
    default_hint = "Give the folder with --migrations, or create it with `db generate`."


class SealedValueProblem(GatewayError):
    """A sealed value of environment or headers does not open: its key is missing, or it was altered."""

    code = "sealed_value"
    exit_code = Exit.CONFIG
    default_hint = "See `doctor`; set the values again with `server edit`."


class NoSecretsKey(GatewayError):
    """There is no key to seal secrets with, and none can be created at the configured path."""

    code = "no_secrets_key"
    exit_code = Exit.CONFIG
    default_hint = (
        "Where only a service may not write, `secrets seal` in a shell makes it; or give another place "
        "with `[secrets] key_file`."
    )


class CopyKeyProblem(GatewayError):
    """The age key that opens copies of backups is not here, cannot be used, or is another one."""

    code = "copy_key"
    exit_code = Exit.CONFIG
    default_hint = "Name the file of the key with --key: it is kept apart from the copies."


class PortInUse(GatewayError):
    """Another process listens on the configured address."""

    code = "port_in_use"
    exit_code = Exit.CONFIG
    default_hint = "Stop the other process or choose another port with --port."


class NoServiceManager(GatewayError):
    """systemd's user manager is not available or refused the request."""

    code = "no_service_manager"
    exit_code = Exit.CONFIG
    default_hint = "Log in on this machine itself, or run `serve` under another supervisor."


# --- another process ----------------------------------------------------------------------------


class LockHeld(GatewayError):
    """Another gateway or command holds this database's lock."""

    code = "locked"
    exit_code = Exit.LOCKED
    default_hint = "Stop that process, or use `local-mcp-gateway reload` to apply changes in it."


class DatabaseBusy(GatewayError):
    """Another program, which does not use the gateway's lock, is writing to the database."""

    code = "busy"
    exit_code = Exit.LOCKED
    default_hint = "Close the program that has the database open, then start again."


# --- the author of a migration ------------------------------------------------------------------


class MigrationFailed(GatewayError):
    """A statement of a migration failed; the database is unchanged."""

    code = "migration_failed"
    exit_code = Exit.MIGRATION
    default_hint = "Correct the statement and start again; the database is unchanged."


class ForbiddenStatement(GatewayError):
    """A migration contains a statement that the guard does not allow; the database is unchanged."""

    code = "forbidden_statement"
    exit_code = Exit.MIGRATION
    default_hint = "Remove the statement from the migration and start again."


class VerificationFailed(GatewayError):
    """The migrations ran, but rows were lost or orphaned, or the result differs from the rehearsal."""

    code = "verification_failed"
    exit_code = Exit.MIGRATION
    default_hint = "Correct the migration; the database is unchanged."


class SeedFailed(GatewayError):
    """A seed failed; the database is unchanged."""

    code = "seed_failed"
    exit_code = Exit.MIGRATION
    default_hint = "Correct the seed and run it again; the database is unchanged."


class DoubleQuotedString(GatewayError):
    """A migration contains a double-quoted name that SQLite would silently read as a string literal."""

    code = "double_quoted_string"
    exit_code = Exit.MIGRATION
    default_hint = (
        "Name an existing column, write the text in single quotes, or accept it with the line "
        "`-- guard: accept double_quoted_strings`."
    )


# --- the owner of the database ------------------------------------------------------------------


class NotADatabase(GatewayError):
    """The file is not a SQLite database, or one of a format that this SQLite does not know."""

    code = "not_a_database"
    exit_code = Exit.DAMAGED
    default_hint = "Give another path with --database, or move this file away."


class Damaged(GatewayError):
    """The database file does not pass SQLite's integrity check."""

    code = "damaged"
    exit_code = Exit.DAMAGED
    default_hint = "Restore the newest good backup with `db restore latest`."


class DatabaseGone(GatewayError):
    """The file that a gateway serves was deleted, moved, replaced or overwritten; the gateway stops writing."""

    code = "database_gone"
    exit_code = Exit.REFUSED
    default_hint = (
        "Put the file back where it was; or stop the gateway, restore a backup with `db restore latest`,"
        " and start it again."
    )


class ForeignLog(GatewayError):
    """A write-ahead log or journal of another file is next to the database, as after a copy was put there."""

    code = "foreign_log"
    exit_code = Exit.REFUSED
    default_hint = "Move it away if the database is right as it is, then start again."


class DatabaseEmptied(GatewayError):
    """The database is empty or missing, but it had content before or has backups."""

    code = "database_emptied"
    exit_code = Exit.REFUSED
    default_hint = (
        "Restore a backup with `db restore latest`, or start over with `db migrate --fresh`."
    )


class BackupDamaged(GatewayError):
    """A backup has changed since it was made: truncated, edited or corrupt."""

    code = "backup_damaged"
    exit_code = Exit.DAMAGED
    default_hint = "Choose another one: `db backup verify` checks each of them."


class BackupForeign(GatewayError):
    """A backup belongs to another application or to a newer version of this one."""

    code = "backup_foreign"
    exit_code = Exit.REFUSED
    default_hint = "Choose another one: `db backup list` shows those that fit."


class ProgramReplaced(GatewayError):
    """Another version of the program was installed, and migrations came with it."""

    code = "program_replaced"
    exit_code = Exit.REFUSED
    default_hint = "Restart the gateway: `systemctl --user restart local-mcp-gateway`, or stop `serve` and start it again."


class HistoryRefused(GatewayError):
    """The migrations folder and the database's ledger contradict each other."""

    code = "history"
    exit_code = Exit.REFUSED
    default_hint = "See `db status` for each problem and how to fix it."

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more: see `db status`)" if len(problems) > 1 else ""
        super().__init__(first.message + more, hint=first.hint, problem=first.code, tag=first.tag)
        self.problems = tuple(problems)


class MigrationApplied(GatewayError):
    """A migration to be removed from the folder has been applied to the database."""

    code = "applied"
    exit_code = Exit.REFUSED
    default_hint = (
        "Go back with `db down --steps 1`, or restore the backup from before it, then drop it; "
        "where `serve --dev` runs, `db drop` does both."
    )


class NoWayBack(GatewayError):
    """A migration to be reverted has no `.down.sql`, in the folder or in the history."""

    code = "no_way_back"
    exit_code = Exit.REFUSED
    default_hint = "Write its `.down.sql`, or restore the backup from before it."


class NotAdopted(GatewayError):
    """No point of the migrations folder gives exactly the schema that this database has."""

    code = "not_adopted"
    exit_code = Exit.REFUSED
    default_hint = "See `db diff`; make the folder and the schema agree, then try again."


class DriftRefused(GatewayError):
    """The live schema was changed by hand, and the policy refuses to migrate it."""

    code = "drift"
    exit_code = Exit.REFUSED
    default_hint = (
        'See `db diff`; write the change as a migration. Or set `[guard] drift = "warn"`.'
    )


class HazardRefused(GatewayError):
    """A pending migration deletes data, and the policy requires that its first lines accept this."""

    code = "hazard"
    exit_code = Exit.REFUSED
    default_hint = "Accept it with the line `-- guard: accept deletes_data` in that migration."


# --- the machine --------------------------------------------------------------------------------


class NoRoom(GatewayError):
    """The disk is full, or too full for the backup and the rehearsal; the database is unchanged."""

    code = "no_room"
    exit_code = Exit.NO_BACKUP
    default_hint = (
        "Free space on that disk, or prune old backups with `db backup prune`; then start again."
    )


class BackupFailed(GatewayError):
    """The backup could not be written or verified; the database is unchanged."""

    code = "backup_failed"
    exit_code = Exit.NO_BACKUP
    default_hint = "Make the backup folder writable and start again."


class CopyFailed(GatewayError):
    """A backup could not be copied off the machine, or what is there cannot be read; the backup here is whole."""

    code = "copy_failed"
    exit_code = Exit.NO_BACKUP
    default_hint = "Check backup.copy_to, the network and the keys of the store, then run it again."


class DiskProblem(GatewayError):
    """A write, flush or read failed on the disk while the guard worked; the database is unchanged."""

    code = "disk"
    exit_code = Exit.NO_BACKUP
    default_hint = "Free disk space or repair the disk, then start again."


class NoResources(GatewayError):
    """The system does not give this process more memory, threads, processes or open files."""

    code = "no_resources"
    exit_code = Exit.NO_BACKUP
    default_hint = (
        "Raise the limit (`ulimit -a`; `TasksMax=` and `MemoryMax=` of a unit), or stop other programs;"
        " then start again."
    )


class OutputLost(GatewayError):
    """A command's output could not be written (such as a full disk behind `>`); its work is done anyway."""

    code = "output_lost"
    exit_code = Exit.UNEXPECTED
    default_hint = "Free disk space or redirect the output; what it has changed stays changed."


class ReplicaProblem(GatewayError):
    """The replica cannot be read or written, or its programs are not installed; the database is unchanged."""

    code = "replica"
    exit_code = Exit.NO_BACKUP
    default_hint = "Check replica.url, the network and the keys of the store, then try again."


class ReplicaTaken(GatewayError):
    """The replica's URL is in use by another database or another gateway; nothing there is changed."""

    code = "replica_taken"
    exit_code = Exit.REFUSED
    default_hint = "Use another URL, or `replica take-over` to replace what is there."


# --- an upstream server -------------------------------------------------------------------------


class UpstreamProblem(GatewayError):
    """An upstream MCP server could not be started or reached, or broke the protocol."""

    code = "upstream"
    exit_code = Exit.UNEXPECTED
    default_hint = "Check the command or URL with `server show`, then try `server test`."


class Interrupted(GatewayError):
    """A signal asked the work to stop: it was rolled back and the lock released."""

    code = "interrupted"
    exit_code = Exit.OK
    default_hint = "Start again when ready; the database is unchanged."


def situations() -> Iterator[type[GatewayError]]:
    """Yield every error class, the root first, in the order of this file (the docs table)."""
    yield GatewayError
    yield from GatewayError.__subclasses__()
