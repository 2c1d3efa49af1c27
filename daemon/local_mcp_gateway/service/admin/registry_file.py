"""Read a `server.json`, or ask an MCP registry for it: what to run or reach, and the values that it asks for.

It becomes an entry as clients write them. A value that only a person knows becomes a reference (`${NAME}`),
which is filled in when the server starts. Schema: modelcontextprotocol/registry, `server.schema.json`; API:
its `openapi.yaml`, v0.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from local_mcp_gateway.errors import UpstreamProblem, UsageProblem
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.log import redact_url

_RUNNERS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "npm": (("npx", "-y"), "{identifier}@{version}"),
    "pypi": (("uvx",), "{identifier}@{version}"),
    "oci": (("docker", "run", "-i", "--rm"), "{identifier}"),
    "nuget": (("dnx", "--yes"), "{identifier}@{version}"),
}
"""Registry of a package → the command that runs it, and how the package is written for it."""
_ID = re.compile(r"([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+/[A-Za-z0-9._-]+?)(?:@([A-Za-z0-9._+-]+))?")
"""A server in a registry, `io.github.someone/name`, maybe with its version."""
_TIMEOUT_S = 30.0
_MOST_BYTES = 4 << 20
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")


class AskedValue(NamedTuple):
    """A value that the file declares and a person gives."""

    name: str
    """Of the variable that holds it."""
    description: str
    required: bool
    secret: bool
    default: str | None


class RegistryServer(NamedTuple):
    """What one `server.json` becomes."""

    name: str
    entry: dict[str, Any]
    asked: tuple[AskedValue, ...]

    def answered(self, values: Mapping[str, str]) -> dict[str, Any]:
        """Return the entry with these values; a secret goes to the environment or a header, which are sealed."""
        if "url" not in self.entry:
            return {**self.entry, "env": {**self.entry["env"], **values}}
        filled: dict[str, Any] = {**self.entry, "url": _filled(self.entry["url"], values)}
        headers = self.entry["headers"].items()
        filled["headers"] = {name: _filled(text, values) for name, text in headers}
        return filled


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        reference = rf"\$\{{{name}(:-[^}}]*)?\}}"
        text = re.sub(reference, value.replace("\\", r"\\"), text)
    return text


def is_registry_id(text: str) -> bool:
    """Tell whether this can be the name of a server in a registry."""
    return _ID.fullmatch(text) is not None and not text.endswith((".json", ".jsonc", ".toml"))


def ask_registry(registry_url: str, server: str) -> object:
    """Return what a registry says of a server, `NAME` or `NAME@VERSION`: its `server.json`, wrapped.

    Raises UsageProblem for one that it does not have, UpstreamProblem where it cannot be asked.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.parse import quote
    from urllib.request import Request, urlopen

    found = _ID.fullmatch(server)
    base = registry_url.rstrip("/").removesuffix("/v0.1")
    shown = redact_url(base)
    if found is None or not _is_http(base):
        raise UsageProblem(
            f"{server} is looked up in an MCP registry, and upstream.registry_url is "
            + (f"not a URL: {shown}." if registry_url else "not set."),
            hint="`config set upstream.registry_url URL` sets it; or give the server's `server.json`.",
        )
    path = (
        f"/v0.1/servers/{quote(found[1], safe='')}/versions/{quote(found[2] or 'latest', safe='')}"
    )
    request = Request(base + path, headers={"Accept": "application/json"})  # noqa: S310  see above
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            return parse_json(answer.read(_MOST_BYTES))
    except HTTPError as error:
        with error:
            if error.code == 404:
                raise UsageProblem(
                    f"The registry {shown} has no server {server}.",
                    hint="A name looks like `io.github.someone/server`, with `@VERSION` after it if need be.",
                ) from None
            reason = f"it answers {error.code} {error.reason}"
    except (OSError, HTTPException) as error:
        cause = getattr(error, "reason", error)
        reason = getattr(cause, "strerror", None) or str(cause)
    except ValueError:
        reason = "its answer is not JSON"
    raise UpstreamProblem(
        f"The registry {shown} cannot be asked: {reason}.",
        hint="See `upstream.registry_url` with `config show`; or give the server's `server.json`.",
    )


