"""A package is used through its `__init__`: what `__all__` names is its API, and nothing else is."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.house import Source, is_in

PACKAGE = Path(__file__).parents[1] / "daemon" / "local_mcp_gateway"
APIS = (
    "backup",
    "config",
    "database",
    "gateway",
    "gateway.catalog",
    "gateway.clients",
    "gateway.http",
    "gateway.protocol",
    "gateway.routing",
    "gateway.upstreams",
    "guard",
    "log",
    "migrate",
    "schema",
    "service",
    "service.admin",
    "service.dev",
    "service.history",
    "service.http",
    "service.secrets",
    "service.systemd",
    "store",
    "studio",
)
"""The packages whose API is checked, as they are named below `local_mcp_gateway`."""
NAMESPACES = {
    "migrate": {"generate", "replay"},
    "gateway.protocol": {"hops", "jsonrpc", "sse", "versions"},
    "service": {"runtime_paths"},
    "service.admin": {"control_socket", "dispatch"},
    "service.history": {"logs"},
    "service.http": {"listening_socket"},
    "service.secrets": {"private_file"},
    "service.systemd": {"systemctl", "units"},
    "store": {"cache", "queries"},
}
"""Package → its modules that others use by name: `jsonrpc.request`, `versions.MODERN`."""
OPEN = ("service",)
"""Packages whose sub-packages have APIs for others too: the commands use `service.systemd` by its name."""


Imports = list[tuple[str, str, str]]
"""(by, module, name), all in full, of each import within the package."""


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(PACKAGE)


@pytest.fixture(scope="module")
def imports(source: Source) -> Imports:
    return [
        (by, node.module or "", alias.name)
        for by, tree in source.trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


@pytest.mark.parametrize("package", APIS)
def test_other_packages_import_only_from_the_package_itself(
    source: Source, imports: Imports, package: str
) -> None:
    inside = f"{source.name}.{package}"
    deep = {
        f"{by}: {module}"
        for by, module, _ in imports
        if not is_in(by, inside)
        and module.startswith(f"{inside}.")
        and not (package in OPEN and source.is_package(module))
    }
    assert deep == set()


@pytest.mark.parametrize("package", APIS)
def test_other_packages_import_only_what_a_package_offers(
    source: Source, imports: Imports, package: str
) -> None:
    inside = f"{source.name}.{package}"
    offered = {*import_module(inside).__all__, *NAMESPACES.get(package, ())}
    taken = {
        f"{by}: {name}"
        for by, module, name in imports
        if not is_in(by, inside) and module == inside and name not in offered
    }
    assert taken == set()


@pytest.mark.parametrize("package", APIS)
def test_a_package_has_the_names_of_its_api_and_no_other(source: Source, package: str) -> None:
    name = f"{source.name}.{package}"
    api = import_module(name)
    # A module of the same name would be there instead, once it is imported.
    assert [one for one in api.__all__ if f"{name}.{one}" in source.paths] == []
    assert [one for one in api.__all__ if not hasattr(api, one)] == []
    with pytest.raises(AttributeError, match="nowhere"):
        _ = api.nowhere


@pytest.mark.parametrize("package", APIS)
def test_a_package_hands_on_at_run_time_what_the_type_checker_reads(
    source: Source, package: str
) -> None:
    name = f"{source.name}.{package}"
    nodes = list(ast.walk(source.trees[name]))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    handed_on = [
        (keyword.arg, one.value)
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "exports"
        for keyword in call.keywords
        for one in ast.walk(keyword.value)
        if isinstance(one, ast.Constant)
    ]
    read = [
        ((node.module or "").removeprefix(f"{name}."), alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{name}.")
        for alias in node.names
    ]
    if handed_on:  # the others import what they hand on
        assert sorted(handed_on) == sorted(read)


def test_whatever_can_change_the_database_file_takes_nothing_of_the_pool(
    source: Source, imports: Imports
) -> None:
    pool = f"{source.name}.database.pool"
    pooled = {node.name for node in source.trees[pool].body if isinstance(node, ast.ClassDef)}
    assert "ConnectionPool" in pooled
    taken = {
        f"{by}: {name}"
        for part in ("backup", "guard", "migrate", "schema")
        for by, module, name in imports
        if is_in(by, f"{source.name}.{part}")
        and (module == pool or (module == f"{source.name}.database" and name in pooled))
    }
    assert taken == set()
