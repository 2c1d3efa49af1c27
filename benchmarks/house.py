"""How much of the package a reader has to walk through: `make house`.

Trips are traces of real runs: how many files of the package a run enters, and how often it changes from
one file to another. The rest is read from the source. The machine's speed plays no part; since threads
interleave differently each time, a trip is the median of several runs.

`--static` leaves the trips out, `--files` shows the files of each, `--json` prints rows.
"""

from __future__ import annotations

import argparse
import ast
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from functools import partial
from itertools import pairwise
from pathlib import Path

from benchmarks.house_trace import PACKAGE, Trace, ask
from benchmarks.startup import Client
from benchmarks.table import Row, render
from tests.harness import COMMAND, REPOSITORY, MigrationFolder, Place, new_place

NAME = Path(PACKAGE).name
HERE = REPOSITORY / "benchmarks"
TRACED = (sys.executable, str(HERE / "house_trace.py"))
UPSTREAM = (sys.executable, str(HERE / "child.py"), "c")
"""A stdio server; its tools are named after its argument."""
TRIPS = 5
MOST_LINES = 400
"""Of a module."""
WARM = 20
"""Calls before the one that is traced."""


# --- trips --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trip:
    """One action, traced several times: the files of the package that each run enters, in order."""

    what: str
    ways: tuple[list[str], ...]
    files: int | None = None
    changes: int | None = None

    def rows(self) -> Iterator[Row]:
        note = f"median of {len(self.ways)}" if len(self.ways) > 1 else ""
        files = statistics.median(len(set(way)) for way in self.ways)
        yield Row(f"{self.what}: files", files, "", at_most=self.files, note=note)
        changed = statistics.median(sum(a != b for a, b in pairwise(way)) for way in self.ways)
        yield Row(f"{self.what}: changes of file", changed, "", at_most=self.changes, note=note)

    def listing(self) -> str:
        """Return the files of the last run, in order, each with how often it was entered."""
        way = self.ways[-1]
        entered = Counter([way[0], *(b for a, b in pairwise(way) if a != b)])
        return "\n".join([f"{self.what}:", *(f"{n:6d}  {file}" for file, n in entered.items())])


def trips() -> Iterator[Trip]:
    yield Trip("guarded start, one ADD COLUMN pending", (guarded_start(),), 28, 200)
    yield Trip("one tools/call, HTTP → stdio → back", tuple(gateway_calls()), 18)
    yield Trip("the same in `serve`", tuple(serve_calls()))
    yield Trip("dev save → applied", tuple(dev_saves()), 45, 500)


def guarded_start() -> list[str]:
    """Trace what `guarded` does until its block is entered: one table, and a column to add."""
    from local_mcp_gateway.guard import guarded

    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        database, folder = Path(name) / "app.db", MigrationFolder(Path(name) / "migrations")
        folder.add("first", "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)")
        with guarded(database, folder.path):
            pass
        folder.add("second", "ALTER TABLE notes ADD COLUMN title TEXT")
        with Trace() as trace:
            held.enter_context(guarded(database, folder.path))
        return trace.files


def gateway_calls() -> Iterator[list[str]]:
    """Trace calls in a gateway alone: what the service does around it is left out."""
    with tempfile.TemporaryDirectory() as name:
        control = f"{name}/control"
        server = f"stdio:c:{shlex.join(UPSTREAM)}"
        command = [*TRACED, control, "gateway_process", name, server]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            for way in calls(url, control):
                yield [file for file in way if not file.startswith("service/")]
            process.terminate()


def serve_calls() -> Iterator[list[str]]:
    """Trace calls in `serve`, with all that it logs and records of them."""
    with traced_place() as (place, control):
        add = ("server", "add", "c", "--no-test", "--profile", "default", "--", *UPSTREAM)
        added = Place(place.root, COMMAND).run(*add)
        assert added.code == 0, added.stderr
        with place.serve() as gateway:
            yield from calls(f"{gateway.wait_ready().url}/mcp", control)
            gateway.stop()


