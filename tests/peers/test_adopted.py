"""Databases that other tools have really migrated, to each of their states, are adopted where they stand."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import Place
from tests.migrate.test_foreign_ledgers import TOOLS as LEDGERS
from tests.peers.foreign import FAILING, STEPS, TOOLS, Tool

pytestmark = pytest.mark.peers

AUTO = ("--format", "auto")
SAMPLE = 3
"""The state whose last migration changes no schema: nightly runs every other too, and all of D1's."""
STATES = [
    pytest.param(name, count, marks=() if count == SAMPLE and name != "D1" else pytest.mark.nightly)
    for name in TOOLS
    for count in range(len(STEPS) + 1)
]


@dataclass(frozen=True)
class ForeignPlace(Place):
    """A place whose database another tool has made."""

    tool: Tool | None = None

    @property
    def database(self) -> Path:
        return self.tool.database if self.tool else self.root / "app.db"

    @property
    def migrations(self) -> Path:
        return self.root / "ours"

    @property
    def options(self) -> tuple[str, ...]:
        return ("--database", str(self.database), "--migrations", str(self.migrations))

    def adopted(self, *options: str) -> int:
        """Adopt, and return how many migrations that marked as applied."""
        done = self.run("db", "adopt", *options, "--yes", "--json")
        assert done.code == 0, done.stdout
        return len(done.json()["adopted"])

    def pending(self) -> int:
        return len(self.run("db", "status", "--json").json()["pending"])

    def assert_clean(self) -> None:
        """Every command that compares folder, ledger and schema finds nothing to say."""
        (self.root / "schema.sql").write_text("".join(sql for sql in STEPS if "TABLE" in sql))
        pending = 3 if self.pending() else 0
        for code, command in (
            (pending, ("db", "check")),
            (pending, ("db", "diff")),
            (0, ("db", "generate", "--check", "--schema", "schema.sql")),
        ):
            done = self.run(*command)
            assert done.code == code, done.stdout + done.stderr


def place_of(place: Place, config: pytest.Config, name: str) -> ForeignPlace:
    return ForeignPlace(place.root, tool=TOOLS[name](config, place.root))


@pytest.mark.parametrize(("name", "count"), STATES)
def test_a_database_is_adopted_where_its_tool_has_left_it_and_either_goes_on(
    place: Place, pytestconfig: pytest.Config, name: str, count: int
) -> None:
    ours = place_of(place, pytestconfig, name)
    tool = ours.tool
    assert tool
    tool.lay_out(STEPS[:count])
    tool.up()
    tool.write(ours.migrations, STEPS)
    assert ours.adopted(*AUTO) == count
    assert ours.pending() == len(STEPS) - count
    if count:
        ours.assert_clean()
    tool.lay_out(STEPS)
    assert tool.applied() == count
    assert tool.up()
    assert tool.applied() == len(STEPS)
    if count < len(STEPS):
        refused = ours.run("db", "migrate")  # without a record of ours it fails at the first table
        assert refused.code == (8 if count else 5)
        assert ("has been applied" if count else "take it over with `db adopt`") in refused.stderr
        assert ours.adopted() == len(STEPS) - count
    assert ours.run("db", "migrate").code == 0
    assert ours.query("SELECT x FROM a") == [(2,)]
    ours.assert_clean()
    assert tool.applied() == len(STEPS)


@pytest.mark.nightly
@pytest.mark.parametrize("name", TOOLS)
def test_what_a_tool_failed_to_apply_is_never_marked_as_applied(
    place: Place, pytestconfig: pytest.Config, name: str
) -> None:
    ours = place_of(place, pytestconfig, name)
    tool = ours.tool
    assert tool
    tool.lay_out(STEPS[:2])
    assert tool.up()
    tool.lay_out((*STEPS[:2], FAILING))
    assert not tool.up()
    tool.write(ours.migrations, (*STEPS[:2], FAILING))
    done = ours.run("db", "adopt", *AUTO, "--yes", "--json")
    (left,) = ours.query("SELECT count(*) FROM sqlite_schema WHERE name = 'late'")[0]
    if left:  # half of it is there: Prisma records that, Alembic and Knex do not
        assert done.code == 8, done.stdout
        assert ours.run("db", "status", "--json").json()["applied"] == []
    else:
        assert done.code == 0, done.stdout
        assert len(done.json()["adopted"]) == 2


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(LEDGERS.keys() - TOOLS.keys()))
def test_a_database_with_the_ledger_of_a_tool_that_is_not_to_be_had_is_adopted(
    place: Place, name: str
) -> None:
    for count in (1, SAMPLE, len(STEPS)):
        (place.root / str(count)).mkdir()
        ours = ForeignPlace(place.root / str(count))
        for number, sql in enumerate(STEPS):
            for file, text in LEDGERS[name].files(number, sql + "\n").items():
                (ours.migrations / file).parent.mkdir(parents=True, exist_ok=True)
                (ours.migrations / file).write_text(text)
        with closing(sqlite3.connect(ours.database)) as theirs:
            theirs.executescript(
                LEDGERS[name].table + "".join(STEPS[:count]) + LEDGERS[name].record(count)
            )
        assert ours.adopted(*AUTO) == count
        ours.assert_clean()
        assert ours.run("db", "migrate").code == 0
        ours.assert_clean()
        assert ours.query("SELECT x FROM a") == [(2,)]
