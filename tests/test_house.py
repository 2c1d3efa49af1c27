"""`make house` counts what a reader meets in the source; the traced half runs in CI with the benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.house import Source, of_source
from tests.harness import REPOSITORY


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with a guard that uses two modules of migrate, one of them through its `__init__`."""
    sources = {
        "__init__.py": "",
        "migrate/__init__.py": "from app.migrate.apply import apply\n",
        "migrate/apply.py": "from app.migrate import folder\n\ndef apply(): ...\n",
        "migrate/folder.py": "def read(): ...\nclass Folder: ...\n",
        "guard/__init__.py": "",
        "guard/guard.py": "from typing import TYPE_CHECKING\n"
        "from app.migrate import apply\n"
        "if TYPE_CHECKING:\n"
        "    from app.migrate.folder import (\n        Folder,\n    )\n",
    }
    for name, text in sources.items():
        path = tmp_path / "app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "app"


def test_a_name_from_a_package_counts_for_the_module_that_defines_it(package: Path) -> None:
    found = {(one.by, one.module, one.name) for one in Source(package).imported}
    assert ("app.guard.guard", "app.migrate.apply", "apply") in found


def test_a_module_that_keeps_a_library_out_of_a_start_has_a_reason_to_stand_alone(
    package: Path,
) -> None:
    """It is imported inside a function, and the library is not there without it."""
    late = "def run():\n    from app.guard import web\n"
    (package / "guard" / "web.py").write_text("import aiohttp\nimport json\n")
    (package / "guard" / "late.py").write_text(late)
    assert Source(package).fences_off("app.guard.web") == {"aiohttp"}
    (package / "guard" / "late.py").write_text(f"import aiohttp\n{late}")
    assert Source(package).fences_off("app.guard.web") == set()
    (package / "guard" / "late.py").write_text("from app.guard import web\n")
    assert Source(package).fences_off("app.guard.web") == set()


def test_importers_are_counted_without_types_and_without_what_a_package_hands_on(
    package: Path,
) -> None:
    one_importer, names, imports, lines = of_source(package)
    # apply is used by guard, and folder by apply; the Folder of guard is a type.
    assert one_importer.value == 2
    assert names.value == 2
    assert lines.value == 12
    assert imports.value == pytest.approx(100 * 7 / 12)


def test_a_module_that_the_command_line_loads_by_name_is_an_entry(package: Path) -> None:
    """It would have to be found where the table of commands names it, even if one module imports it."""
    before = next(of_source(package)).value
    table = 'COMMANDS = {"apply": Target("apply:apply", "Apply.")}\n'
    (package / "migrate" / "commands.py").write_text(table)
    assert Source(package).commands == {"app.migrate.apply"}
    assert next(of_source(package)).value == before - 1


def test_the_table_of_the_source_has_every_goal() -> None:
    command = [sys.executable, "-m", "benchmarks.house", "--static", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    rows = {row["what"]: row for row in json.loads(done.stdout)}
    assert len(rows) == 4
    assert all(row["value"] > 0 and row["at_most"] for row in rows.values()), rows