def calls(url: str, control: str) -> Iterator[list[str]]:
    client = Client(url)
    assert client.tools(), "the upstream offers nothing"
    for _ in range(WARM):
        client.call("c_echo")
    for _ in range(TRIPS):
        ask(control, "begin")
        client.call("c_echo")
        yield ask(control, "files")


def dev_saves() -> Iterator[list[str]]:
    """Trace a gateway in dev mode from before a migration is saved until it is applied."""
    quiet = {"LMG_DEV__RELOAD": "false"}
    with traced_place() as (place, control), place.serve("--dev", env=quiet) as gateway:
        gateway.wait_for("dev.watching")
        gateway.wait_ready()
        first = len(place.folder.journal())
        for number in range(first, first + TRIPS):
            tag = f"{number:04d}_saved"
            ask(control, "begin")
            sql = f"CREATE TABLE saved_{number} (id INTEGER PRIMARY KEY, body TEXT);\n"
            place.folder.write(tag, sql)
            gateway.wait_for("migration.hot_applied", where=partial(is_of, tag))
            yield ask(control, "files")
        gateway.stop()


def is_of(tag: str, event: dict[str, object]) -> bool:
    return event["tag"] == tag


@contextmanager
def traced_place() -> Iterator[tuple[Place, str]]:
    """Make a place whose command is traced."""
    with tempfile.TemporaryDirectory() as name:
        root, control = Path(name), f"{name}/control"
        shutil.copytree(REPOSITORY / "migrations", root / "migrations")
        yield new_place(root, (*TRACED, control, NAME)), control


# --- the source ---------------------------------------------------------------------------------


class When(Enum):
    """When an import is made."""

    LOADED = "as the module is loaded"
    CALLED = "as a function is called"
    CHECKED = "never: a type checker reads it"


@dataclass(frozen=True, slots=True)
class Imported:
    """One name that a module imports from another of the package, where it is defined."""

    by: str
    module: str
    name: str
    when: When


class Source:
    """The modules of the package, as they are written."""

    def __init__(self, package: Path) -> None:
        self.name = package.name
        self.paths = dict(modules(package))
        self.trees = {name: ast.parse(path.read_text()) for name, path in self.paths.items()}
        self.statements = {name: list(statements(tree)) for name, tree in self.trees.items()}
        self.imported = [one for name in self.trees for one in self._imported(name)]
        self.importers: defaultdict[str, set[str]] = defaultdict(set)
        """Module → those that need it at run time; not the `__init__` that hands on its names."""
        self.commands = {one for name in self.trees for one in self._commands(name)}
        """Modules that the command line loads by name: an entry, whoever else imports them."""
        self._loaded: defaultdict[str, set[str]] = defaultdict(set)
        for one in self.imported:
            if one.when is When.LOADED:
                self._loaded[one.by].add(one.module)
            if one.when is not When.CHECKED and not self.is_package(one.by):
                self.importers[one.module] |= {one.by} - {one.module}

    def _imported(self, by: str) -> Iterator[Imported]:
        for statement, when in self.statements[by]:
            if isinstance(statement, ast.Import):
                found = [(alias.name, "") for alias in statement.names]
            else:
                assert not statement.level, f"{by} imports relatively"
                found = [self._defined(statement.module or "", a.name) for a in statement.names]
            yield from (Imported(by, *one, when) for one in found if one[0] in self.paths)

    def _commands(self, by: str) -> Iterator[str]:
        for node in ast.walk(self.trees[by]):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Target":
                for one in node.args[:1]:
                    if isinstance(one, ast.Constant) and isinstance(one.value, str):
                        yield f"{by.rpartition('.')[0]}.{one.value.partition(':')[0]}"

    def _defined(self, module: str, name: str) -> tuple[str, str]:
        """Return where a name comes from: a package's `__init__` hands on what its modules define."""
        if self.is_package(module):
            for statement, _ in self.statements[module]:
                if isinstance(statement, ast.ImportFrom):
                    for alias in statement.names:
                        if name == (alias.asname or alias.name):
                            return self._defined(statement.module or "", alias.name)
        submodule = f"{module}.{name}"
        return (submodule, "") if submodule in self.paths else (module, name)

    def fences_off(self, module: str) -> set[str]:
        """Return the libraries that a module keeps away from its only importer until it is used.

        Its importer imports it inside a function, and with it would come a library of others.
        """
        (importer,) = self.importers[module]
        if module in self._loaded[importer]:
            return set()
        return self._libraries(module) - self._libraries(importer)

    def fits_into_importer(self, module: str) -> bool:
        """Return whether a module and its only importer together stay below the limit of a module."""
        (importer,) = self.importers[module]
        together = (self.paths[name].read_text() for name in (module, importer))
        return sum(text.count("\n") for text in together) <= MOST_LINES

    def _libraries(self, module: str) -> set[str]:
        """Return the libraries of others that come with a module as it is loaded."""
        reached, todo, found = {module}, [module], set()
        while todo:
            by = todo.pop()
            todo += self._loaded[by] - reached
            reached |= self._loaded[by]
            for statement, when in self.statements[by]:
                if when is When.LOADED:
                    names = [alias.name for alias in statement.names]
                    if isinstance(statement, ast.ImportFrom):
                        names = [statement.module or ""]
                    found |= {name.partition(".")[0] for name in names}
        return found - sys.stdlib_module_names - {self.name}

    def is_package(self, module: str) -> bool:
        return module in self.paths and self.paths[module].name == "__init__.py"

    def lines(self, part: str = "") -> int:
        return sum(len(self.paths[name].read_text().splitlines()) for name in self.within(part))

    def lines_of_imports(self, part: str = "") -> int:
        return sum(
            (statement.end_lineno or statement.lineno) - statement.lineno + 1
            for name in self.within(part)
            for statement, _ in self.statements[name]
        )

    def within(self, part: str) -> list[str]:
        prefix = f"{self.name}.{part}".rstrip(".")
        return [name for name in self.paths if name == prefix or name.startswith(f"{prefix}.")]


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), path


