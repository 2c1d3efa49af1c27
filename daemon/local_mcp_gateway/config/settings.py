"""Every setting with its unit, default and description: the single list of keys.

`config/gateway.toml`, the docs and the names of environment variables are generated from it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import field, fields
from pathlib import Path
from typing import Any

from local_mcp_gateway.errors import ConfigProblem, DatabasePathProblem
from local_mcp_gateway.frozen import frozen

DEFAULT_DATABASE = "~/.local-mcp-gateway-data/local-mcp-gateway.db"
DEFAULT_KEY_FILE = "~/.config/local-mcp-gateway.key"
DEFAULT_COPY_KEY_FILE = "~/.config/local-mcp-gateway-copies.key"
DATABASE_NAME = "local-mcp-gateway.db"
ENVIRONMENT_PREFIX = "LMG_"


def _key(default: Any, help_text: str, *choices: str, restart: bool = False) -> Any:
    """Declare a key: its default, its description for the docs, and its allowed words, if limited.

    With `restart` it is read at the start only; a reload applies every other one.
    """
    metadata = {"help": help_text, "choices": choices, "restart": restart}
    if isinstance(default, Mapping):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@frozen
class GatewaySettings:
    """Where the gateway listens and which requests it accepts."""

    host: str = _key(
        "127.0.0.1",
        "Address to listen on; beyond loopback only with tokens (`token create`).",
        restart=True,
    )
    port: int = _key(3001, "TCP port to listen on; 0 lets the system choose.", restart=True)
    default_profile: str = _key("default", "Profile that is served at /mcp.")
    allowed_hosts: tuple[str, ...] = _key(
        (), "Host names to answer besides loopback.", restart=True
    )
    allowed_origins: tuple[str, ...] = _key((), "Further browser origins to answer.", restart=True)
    require_token: str = _key(
        "auto",
        "Which clients show a token. auto: those that could be on other machines.",
        "auto",
        "always",
    )
    tls_cert: str = _key(
        "",
        "File with the certificate (PEM) for https; its content is read again at a reload. Empty: http.",
        restart=True,
    )
    tls_key: str = _key(
        "",
        "File with the certificate's private key (PEM). Empty: in the file of the certificate.",
        restart=True,
    )
    drain_timeout_s: float = _key(
        10.0, "Seconds that calls in flight may take at a stop.", restart=True
    )


@frozen
class DatabaseSettings:
    """Where the database is."""

    path: str = _key(
        "",
        f"Database file. Empty: $STATE_DIRECTORY under systemd, else {DEFAULT_DATABASE}.",
        restart=True,
    )


@frozen
class MigrationsSettings:
    """Where the migrations are and what they may use."""

    folder: str = _key("", "Migrations folder. Empty: the one that came with the program.")
    schema: str = _key(
        "local_mcp_gateway.store.tables",
        "Where the schema is written down, for `db generate`: a module, a .py or .sql file, a folder of these.",
    )
    functions: Mapping[str, str] = _key(
        {}, 'SQL functions that migrations call: name = "module:attribute".'
    )
    collations: Mapping[str, str] = _key(
        {}, 'Collations that migrations use: name = "module:attribute", which compares two texts.'
    )
    extensions: tuple[str, ...] = _key(
        (),
        "SQLite extensions (files) to load for migrations, such as vec0. They run as native code.",
    )


@frozen
class GuardSettings:
    """The policies of the migration guard."""

    rehearse: str = _key(
        "always", "Rehearse pending migrations on a copy.", "always", "auto", "never"
    )
    destructive: str = _key("warn", "Migrations that delete data.", "warn", "refuse")
    hazards: Mapping[str, str] = _key(
        {},
        'What a hazard of a pending migration does: drops_index = "ignore", "warn" or "refuse".',
    )
    drift: str = _key(
        "auto",
        "A schema changed by hand. auto: refuse when something is pending, else warn.",
        "auto",
        "refuse",
        "warn",
    )
    quick_check_limit_s: float = _key(
        10.0, "Seconds that the quick check of a database that was not stopped cleanly may take."
    )
    full_check_limit_bytes: int = _key(
        67_108_864,
        "Largest database, in bytes, that is checked in full, indexes too, before and after a change.",
    )
    compare_limit_values: int = _key(
        2_000_000,
        "Largest rebuilt table, in values (rows × columns), that is compared value by value; in a larger one they are counted.",
    )
    lock_timeout_s: float = _key(
        0.0, "Seconds that `serve` waits for the lock (db migrate: 30).", restart=True
    )


@frozen
class BackupSettings:
    """Which backups are kept, and where."""

    folder: str = _key("", "Backup folder. Empty: `backups` next to the database.")
    keep_last: int = _key(10, "The newest backups that are always kept.")
    keep_daily_days: int = _key(14, "Days for which one backup a day is also kept.")
    keep_aside: int = _key(3, "Replaced database files (of restore and reset) that are kept.")
    copy_to: str = _key(
        "",
        "Where backups are copied off this machine, encrypted: s3://bucket/path, sftp://user@host/folder or file:///folder; needs `[copies]`. Empty: nowhere.",
    )
    copy_endpoint: str = _key("", "URL of an S3 store other than Amazon's.")
    copy_region: str = _key("", "Region of the S3 bucket. Empty: $AWS_REGION, else us-east-1.")
    copy_bucket_keys: str = _key(
        "", "Keys of the bucket, sealed; `secrets bucket backup` prints the line."
    )
    copy_ssh_key: str = _key(
        "", "File with the private key for SFTP. Empty: ssh's agent, else a key of ~/.ssh."
    )
    copy_ssh_host_key: str = _key(
        "",
        "Public key of the SFTP server ('ssh-ed25519 AAAA…'). Empty: ~/.ssh/known_hosts says it.",
    )
    copy_recipients: tuple[str, ...] = _key(
        (), "Public age keys (age1…) that copies are encrypted to; `db backup key` makes one."
    )
    copy_key_file: str = _key(
        "",
        "File with the age key that opens copies, needed for a restore only; keep it apart from this machine too."
        f" Empty: {DEFAULT_COPY_KEY_FILE}.",
    )


@frozen
class SecretsSettings:
    """How the values of servers' environment and headers are kept."""

    key_file: str = _key(
        "",
        "File with the keys that seal them, mode 0600. Keep it apart from database and backups. Empty:"
        f" {DEFAULT_KEY_FILE}.",
        restart=True,
    )


