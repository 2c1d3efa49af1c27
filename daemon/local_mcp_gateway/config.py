"""Settings: read once from defaults, files, environment and options; frozen afterwards.

Later wins: the defaults below, `gateway.toml`, the dev overlay (`serve --dev`), the environment
(`DATABASE_PATH`, then `LMG_SECTION__KEY`), options on the command line. Each value remembers where it
came from (`config show`). An unknown key is an error that names the nearest known one: a setting that
is silently ignored is the most expensive kind.

The dataclasses are the one list of keys: `config/gateway.toml`, the docs and the environment names
are checked against them. Only the modules that are needed for the sources at hand are imported, since
every command pays for this file at its start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from local_mcp_gateway.errors import ConfigProblem

DEFAULT_DATABASE = "~/.local-mcp-gateway-data/local-mcp-gateway.db"
DATABASE_NAME = "local-mcp-gateway.db"
ENVIRONMENT_PREFIX = "LMG_"


def _key(default: Any, help_text: str, *choices: str) -> Any:
    """Declare a key: its default, its sentence for the docs, and the words it may hold, if closed."""
    return field(default=default, metadata={"help": help_text, "choices": choices})


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Where the gateway listens and whom it answers."""

    host: str = _key(
        "127.0.0.1", "Address to listen on. Tokens are required when it is not loopback."
    )
    port: int = _key(3001, "TCP port to listen on; 0 lets the system choose.")
    default_profile: str = _key("default", "Profile that is served at /mcp.")
    allowed_hosts: tuple[str, ...] = _key(
        (), "Further Host names that are answered besides loopback."
    )
    allowed_origins: tuple[str, ...] = _key((), "Further browser Origins that are answered.")
    drain_timeout_s: float = _key(10.0, "Seconds that calls in flight may take at a stop.")


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the database is."""

    path: str = _key(
        "", f"Database file. Empty: $STATE_DIRECTORY under systemd, else {DEFAULT_DATABASE}."
    )


@dataclass(frozen=True, slots=True)
class MigrationsSettings:
    """Where the migrations are and what they may call."""

    folder: str = _key("", "Migrations folder. Empty: the one that came with the program.")
    functions: Mapping[str, str] = field(
        default_factory=dict,
        metadata={
            "help": 'SQL functions that migrations call: name = "module:attribute".',
            "choices": (),
        },
    )


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """What the migration guard insists on."""

    rehearse: str = _key(
        "always", "Rehearse pending migrations on a copy.", "always", "auto", "never"
    )
    destructive: str = _key("warn", "Migrations that delete data.", "warn", "refuse")
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
    lock_timeout_s: float = _key(
        0.0, "Seconds that `serve` waits for another holder of the lock (db migrate: 30)."
    )


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """Which backups are kept, and where."""

    folder: str = _key("", "Backup folder. Empty: `backups` beside the database.")
    keep_last: int = _key(10, "The newest backups that are always kept.")
    keep_daily_days: int = _key(14, "Days for which one backup a day is kept besides.")
    keep_aside: int = _key(3, "Replaced database files (of restore and reset) that are kept.")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged and how."""

    format: str = _key(
        "auto",
        "auto: console on a terminal, journal under systemd, else JSON.",
        "auto",
        "console",
        "json",
        "journal",
    )
    level: str = _key(
        "",
        "Least level that is logged. Empty: info for serve, warning for other commands.",
        "",
        "debug",
        "info",
        "warning",
        "error",
    )


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """How patient the gateway is with upstream servers."""

    connect_timeout_s: float = _key(
        30.0, "Seconds for an upstream to start and answer its first request."
    )
    call_timeout_s: float = _key(300.0, "Seconds for one call; progress notifications extend it.")
    list_timeout_s: float = _key(
        10.0, "Seconds that a list waits for an upstream without a known catalog."
    )
    idle_stop_s: float = _key(
        900.0, "Seconds without a call after which a stdio child is stopped; 0 never."
    )
    backoff_max_s: float = _key(60.0, "Longest pause between attempts to reconnect.")
    max_message_bytes: int = _key(
        67_108_864, "Largest single message of a stdio upstream, in bytes."
    )


