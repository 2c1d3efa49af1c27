"""A `server.json` of the official registry becomes a server, and its values references or answers."""

from __future__ import annotations

from typing import Any

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.service.admin.client_files import read_entries
from local_mcp_gateway.service.admin.registry_file import read_registry_file
from local_mcp_gateway.store.model import ServerKind

ISSUES: dict[str, Any] = {
    "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
    "name": "io.github.example/issues",
    "description": "Issues of a tracker.",
    "version": "1.4.0",
    "packages": [
        {
            "registryType": "npm",
            "identifier": "@example/issues",
            "version": "1.4.0",
            "transport": {"type": "stdio"},
            "packageArguments": [
                {"type": "positional", "value": "serve"},
                {"type": "named", "name": "--root", "isRequired": True, "valueHint": "folder"},
                {"type": "named", "name": "--verbose"},
            ],
            "environmentVariables": [
                {"name": "TRACKER_TOKEN", "isRequired": True, "isSecret": True},
                {"name": "TRACKER_URL", "default": "https://tracker.example"},
                {"name": "TRACKER_PROXY", "description": "Optional."},
            ],
        }
    ],
}
FAR: dict[str, Any] = {
    "name": "com.example/far",
    "remotes": [
        {
            "type": "streamable-http",
            "url": "https://{region}.example.com/mcp",
            "variables": {"region": {"description": "Region", "default": "eu"}},
            "headers": [
                {
                    "name": "Authorization",
                    "value": "Bearer {token}",
                    "isRequired": True,
                    "isSecret": True,
                    "variables": {"token": {"isRequired": True, "isSecret": True}},
                }
            ],
        }
    ],
}


def test_a_package_becomes_a_command_with_references_for_what_a_person_gives() -> None:
    (read,) = read_entries(ISSUES)
    assert read.server is not None
    server = read.server
    assert (server.name, server.kind, server.command) == ("issues", ServerKind.STDIO, "npx")
    assert server.args == ("-y", "@example/issues@1.4.0", "serve", "--root", "${root}")
    assert server.env == {
        "TRACKER_TOKEN": "${TRACKER_TOKEN}",
        "TRACKER_URL": "${TRACKER_URL:-https://tracker.example}",
    }


def test_what_is_asked_for_says_what_it_is_and_an_answer_is_kept_in_the_environment() -> None:
    registered = read_registry_file({"server": ISSUES, "_meta": {}})
    assert registered is not None
    asked = {value.name: value for value in registered.asked}
    assert set(asked) == {"root", "TRACKER_TOKEN", "TRACKER_URL"}
    assert (asked["TRACKER_TOKEN"].required, asked["TRACKER_TOKEN"].secret) == (True, True)
    assert (asked["TRACKER_URL"].required, asked["TRACKER_URL"].default) == (
        False,
        "https://tracker.example",
    )
    env = registered.answered({"TRACKER_TOKEN": "s3cret", "root": "/srv"})["env"]
    assert (env["TRACKER_TOKEN"], env["root"]) == ("s3cret", "/srv")


def test_a_remote_becomes_a_url_and_headers() -> None:
    (read,) = read_entries(FAR)
    assert read.server is not None
    assert read.server.url == "https://${region:-eu}.example.com/mcp"
    assert read.server.headers == {"Authorization": "Bearer ${token}"}
    registered = read_registry_file(FAR)
    assert registered is not None
    filled = registered.answered({"region": "us", "token": r"a\1b"})
    assert filled["url"] == "https://us.example.com/mcp"
    assert filled["headers"] == {"Authorization": r"Bearer a\1b"}


def test_a_container_is_given_its_variables() -> None:
    package = {
        "registryType": "oci",
        "identifier": "docker.io/example/issues:1.4.0",
        "transport": {"type": "stdio"},
        "environmentVariables": [{"name": "TOKEN", "isRequired": True}],
    }
    registered = read_registry_file({"name": "x/issues", "packages": [package]})
    assert registered is not None
    assert registered.entry["command"] == "docker"
    assert registered.entry["args"] == [
        *("run", "-i", "--rm", "-e", "TOKEN", "docker.io/example/issues:1.4.0")
    ]


@pytest.mark.parametrize(
    "document",
    [
        {"mcpServers": {}},
        [],
        {"name": "app"},
        {"name": "app", "packages": "none"},
        {"packages": []},
    ],
)
def test_any_other_file_is_left_to_those_who_know_it(document: object) -> None:
    assert read_registry_file(document) is None


def test_what_cannot_run_here_is_refused_with_what_could() -> None:
    bundle = {"registryType": "mcpb", "identifier": "x", "transport": {"type": "stdio"}}
    with pytest.raises(UsageProblem, match="x/bundle can be run or reached") as refused:
        read_registry_file({"name": "x/bundle", "packages": [bundle]})
    assert "npm, pypi, oci, nuget" in refused.value.hint
