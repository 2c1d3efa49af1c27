"""The peers, ready to run."""

from __future__ import annotations

import pytest

from tests.drizzle.toolbox import ONE, ZERO
from tests.fetched import debian, npm, pip
from tests.peers.adapters import Tools, put_scripts

NODE = ("dbmate@2.36.0", "knex@3.3.0", "better-sqlite3@npm:libsql@0.5.29")
"""libsql has better-sqlite3's interface, and comes compiled."""
PYTHON = ("alembic==1.20.1", "yoyo-migrations==9.0.0", "Django==5.2.19")


@pytest.fixture(scope="session")
def tools(pytestconfig: pytest.Config) -> Tools:
    """Fetch what is not there yet; skips (in CI: fails) where that is not possible."""
    found = Tools(
        zero=npm(pytestconfig, "drizzle-0", ZERO),
        one=npm(pytestconfig, "drizzle-1", ONE),
        node=npm(pytestconfig, "peers-node", NODE),
        python=pip(pytestconfig, "peers-python", PYTHON),
        debian=debian(pytestconfig, "peers-debian", "sql-migrate"),
    )
    put_scripts(found)
    return found
