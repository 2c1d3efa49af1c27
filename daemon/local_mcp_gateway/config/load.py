"""Read the settings from every source; later sources win, and every mistake names its key.

The order is: the defaults, `gateway.toml`, `gateway.dev.toml` next to it (in dev mode), the environment
(`DATABASE_PATH`, then `LMG_SECTION__KEY`), command line options. Each value keeps its source (`config
show`). An unknown key is an error that names the nearest known one, because a silently ignored setting is
the most expensive mistake. Parsers are only imported for the sources in use: every command starts here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints
from urllib.parse import urlsplit

from local_mcp_gateway.config.settings import ENVIRONMENT_PREFIX, Key, Settings, list_keys
from local_mcp_gateway.errors import ConfigProblem, DatabasePathProblem
from local_mcp_gateway.regular_file import read_given


def load_settings(
    config_file: Path | None = None,
    *,
    dev: bool = False,
    environment: Mapping[str, str] = os.environ,
    options: Mapping[str, object] | None = None,
) -> Settings:
    """Read the settings from every source; `options` maps `section.key` to the command line's value.

    A given `config_file` must exist; the user's own file and the dev overlay are optional. Raises
    ConfigProblem, which names file and key.
    """
    layers: list[tuple[str, Mapping[str, object]]] = []
    main, overlay = config_files(config_file, environment)
    files = [main] if config_file or main.exists() else []
    files += [overlay] if dev and overlay.exists() else []
    layers += [(str(file), _flatten(_read_toml(file), file)) for file in files]
    if environment.get("DATABASE_PATH"):
        layers.append(("DATABASE_PATH", {"database.path": environment["DATABASE_PATH"]}))
    for name, value in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            path = name[len(ENVIRONMENT_PREFIX) :].lower().replace("__", ".", 1)
            layers.append((name, {path: value}))
    if options:
        layers.append(("command line", options))
    return _merge(layers) if layers else Settings()


def parse_value(path: str, text: str) -> object:
    """Return the value of a setting that was typed; raises ConfigProblem for an unknown key or a bad value."""
    known = {key.path: key for key in list_keys()}
    if path not in known:
        raise _unknown("The configuration", path, list(known))
    key = known[path]
    value: object = text
    if key.type.startswith("Mapping"):
        import tomllib

        with suppress(tomllib.TOMLDecodeError):
            value = tomllib.loads(f"value = {text}")["value"]
    return _convert("The configuration", key, value)


def check_text(text: str, file: Path) -> Settings:
    """Return the settings of `text` as a configuration file of that name. Raises ConfigProblem."""
    return _merge([(str(file), _flatten(_parse_toml(text, file), file))])


def config_files(
    given: Path | None, environment: Mapping[str, str] = os.environ
) -> tuple[Path, Path]:
    """Return the settings file (the user's own unless one is given) and the dev overlay."""
    if given is None:
        home = Path(environment.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        given = home / "local-mcp-gateway" / "gateway.toml"
    return given, given.with_name(f"{given.stem}.dev{given.suffix}")


def _read_toml(file: Path) -> Mapping[str, object]:
    try:
        return _parse_toml(read_given(file).decode(), file)
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


def _parse_toml(text: str, file: Path) -> Mapping[str, object]:
    import tomllib  # only needed to read a file

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigProblem(
            f"The configuration file {file} is not valid TOML: {error}.",
            hint="Correct that line and start again.",
        ) from None


def _flatten(raw: Mapping[str, object], file: Path) -> dict[str, object]:
    flat: dict[str, object] = {}
    for section, values in raw.items():
        if not isinstance(values, Mapping):
            sections = ", ".join(dict.fromkeys(key.section for key in list_keys()))
            raise ConfigProblem(
                f"{file}: the key `{section}` is outside of a section.",
                hint=f"Put it under one of the sections {sections}.",
            )
        flat.update({f"{section}.{name}": value for name, value in values.items()})
    return flat


def _merge(layers: list[tuple[str, Mapping[str, object]]]) -> Settings:
    known = {key.path: key for key in list_keys()}
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
    from difflib import get_close_matches  # only for an error

    near = get_close_matches(path, known, n=1, cutoff=0.5)
    hint = f"Did you mean `{near[0]}`?" if near else "`config show` lists every key."
    return ConfigProblem(f"{origin}: there is no setting `{path}`.", hint=hint, key=path)


def _convert(origin: str, key: Key, value: object) -> object:
    """Convert a raw value to the key's type: text from the environment is parsed, other types are checked."""
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
    if key.path in _MATCHED:
        _check_names(origin, key, converted)
    if key.path == "database.path" and (url := _URL.match(str(converted))):
        path = str(converted)[url.end() :].partition("?")[0]
        raise ConfigProblem(
            f"{origin}: `database.path` cannot be {converted!r}: it is a path, not a URL.",
            hint=f"Write {path}." if path else "Write the path of a file.",
            key=key.path,
        )
    return converted


_URL = re.compile(r"sqlite[\w+]*:(//(localhost)?/?)?|file:(//(localhost)?)?", re.IGNORECASE)
"""The beginning of SQLite's URLs, and of those of other tools, up to the path."""
_MATCHED = {"gateway.host", "gateway.allowed_hosts", "gateway.allowed_origins"}
"""Settings that are compared with what requests say, or resolved."""
_HOST = re.compile(r"[\w.-]+|[\da-f.]*:[\da-f:.]*", re.ASCII | re.IGNORECASE)
_ORIGIN = re.compile(r"[a-z][a-z\d+.-]*://[\w.:\[\]-]+/?|null", re.ASCII | re.IGNORECASE)
_DEFAULT_PORT = re.compile(r"^(http://[^/]+):80/?$|^(https://[^/]+):443/?$", re.IGNORECASE)


def _check_names(origin: str, key: Key, value: object) -> None:
    """Refuse a host or an origin that no request could ever name, with the form that one could."""
    texts = (value,) if isinstance(value, str) else value
    assert isinstance(texts, tuple), "these settings are texts"
    for text in texts:
        right = _right_origin(text) if key.path == "gateway.allowed_origins" else _right_host(text)
        if right != text:
            hint = f"Write {right}." if right else "Name each one; patterns are not supported."
            message = f"{origin}: `{key.path}` cannot be {text!r}: no request could match it."
            raise ConfigProblem(message, hint=hint, key=key.path)


def _right_host(text: str) -> str | None:
    """Return the name alone, as the header Host has it without its port."""
    if _HOST.fullmatch(text):
        return text
    with suppress(ValueError, UnicodeError):
        found = urlsplit(text if "://" in text else f"//{text.strip()}").hostname or ""
        found = found if ":" in found else found.encode("idna").decode()
        return found if _HOST.fullmatch(found) else None
    return None


def _right_origin(text: str) -> str | None:
    """Return scheme, host and a port that is not the scheme's own, as browsers send them."""
    if _ORIGIN.fullmatch(text):
        found = _DEFAULT_PORT.match(text)
        return (found[1] or found[2]) if found else text
    with suppress(ValueError):
        parts = urlsplit(text if "://" in text else f"https://{text.strip()}")
        right = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        return right if _ORIGIN.fullmatch(right) else None
    return None


def _parse(origin: str, key: Key, value: object) -> object:
    import json  # text from the command line needs no parser

    import msgspec

    from local_mcp_gateway.json_input import parse_json

    wanted = get_type_hints(type(getattr(Settings(), key.section)))[key.name]
    if isinstance(value, str) and value.startswith(("[", "{")) and wanted is not str:
        with suppress(ValueError):  # as `config show` prints it
            value = parse_json(value)
    if wanted == tuple[str, ...] and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        converted: object = msgspec.convert(value, wanted, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        why = "" if key.type in _TYPES else f": {error}"
        given = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
        raise ConfigProblem(
            f"{origin}: `{key.path}` cannot be {given}{why}.",
            hint=f"It takes {_TYPES.get(key.type, key.type)}, for example {json.dumps(key.default)}.",
            key=key.path,
        ) from None
    return converted


_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "tuple[str, ...]": "a list of texts",
    "Mapping[str, str]": "a table of texts",
}


def prepare_data_folder(settings: Settings) -> None:
    """Create the data folder (0700) if it is the default or systemd's; never one that a user typed."""
    if settings.database.path:
        return
    folder = settings.database_path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DatabasePathProblem(
            f"The data folder {folder} cannot be created: {error.strerror}."
        ) from None