def statements(
    tree: ast.AST, *, when: When = When.LOADED
) -> Iterator[tuple[ast.Import | ast.ImportFrom, When]]:
    """Yield the imports of a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, when
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from statements(ast.Module(node.body, []), when=When.CHECKED)
            yield from statements(ast.Module(node.orelse, []), when=when)
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from statements(node, when=When.CALLED if function else when)


def of_source(package: Path) -> Iterator[Row]:
    source = Source(package)
    single = [
        name
        for name in source.paths
        if len(source.importers[name]) == 1 and name not in source.commands
    ]
    fences = [name for name in single if source.fences_off(name)]
    alone = set(single) - set(fences)
    roomy = [name for name in alone if source.fits_into_importer(name)]
    note = (
        f"of {len(source.paths)}; {len(roomy)} would fit into theirs;"
        f" not {len(fences)} more that keep a library out of a start"
    )
    counted = len(alone)
    yield Row("modules with exactly one importer", counted, "", at_most=24, note=note)

    guard, migrate = f"{source.name}.guard", f"{source.name}.migrate"
    across = [i for i in source.imported if is_in(i.by, guard) and is_in(i.module, migrate)]
    note = f"of {len({one.module for one in across})} modules, types counted"
    names = len({(one.module, one.name) for one in across})
    yield Row("names that guard imports from migrate", names, "", at_most=12, note=note)

    share = {
        part: 100 * source.lines_of_imports(part) / source.lines(part) for part in ("", "guard")
    }
    note = f"guard {share['guard']:.1f} %; types counted"
    yield Row("lines that are imports", share[""], "%", at_most=6, note=note)
    yield Row("lines of the package", source.lines(), "", at_most=32_000)


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make house", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--static", action="store_true", help="leave the traced runs out")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--files", action="store_true", help="show the files of each trip too")
    given = parser.parse_args()
    taken = [] if given.static else list(trips())
    rows = [row for one in taken for row in one.rows()] + list(of_source(Path(PACKAGE)))
    print(json.dumps([asdict(row) for row in rows], indent=2) if given.json else render(rows))
    if given.files:
        print("", *(one.listing() for one in taken), sep="\n")


if __name__ == "__main__":
    main()