@dataclass(frozen=True, slots=True)
class DevSettings:
    """What `serve --dev` does on a save."""

    hot_apply: bool = _key(True, "Apply a migration that is saved into the folder while running.")
    auto_generate: bool = _key(False, "Write the migration when the schema module changes.")
    reload: bool = _key(True, "Restart the worker when the program's own code changes.")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, frozen, and where each value came from."""

    gateway: GatewaySettings = GatewaySettings()
    database: DatabaseSettings = DatabaseSettings()
    migrations: MigrationsSettings = field(default_factory=MigrationsSettings)
    guard: GuardSettings = GuardSettings()
    backup: BackupSettings = BackupSettings()
    log: LogSettings = LogSettings()
    upstream: UpstreamSettings = UpstreamSettings()
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
        return Path(chosen).expanduser().absolute()

    @property
    def migrations_folder(self) -> Path:
        """Return the migrations folder, absolute; it need not exist."""
        if self.migrations.folder:
            return Path(self.migrations.folder).expanduser().absolute()
        from local_mcp_gateway.bundled import bundled  # noqa: PLC0415  only where it is needed

        return bundled("migrations")

    @property
    def backup_folder(self) -> Path:
        """Return the folder that holds the backups; it need not exist."""
        if self.backup.folder:
            return Path(self.backup.folder).expanduser().absolute()
        return self.database_path.resolve().parent / "backups"


@dataclass(frozen=True, slots=True)
class Key:
    """One setting, for `config show`, the docs and the default file."""

    section: str
    name: str
    type: str
    default: object
    help: str
    choices: tuple[str, ...]

    @property
    def path(self) -> str:
        """Return `section.key`, the name used in messages."""
        return f"{self.section}.{self.name}"

    @property
    def environment(self) -> str:
        """Return the environment variable that sets it."""
        return f"{ENVIRONMENT_PREFIX}{self.section}__{self.name}".upper()


def keys() -> Iterator[Key]:
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
            )


def load(
    config_file: Path | None = None,
    *,
    overlay: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    options: Mapping[str, object] | None = None,
) -> Settings:
    """Read the settings from every source; `options` are `section.key` → value from the command line.

    Without `config_file` the user's own `~/.config/local-mcp-gateway/gateway.toml` is read if it is
    there. Raises ConfigProblem, naming file and key.
    """
    layers: list[tuple[str, Mapping[str, object]]] = []
    if config_file is None:
        home = Path(environment.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        users_own = home / "local-mcp-gateway" / "gateway.toml"
        config_file = users_own if users_own.is_file() else None
    for file in (config_file, overlay):
        if file is not None:
            layers.append((str(file), _flatten(_read_toml(file), file)))
    if environment.get("DATABASE_PATH"):
        layers.append(("DATABASE_PATH", {"database.path": environment["DATABASE_PATH"]}))
    for name, value in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            path = name[len(ENVIRONMENT_PREFIX) :].lower().replace("__", ".", 1)
            layers.append((name, {path: value}))
    if options:
        layers.append(("command line", options))
    return _merge(layers) if layers else Settings()


def _read_toml(file: Path) -> Mapping[str, object]:
    import tomllib  # noqa: PLC0415  only where a file is read

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigProblem(
            f"The configuration file {file} does not exist.",
            hint="Give an existing file with --config, or leave the option out.",
        ) from None
    except OSError as error:
        raise ConfigProblem(
            f"The configuration file {file} cannot be read: {error.strerror}."
        ) from None
    except UnicodeDecodeError:
        raise ConfigProblem(f"The configuration file {file} is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigProblem(
            f"The configuration file {file} is not valid TOML: {error}.",
            hint="Correct that line and start again.",
        ) from None


def _flatten(raw: Mapping[str, object], file: Path) -> dict[str, object]:
    flat: dict[str, object] = {}
    for section, values in raw.items():
        if not isinstance(values, Mapping):
            sections = ", ".join(dict.fromkeys(key.section for key in keys()))
            raise ConfigProblem(
                f"{file}: the key `{section}` stands outside of a section.",
                hint=f"Put it under one of the sections {sections}.",
            )
        flat.update({f"{section}.{name}": value for name, value in values.items()})
    return flat


def _merge(layers: list[tuple[str, Mapping[str, object]]]) -> Settings:
    known = {key.path: key for key in keys()}
    chosen: dict[str, dict[str, object]] = {}
    origins: dict[str, str] = {}
    for origin, values in layers:
        for path, value in values.items():
            if path not in known:
                raise _unknown(origin, path, list(known))
            key = known[path]
            chosen.setdefault(key.section, {})[key.name] = _convert(origin, key, value)
            origins[path] = origin
    default = Settings()
    sections = {name: replace(getattr(default, name), **values) for name, values in chosen.items()}
    return replace(default, origins=origins, **sections)


def _unknown(origin: str, path: str, known: list[str]) -> ConfigProblem:
    from difflib import get_close_matches  # noqa: PLC0415  only on the way to an error

    near = get_close_matches(path, known, n=1, cutoff=0.5)
    hint = f"Did you mean `{near[0]}`?" if near else "`config show` lists every key."
    return ConfigProblem(f"{origin}: there is no setting `{path}`.", hint=hint, key=path)


def _convert(origin: str, key: Key, value: object) -> object:
    """Turn a raw value into the key's type; text from the environment is parsed, other types are strict."""
    converted = value if type(value).__name__ == key.type else _parse(origin, key, value)
    if key.choices and converted not in key.choices:
        words = ", ".join(repr(choice) for choice in key.choices if choice)
        raise ConfigProblem(
            f"{origin}: `{key.path}` cannot be {value!r}.", hint=f"It takes {words}.", key=key.path
        )
    if isinstance(converted, int | float) and not isinstance(converted, bool) and converted < 0:
        raise ConfigProblem(f"{origin}: `{key.path}` cannot be negative ({value}).", key=key.path)
    if key.path == "gateway.port" and isinstance(converted, int) and converted > 65535:
        raise ConfigProblem(
            f"{origin}: `gateway.port` cannot be {converted}.",
            hint="Ports end at 65535.",
            key=key.path,
        )
    return converted


