"""Running drizzle's own code on a folder and a database."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_TWIN = "better-sqlite3@npm:libsql@0.5.29"
"""libsql's twin of better-sqlite3: the same interface for drizzle's driver, and comes compiled."""
ZERO = ("drizzle-orm@0.45.4", "drizzle-kit@0.31.11", "@libsql/client@0.18.0", _TWIN)
ONE = ("drizzle-orm@1.0.0-rc.5", "drizzle-kit@1.0.0-rc.5", "@libsql/client@0.18.0", _TWIN)

_LIBSQL = """
import { createClient } from '@libsql/client';
import { drizzle } from 'drizzle-orm/libsql';
import { migrate } from 'drizzle-orm/libsql/migrator';
const client = createClient({ url: 'file:' + process.argv[2] });
await migrate(drizzle({ client }), { migrationsFolder: process.argv[3] });
client.close();
"""
_BETTER_SQLITE3 = """
import Database from 'better-sqlite3';
import { drizzle } from 'drizzle-orm/better-sqlite3';
import { migrate } from 'drizzle-orm/better-sqlite3/migrator';
const client = new Database(process.argv[2]);
migrate(drizzle({ client }), { migrationsFolder: process.argv[3] });
client.close();
"""
DRIVERS = {"libsql": _LIBSQL, "better-sqlite3": _BETTER_SQLITE3}
"""drizzle-orm's two drivers for a local file; each has a migrator of its own."""
_CLOCK = """
const Real = Date, later = 1000 * process.env.LATER_S;
globalThis.Date = class Date extends Real {
  constructor(...given) { super(...(given.length ? given : [Date.now()])); }
  static now() { return Real.now() + later; }
};
"""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """A folder with drizzle in its node_modules."""

    folder: Path
    driver: str = "libsql"

    def migrate(self, database: Path, migrations: Path) -> None:
        """Run drizzle-orm's `migrate()`; raises with what it printed."""
        script = self.folder / f"migrate-{self.driver}.mjs"
        script.write_text(DRIVERS[self.driver])
        self._run("node", str(script), str(database), str(migrations))

    def kit_migrate(self, database: Path, migrations: Path) -> None:
        """Run `drizzle-kit migrate`, as a person does; raises with what it printed."""
        config = self.folder / "migrate.config.mjs"
        facts = {"dialect": "sqlite", "out": os.path.relpath(migrations, self.folder)}
        credentials = {"url": f"file:{database}"}
        config.write_text(
            f"export default {json.dumps({**facts, 'dbCredentials': credentials})};\n"
        )
        kit = self.folder / "node_modules" / ".bin" / "drizzle-kit"
        self._run(str(kit), "migrate", f"--config={config.name}")

    def generate(self, migrations: Path, schema: str, *options: str, later_s: int = 0) -> str:
        """Run `drizzle-kit generate` on a schema in TypeScript, given as the body of its module.

        It takes the time to be `later_s` later than it is, since it names two migrations of one second alike.
        """
        module = self.folder / "generate.schema.ts"
        module.write_text(
            'import { desc, sql } from "drizzle-orm";\n'
            "import { check, foreignKey, index, int, primaryKey, real, sqliteTable, sqliteView, text, unique,"
            ' uniqueIndex } from "drizzle-orm/sqlite-core";\n'
            f"{schema}\n"
        )
        clock = self.folder / "clock.cjs"
        clock.write_text(_CLOCK)
        kit = self.folder / "node_modules" / ".bin" / "drizzle-kit"
        return self._run(
            str(kit),
            "generate",
            "--dialect=sqlite",
            f"--schema={module.name}",
            f"--out={os.path.relpath(migrations, self.folder)}",
            *options,
            NODE_OPTIONS=f"--require={clock}",
            LATER_S=str(later_s),
        )

    def check(self, migrations: Path) -> str:
        """Run `drizzle-kit check` on a folder and return what it said; raises if it found something."""
        return self._on_folder("check", migrations)

    def up(self, migrations: Path) -> str:
        """Run `drizzle-kit up`, which brings a folder into the form of this version."""
        return self._on_folder("up", migrations)

    def _on_folder(self, command: str, migrations: Path) -> str:
        kit = self.folder / "node_modules" / ".bin" / "drizzle-kit"
        out = os.path.relpath(migrations, self.folder)
        return self._run(str(kit), command, "--dialect=sqlite", f"--out={out}")

    def _run(self, *command: str, **env: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "NO_COLOR": "1", **env},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr
