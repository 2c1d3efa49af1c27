"""Where a run of the laboratory takes place: its folders, and its migrations."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class World:
    """A data folder, a migrations folder and an empty home."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def database(self) -> Path:
        return self.data / "gateway.db"

    @property
    def migrations(self) -> Path:
        return self.root / "migrations"

    @property
    def options(self) -> tuple[str, ...]:
        return (
            "--database", str(self.database), "--migrations", str(self.migrations),
            "--log-format", "json", "--log-level", "debug",
        )  # fmt: skip

    def copy_to(self, root: Path) -> World:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.root, root)
        return World(root)

    def add(self, name: str, sql: str, down: str | None = None) -> str:
        """Add a migration and its journal entry."""
        file = self.migrations / "meta" / "_journal.json"
        entries = json.loads(file.read_text())["entries"] if file.exists() else []
        tag = f"{len(entries):04d}_{name}"
        file.parent.mkdir(parents=True, exist_ok=True)
        (self.migrations / f"{tag}.sql").write_text(sql)
        if down:
            (self.migrations / f"{tag}.down.sql").write_text(down)
        entries.append(
            {"idx": len(entries), "version": "6", "when": 1_900_000_000_000 + len(entries),
             "tag": tag, "breakpoints": True}
        )  # fmt: skip
        file.write_text(json.dumps({"version": "7", "dialect": "sqlite", "entries": entries}))
        return tag