def _parse(origin: str, key: Key, value: object) -> object:
    import msgspec  # noqa: PLC0415  text from the command line needs no parsing, so no parser

    wanted = get_type_hints(type(getattr(Settings(), key.section)))[key.name]
    if wanted == tuple[str, ...] and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        converted: object = msgspec.convert(value, wanted, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        raise ConfigProblem(
            f"{origin}: `{key.path}` cannot be {value!r}: {error}.",
            hint=f"It takes {key.type}, for example {key.default!r}.",
            key=key.path,
        ) from None
    return converted


def commented_defaults() -> str:
    """Return `config/gateway.toml`: every key with its sentence, its variable and its default."""
    defaults = Settings()
    lines = [
        "# Local MCP Gateway: every setting, its unit and its default.",
        "# Remove the `#` before a key to change it. Later wins: this file, LMG_SECTION__KEY, options.",
    ]
    section = ""
    for key in keys():
        if key.section != section:
            section = key.section
            lines += ["", f"# {type(getattr(defaults, section)).__doc__}", f"[{section}]"]
        words = " | ".join(f'"{choice}"' for choice in key.choices)
        lines.append(f"# {key.help}" + (f" One of {words}." if words else ""))
        lines.append(f"# {key.name} = {_as_toml(key.default)}")
    return "\n".join(lines) + "\n"


def _as_toml(value: object) -> str:
    import json  # noqa: PLC0415  TOML's strings, numbers and arrays are JSON's

    return "{}" if isinstance(value, Mapping) else json.dumps(value)