@frozen
class LogSettings:
    """What is logged and how."""

    format: str = _key(
        "auto",
        "auto: console on a terminal, journal under systemd, else JSON.",
        "auto",
        "console",
        "json",
        "journal",
        restart=True,
    )
    level: str = _key(
        "",
        "Lowest level that is logged. Empty: info for serve, warning for other commands.",
        "",
        "debug",
        "info",
        "warning",
        "error",
    )
    keep_calls: int = _key(10_000, "Calls that are kept in the database for `logs --calls`.")
    keep_audit_days: int = _key(365, "Days for which the audit (`audit`) is kept.")
    payloads: bool = _key(
        False,
        "Also keep arguments and results of calls; what looks like a secret is redacted.",
    )


@frozen
class UpstreamSettings:
    """Timeouts and limits for upstream servers."""

    connect_timeout_s: float = _key(
        30.0,
        "Seconds for an upstream to start and answer its first request, counted from the start again while it is busy.",
    )
    call_timeout_s: float = _key(300.0, "Seconds for one call; progress notifications extend it.")
    list_timeout_s: float = _key(
        10.0, "Seconds that a list waits for an upstream without a known catalog."
    )
    idle_stop_s: float = _key(
        900.0, "Seconds without a call after which a stdio child is stopped; 0 never."
    )
    backoff_max_s: float = _key(60.0, "Longest pause between attempts to reconnect.")
    altered_tools: str = _key(
        "warn",
        "A known tool whose description or schema changes. hold: nobody sees it until `server approve`.",
        "warn",
        "hold",
    )
    new_tools: str = _key(
        "show",
        "A tool that a server did not have at the first connection. hold: nobody sees it until `server approve`.",
        "show",
        "hold",
    )
    max_message_bytes: int = _key(
        67_108_864, "Largest single message of a stdio upstream, in bytes."
    )
    client_metadata_url: str = _key(
        "",
        "URL (https) of a document that describes this gateway to sign-in servers. Empty: it registers itself.",
        restart=True,
    )
    registry_url: str = _key(
        "",
        "URL of the MCP registry that `server import NAME` asks for a server's entry (`/v0.1/servers/…`).",
    )


@frozen
class TelemetrySettings:
    """Where traces are sent."""

    otlp_endpoint: str = _key(
        "",
        "OTLP over HTTP, such as http://127.0.0.1:4318; needs `[otel]`. Empty: no traces.",
        restart=True,
    )


@frozen
class ReplicaSettings:
    """The copy of the database off this machine, kept up to date by Litestream."""

    url: str = _key(
        "",
        "Where: s3://bucket/path, sftp://user@host/folder or file:///folder; needs `pip install 'local-mcp-gateway[replica]'`. Empty: no replica.",
        restart=True,
    )
    endpoint: str = _key("", "URL of an S3 store other than Amazon's.", restart=True)
    region: str = _key("", "Region of the S3 bucket.", restart=True)
    bucket_keys: str = _key(
        "", "Keys of the bucket, sealed; `secrets bucket replica` prints the line.", restart=True
    )
    ssh_key: str = _key(
        "",
        "File with the private key for SFTP, without a passphrase. Empty: a key of ~/.ssh.",
        restart=True,
    )
    ssh_host_key: str = _key(
        "",
        "Public key of the SFTP server ('ssh-ed25519 AAAA…'). Empty: ~/.ssh/known_hosts says it.",
        restart=True,
    )
    keep_days: int = _key(30, "Days for which earlier moments can be brought back.", restart=True)
    before_migration: str = _key(
        "warn",
        "A replica that does not have everything before a migration. wait: the migration is refused; warn: it is said.",
        "wait",
        "warn",
    )
    wait_s: float = _key(30.0, "Longest time to send everything before a migration, in seconds.")
    in_dev: bool = _key(False, "Replicate under `serve --dev` too.", restart=True)