def _is_http(url: str) -> bool:
    """Tell whether a request can be sent to this URL."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an address or a port that cannot be
        return False


def status_in_registry(document: object) -> str | None:
    """Return what a registry says of an entry beyond `active`, such as `deprecated`; None for nothing."""
    match document:
        case {"_meta": {"io.modelcontextprotocol.registry/official": {"status": str(status)}}}:
            return None if status == "active" else status
    return None


def read_registry_file(document: object) -> RegistryServer | None:
    """Return the server of a `server.json`, bare or as the registry's API wraps it; None for any other file.

    Raises UsageProblem for one that nothing here can run.
    """
    if isinstance(document, dict) and isinstance(document.get("server"), dict):
        document = document["server"]
    if not isinstance(document, dict) or not isinstance(document.get("name"), str):
        return None
    if not any(isinstance(document.get(key), list) for key in ("packages", "remotes")):
        return None
    name = str(document["name"]).rpartition("/")[2]
    asked: dict[str, AskedValue] = {}
    for package in _objects(document.get("packages")):
        kind = str(package.get("registryType") or package.get("registry_type"))
        transport = package.get("transport")
        over = transport.get("type") if isinstance(transport, dict) else "stdio"
        if kind in _RUNNERS and over == "stdio":
            return RegistryServer(name, _command(kind, package, asked), tuple(asked.values()))
    for remote in _objects(document.get("remotes")):
        if remote.get("type") in ("streamable-http", "sse") and isinstance(remote.get("url"), str):
            return RegistryServer(name, _remote(remote, asked), tuple(asked.values()))
    raise UsageProblem(
        f"Nothing in the entry of {document['name']} can be run or reached from here.",
        hint=f"Known are packages of {', '.join(_RUNNERS)} over stdio, and remotes over HTTP.",
    )


def _command(kind: str, package: dict[str, Any], asked: dict[str, AskedValue]) -> dict[str, Any]:
    runner, spelling = _RUNNERS[kind]
    identifier, version = str(package.get("identifier")), package.get("version")
    spelt = spelling.format(identifier=identifier, version=version) if version else identifier
    env = _named(package.get("environmentVariables"), asked)
    words = [*runner[1:], *_arguments(package.get("runtimeArguments"), asked)]
    if kind == "oci":  # the container has no environment of its own accord
        words += [word for variable in env for word in ("-e", variable)]
    words += [spelt, *_arguments(package.get("packageArguments"), asked)]
    return {"type": "stdio", "command": runner[0], "args": words, "env": env}


def _remote(remote: dict[str, Any], asked: dict[str, AskedValue]) -> dict[str, Any]:
    headers = _named(remote.get("headers"), asked)
    url = _referring(str(remote["url"]), remote.get("variables"), asked)
    return {"type": remote["type"], "url": url, "headers": headers}


def _named(items: object, asked: dict[str, AskedValue]) -> dict[str, str]:
    """Return variables or headers; one that may be left out, and has no value, is left to the person."""
    return {
        str(item["name"]): _value(item, str(item["name"]), asked)
        for item in _objects(items)
        if item.get("name") and _is_given(item)
    }


def _is_given(item: dict[str, Any]) -> bool:
    return bool(item.get("isRequired")) or any(item.get(key) for key in ("value", "default"))


def _arguments(items: object, asked: dict[str, AskedValue]) -> Iterator[str]:
    for item in _objects(items):
        name = str(item.get("name") or item.get("valueHint") or item.get("value_hint") or "")
        flag = name if item.get("type") == "named" else None
        if not _is_given(item):
            continue
        if flag:
            yield flag
        if not flag or any(key in item for key in ("value", "default", "valueHint", "format")):
            yield _value(item, name.lstrip("-"), asked)


def _value(item: dict[str, Any], name: str, asked: dict[str, AskedValue]) -> str:
    """Return the text of an input: as fixed in the file, or with references to what a person gives."""
    if isinstance(item.get("value"), str):
        return _referring(item["value"], item.get("variables"), asked)
    return _reference(name, item, asked)


def _referring(text: str, variables: object, asked: dict[str, AskedValue]) -> str:
    declared = variables if isinstance(variables, dict) else {}

    def refer(found: re.Match[str]) -> str:
        item = declared.get(found[1])
        return _reference(found[1], item, asked) if isinstance(item, dict) else found[0]

    return _PLACEHOLDER.sub(refer, text)


def _reference(name: str, item: dict[str, Any], asked: dict[str, AskedValue]) -> str:
    variable = re.sub(r"\W", "_", name) or "VALUE"
    default = item.get("default")
    text = None if default is None else str(default)
    asked[variable] = AskedValue(
        variable,
        str(item.get("description") or ""),
        required=bool(item.get("isRequired")) and text is None,
        secret=bool(item.get("isSecret")),
        default=text,
    )
    return f"${{{variable}}}" if text is None else f"${{{variable}:-{text}}}"


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