@frozen
class DevSettings:
    """What `serve --dev` does on a save."""

    hot_apply: bool = _key(
        True, "Apply a migration that is saved into the folder while running.", restart=True
    )
    auto_generate: bool = _key(
        False, "Write the migration when the schema module changes.", restart=True
    )
    reload: bool = _key(
        True, "Restart the worker when the program's own code changes.", restart=True
    )


@frozen
class Settings:
    """All settings, frozen, with the source of each value."""

    gateway: GatewaySettings = GatewaySettings()
    database: DatabaseSettings = DatabaseSettings()
    migrations: MigrationsSettings = field(default_factory=MigrationsSettings)
    guard: GuardSettings = GuardSettings()
    backup: BackupSettings = BackupSettings()
    secrets: SecretsSettings = SecretsSettings()
    log: LogSettings = LogSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    replica: ReplicaSettings = ReplicaSettings()
    dev: DevSettings = DevSettings()
    origins: Mapping[str, str] = field(default_factory=dict)
    """`section.key` → the file, variable or option that set it; absent for a default."""

    @property
    def database_path(self) -> Path:
        """Return the database file, absolute; it need not exist."""
        chosen = self.database.path
        if not chosen:
            state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
            chosen = f"{state}/{DATABASE_NAME}" if state else DEFAULT_DATABASE
        path = _absolute(chosen)
        try:
            path.stat()
        except OSError as error:  # only some versions of Python let `resolve` report it
            if error.errno == errno.ELOOP:
                problem = f"{path} is a loop of symbolic links."
                raise DatabasePathProblem(problem) from None
        return path

    @property
    def migrations_folder(self) -> Path:
        """Return the migrations folder, absolute; it need not exist."""
        if self.migrations.folder:
            return _absolute(self.migrations.folder)
        from local_mcp_gateway.bundled import bundled  # imported on use

        return bundled("migrations")

    @property
    def backup_folder(self) -> Path:
        """Return the folder that holds the backups; it need not exist."""
        if self.backup.folder:
            return _absolute(self.backup.folder)
        return self.database_path.resolve().parent / "backups"

    @property
    def tls_files(self) -> tuple[Path, Path] | None:
        """Return the files of the certificate and of its key; None for plain HTTP."""
        certificate, key = self.gateway.tls_cert, self.gateway.tls_key
        if certificate:
            return _absolute(certificate), _absolute(key or certificate)
        if key:
            problem = "gateway.tls_key is set, and gateway.tls_cert is not."
            raise ConfigProblem(problem, hint="Set gateway.tls_cert to the certificate's file.")
        return None

    @property
    def secrets_key_file(self) -> Path:
        """Return the file that holds the keys of the secrets; it need not exist."""
        if self.secrets.key_file:
            return _absolute(self.secrets.key_file)
        return _in_config_home("local-mcp-gateway.key")

    @property
    def copy_key_file(self) -> Path:
        """Return the file with the age key that opens copies of backups; it need not exist."""
        if self.backup.copy_key_file:
            return _absolute(self.backup.copy_key_file)
        return _in_config_home("local-mcp-gateway-copies.key")

    @property
    def copy_ssh_key(self) -> Path | None:
        """Return the file with the key that logs in to the SFTP server of copies; None: any of ~/.ssh."""
        return _absolute(self.backup.copy_ssh_key) if self.backup.copy_ssh_key else None

    @property
    def replica_ssh_key(self) -> Path | None:
        """Return the file with the key that logs in to the SFTP server of the replica; None: any of ~/.ssh."""
        return _absolute(self.replica.ssh_key) if self.replica.ssh_key else None


def _in_config_home(name: str) -> Path:
    return _absolute(f"{os.environ.get('XDG_CONFIG_HOME') or '~/.config'}/{name}")


def _absolute(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except FileNotFoundError:
        problem = f"{text} is relative to a folder that no longer exists."
        raise ConfigProblem(
            problem, hint="Change to a folder that exists, then try again."
        ) from None
    except RuntimeError:
        problem = f"{text} is below a home folder, and there is none."
        raise ConfigProblem(problem, hint="Set HOME, or give a path without ~.") from None


@frozen
class Key:
    """One setting, for `config show`, the docs and the default file."""

    section: str
    name: str
    type: str
    default: object
    help: str
    choices: tuple[str, ...]
    restart: bool
    """Whether it is read at the start only."""

    @property
    def path(self) -> str:
        """Return `section.key`, the name used in messages."""
        return f"{self.section}.{self.name}"

    @property
    def environment(self) -> str:
        """Return the environment variable that sets it."""
        return f"{ENVIRONMENT_PREFIX}{self.section}__{self.name}".upper()


def list_keys() -> Iterator[Key]:
    """Yield every key in the order of this file."""
    defaults = Settings()
    for section in fields(Settings):
        if section.name == "origins":
            continue
        values = getattr(defaults, section.name)
        for item in fields(values):
            yield Key(
                section.name,
                item.name,
                str(item.type),
                getattr(values, item.name),
                item.metadata["help"],
                item.metadata["choices"],
                item.metadata["restart"],
            )
