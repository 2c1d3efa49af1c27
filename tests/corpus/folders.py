"""The real migration folders: where they come from, what is in them, and what has to come of them.

Versions and hashes are fixed, so a clone needs nothing but the ordinary clients (npm, pip).
What is fetched is kept in pytest's cache and never committed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_DRIZZLE = r"^([^/]+\.sql|meta/[^/]+\.json)$"


@dataclass(frozen=True, slots=True)
class RealFolder:
    """One folder inside a package, and its fate."""

    name: str
    client: str
    package: str
    version: str
    prefix: str
    """Inside the archive."""
    wanted: str
    tree: str
    """sha256 over the names and hashes of its files."""
    schema: str | None = None
    """sha256 of the final schema's texts; None: has to be refused."""
    ledger: str | None = None
    """sha256 of the ledger's rows as drizzle-orm writes them."""
    refusal: str | None = None
    """The problem or error code of the refusal."""
    left_out: tuple[str, ...] = field(default=())
    """Files that need a table which another part of their application creates; nobody can run them."""
    misfits: tuple[str, ...] = field(default=())
    """Migrations that our made-up rows do not fit: a new NOT NULL or UNIQUE, JSON that is none."""
    accepts: tuple[tuple[str, str], ...] = field(default=())
    """(migration, line) of what it would have to accept, alone and on rows in every column."""
    loses: tuple[tuple[str, str], ...] = field(default=())
    """(migration, table) where rows are deleted or left out on purpose."""


FOLDERS = (
    RealFolder(
        "promptfoo",
        "npm",
        "promptfoo",
        "0.123.1",
        "package/dist/drizzle/",
        _DRIZZLE,
        "04b3c73619b8568865b3dbe2c6ec7f221e4c7612056c278444fe7b38ee2454cb",
        schema="8a74cafb49e9be43092c1107f53d7f4c1176c749a101b54535aa2baf7f219c3e",
        ledger="2ba19ba079ec3ff51983091c3e5d3944875b5763cace20968b92a0abd6719e39",
        misfits=("0013_previous_dormammu",),
        accepts=(
            ("0009_strong_marten_broadcloak", "accept drops_constraints eval_results"),
            ("0009_strong_marten_broadcloak", "accept drops_index eval_result_eval_id_idx"),
        ),
    ),
    RealFolder(
        "inkeep-agents-core",
        "npm",
        "@inkeep/agents-core",
        "0.22.12",
        "package/drizzle/",
        _DRIZZLE,
        "699586dc361244770b5b627c64a4a6a3ec0ce8a686f885c154f06d6b1c01e150",
        schema="c6bf3e0b705012f2ed71d9aec9f72968432a1424a6f6e70f9cfddadd1c0666c0",
        ledger="49f58f27b54bd98d1292a9e798fbc3ca859e1130e70b92c87df0eba5919e42a8",
        accepts=(("0001_eminent_fixer", "accept loses_rows context_configs"),),
        loses=(("0001_eminent_fixer", "context_configs"),),
    ),
    RealFolder(
        "alchemy",
        "npm",
        "alchemy",
        "0.94.0",
        "package/drizzle/default/",
        _DRIZZLE,
        "25e5508308d96b5e7692fe042e352f28740b296430e9756bae2915bf98eeb028",
        schema="6d3b34a418a5289bc758cf33dfdd038f6a1d0e33db6c7cc0abdbc65d58550dfa",
        ledger="16000b96e15316c6b8f17dc72336cb9dcb5aa176e62f4e353b447bc42aed2405",
    ),
    RealFolder(
        "astrotask-migrations-drizzle-sqlite",
        "npm",
        "@astrotask/core",
        "0.4.0",
        "package/migrations/drizzle-sqlite/",
        _DRIZZLE,
        "0ea2828ac7df02cbe69a8c6ce94a39eb450edb76fca5246fb7d1f07231eaf4a4",
        schema="a200ccb814852d5527b6d8536687664835c4d7d77e7ec18dbdccb9e7436247b8",
        ledger="ac3f788d740bdf6725094cd4749c4409ca627be0248c3fe7f491079105c62b39",
    ),
    RealFolder(
        "astrotask-migrations-drizzle",
        "npm",
        "@astrotask/core",
        "0.4.0",
        "package/migrations/drizzle/",
        _DRIZZLE,
        "d5abaf9fcf61b916ad5e16b8231a2b8fb9eb9bd05c87ed8a9d8cf30c128ccfc2",
        refusal="dialect",
    ),
    RealFolder(
        "astrotask-dist-migrations-drizzle",
        "npm",
        "@astrotask/core",
        "0.4.0",
        "package/dist/migrations/drizzle/",
        _DRIZZLE,
        "3ac1121ea884843970a140bb1e9512f7ca8faf4a7c0aa7aa320d6187784504ee",
        refusal="dialect",
    ),
    RealFolder(
        "astrotask-dist-database",
        "npm",
        "@astrotask/core",
        "0.4.0",
        "package/dist/database/migrations/",
        _DRIZZLE,
        "ea321251db24e8784062c24d7c97744a1b86e40343ed3e57cd818802788a3cf0",
        refusal="dialect",
    ),
    RealFolder(
        "astrotask-dist-drizzle",
        "npm",
        "@astrotask/core",
        "0.4.0",
        "package/dist/drizzle/",
        _DRIZZLE,
        "edbf373cbcbc17f9aecf6344e29774386b421b6f6b809324982ab53b7c41afe8",
        refusal="dialect",
    ),
    RealFolder(
        "actual-api",
        "npm",
        "@actual-app/api",
        "26.9.0",
        "package/dist/migrations/",
        r"\.sql$",
        "ee1c1aa2efbb82435faaca17c1f8954f0012c3ee97602bf784789e13f2a2b7b7",
        schema="0a9b4f13861c7b785caa38780914670be943824ffd1dc99e17e2e12902510979",
        loses=(("1567699552727_budget", "spreadsheet_cells"),),
        left_out=(
            "1694438752000_add_goal_targets",
            "1720665000000_goal_context",
            "1730744182000_fix_dashboard_table",
            "1745425408000_update_budgetType_pref",
            "1762178745667_rename_csv_skip_lines_pref",
        ),
    ),
    RealFolder(
        "sonicjs-core",
        "npm",
        "@sonicjs-cms/core",
        "2.11.0",
        "package/migrations/",
        r"\.sql$",
        "da6c3b3cccfad5e4950d005acf59ba90a9a3fc88ccffc37b74092f6ded3aafc3",
        schema="0a16841840f1417d3f82f1be112aaa6c7408e1606e22b576162e5a5f15c31054",
        misfits=("019_remove_blog_posts_collection",),
    ),
    RealFolder(
        "ai-devkit-memory",
        "npm",
        "@ai-devkit/memory",
        "0.20.1",
        "package/dist/database/migrations/",
        r"\.sql$",
        "23c0972bd00ce029bc207e272a4e2e174537ff5267f8aa089bf95ded87f886e0",
        schema="03f5a39b2805dc146286875941b66fc5c5d9bd4ce38a9c8809c28ea91bfc7a84",
    ),
    RealFolder(
        "chromadb-sysdb",
        "pip",
        "chromadb",
        "1.5.9",
        "chromadb/migrations/sysdb/",
        r"\.sqlite\.sql$",
        "220bf007d5b1e69b680e48c156c0d9b11b87dd13ac605c94b2ad2ce4659fdfbe",
        schema="97c3bf3ef07c75e70a4fe94c59b98d2e0a44bdb5790564166b2c516a800f5f7c",
        misfits=("00009-segment-collection-not-null.sqlite",),
        accepts=(("00002-segments.sqlite", "accept cannot_run segments"),),
    ),
    RealFolder(
        "chromadb-metadb",
        "pip",
        "chromadb",
        "1.5.9",
        "chromadb/migrations/metadb/",
        r"\.sqlite\.sql$",
        "516a791e422eba41d0cc9b210b912884d11e6374646972b29c0b2bb9efeb8928",
        schema="0f0f7dbcdad01faea5c1334d568cc0158392ddef1457131b04e8d8a9e5ae9cad",
    ),
    RealFolder(
        "chromadb-embeddings_queue",
        "pip",
        "chromadb",
        "1.5.9",
        "chromadb/migrations/embeddings_queue/",
        r"\.sqlite\.sql$",
        "26d65d9876104fe987634d3480229bca8207954e0b898bf74f6b100b8c4c1be6",
        schema="35b8457e67ba5abf58a1214f59afeae05e4841a828e3d69630e43048a171b867",
    ),
    RealFolder(
        "synapse-main",
        "pip",
        "matrix-synapse",
        "1.163.2",
        "synapse/storage/schema/main/",
        r"\.sql(\.sqlite)?$",
        "a6adab4a7e8c528d5b1d351e9068ef5fe68f649f6b6aebe7fe29c0f8541b3a52",
        schema="084c825d08e110e2c18a395b0e96adce5a72374d7087c456b9e2ebdbe1a1515a",
        loses=(
            ("73_05old_push_actions", "event_push_actions_staging"),
            ("77_05thread_notifications_backfill", "background_updates"),
        ),
        accepts=tuple(
            ("73_08thread_receipts_non_null", f"accept {what}")
            for what in (
                "changes_values receipts_linearized.thread_id",
                "changes_values receipts_linearized.event_stream_ordering",
                "changes_values receipts_graph.thread_id",
                "drops_index receipts_graph_unique_index",
                "drops_index receipts_linearized_unique_index",
            )
        )
        + (
            (
                "77_06thread_notifications_not_null",
                "accept drops_index event_push_actions_stream_highlight_index",
            ),
        ),
    ),
    RealFolder(
        "synapse-common",
        "pip",
        "matrix-synapse",
        "1.163.2",
        "synapse/storage/schema/common/",
        r"\.sql(\.sqlite)?$",
        "cc970e0b1bc03892b13f27ed0288bb37fe36b50ef99e43cc23e5fffc4e3007e9",
        schema="799bc3d06fe7557c7516d431a357b0474aa99f0e38fcdf2a8ec183145f0bb853",
    ),
    RealFolder(
        "synapse-state",
        "pip",
        "matrix-synapse",
        "1.163.2",
        "synapse/storage/schema/state/",
        r"\.sql(\.sqlite)?$",
        "bb4bc83f4dd98f414afef597f82483183560cc3f31a88120591b223ce5922b0f",
        schema="22e4004b767e43ce6286c5261717d0dc60ef7546f1ec73d1ea12e4267481c56e",
        left_out=(
            "90_02_delete_unreferenced_state_groups",
            "90_03_remove_old_deletion_bg_update",
        ),
    ),
)

COUNTED = f"real migration folders ({len(FOLDERS)} in all)"
"""The line under a test run that says how many of them were seen."""


class NotFetched(Exception):
    """A package could not be fetched, or is not what its hash says."""


def fetch(folder: RealFolder, cache: Path) -> Path:
    """Return the folder as its package has it, fetched once; raises NotFetched.

    Test processes that run at the same time share the cache: one fetches, the others wait.
    """
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _fetch(folder, cache)


def _fetch(folder: RealFolder, cache: Path) -> Path:
    place = cache / folder.name
    if place.is_dir() and tree_hash(place) == folder.tree:
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name, data in _members(_archive(folder, cache)):
        inner = name.removeprefix(folder.prefix)
        if name.startswith(folder.prefix) and re.search(folder.wanted, inner):
            target = place / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        elif folder.name == "actual-api" and name == "package/dist/default-db.sqlite":
            (place / "_base.sqlite").write_bytes(data)
    found = tree_hash(place)
    if found != folder.tree:
        raise NotFetched(f"{folder.name}: its files' hash is {found}, expected {folder.tree}")
    return place


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for root, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            if not name.startswith("_") or name == "_journal.json":
                path = Path(root) / name
                inner = os.path.relpath(path, folder).encode()
                digest.update(inner + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def as_migrations(folder: RealFolder, fetched: Path, target: Path, *, whole: bool = False) -> Path:
    """Copy it into a folder that `db adopt --format plain` takes, in its application's own order.

    `whole` keeps the files that nobody can run without the rest of their application.
    """
    left_out = () if whole else folder.left_out
    if (fetched / "meta").exists():
        return shutil.copytree(fetched, target)
    target.mkdir()
    if (fetched / "full_schemas").exists():
        for tag, source in _synapse(folder, fetched):
            if tag not in left_out:
                text = source.read_bytes().replace(
                    b"$%AUTO_INCREMENT_PRIMARY_KEY%$", b"INTEGER PRIMARY KEY AUTOINCREMENT"
                )  # as the application does before it runs the file
                (target / f"{tag}.sql").write_bytes(text)
    else:
        for source in fetched.glob("*.sql"):
            if source.stem not in left_out:
                shutil.copy(source, target)
    return target


def _synapse(folder: RealFolder, fetched: Path) -> Iterator[tuple[str, Path]]:
    """Yield (tag, file): the full schema of version 72, then the deltas of every later version."""
    full = sorted((fetched / "full_schemas").glob("72/*"))
    if folder.name == "synapse-main":  # main's steps also write to the tables that all parts share
        full = [*sorted((fetched.parent / "synapse-common" / "full_schemas").glob("*/*")), *full]
    for number, source in enumerate(full):
        yield f"0_{number}_{source.name.partition('.')[0]}", source
    deltas = fetched / "delta"
    versions = [v for v in deltas.iterdir() if int(v.name) > 72] if deltas.exists() else []
    for version in sorted(versions, key=lambda v: int(v.name)):
        for source in sorted(version.iterdir()):
            yield (
                f"{version.name}_{source.name.removesuffix('.sqlite').removesuffix('.sql')}",
                source,
            )


def schema_hash(database: Path) -> str:
    """Hash the texts of the schema, white space folded, ours and Drizzle's tables left out."""
    connection = sqlite3.connect(database)
    rows = [
        (kind, name, re.sub(r"\s+", " ", sql).strip())
        for kind, name, sql in connection.execute(
            "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
            " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
            " AND name NOT IN ('__drizzle_migrations', '__guard_history')"
        )
    ]
    connection.close()
    rows.sort(key=lambda row: tuple(part.encode() for part in row))
    return hashlib.sha256("\n".join(sql for _, _, sql in rows).encode()).hexdigest()


def ledger_hash(database: Path) -> str:
    """Hash the ledger's rows in the order in which they were written."""
    connection = sqlite3.connect(database)
    rows = connection.execute(
        "SELECT hash, created_at FROM __drizzle_migrations ORDER BY rowid"
    ).fetchall()
    connection.close()
    return hashlib.sha256(
        "\n".join(f"{digest}|{when}" for digest, when in rows).encode()
    ).hexdigest()


def _archive(folder: RealFolder, cache: Path) -> Path:
    place = cache / "archives" / f"{re.sub(r'[^A-Za-z0-9.]', '_', folder.package)}-{folder.version}"
    place.mkdir(parents=True, exist_ok=True)
    if not any(place.iterdir()):
        command = (
            ["npm", "pack", "--silent", f"{folder.package}@{folder.version}"]
            if folder.client == "npm"
            else [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--only-binary",
                ":all:",
                "-d",
                ".",
                f"{folder.package}=={folder.version}",
            ]
        )
        try:
            subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotFetched(f"{folder.package} {folder.version}: {error}") from error
    return next(file for file in place.iterdir())


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if not name.endswith("/"):
                    yield name, wheel.read(name)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, file.read()


def fetched_base(fetched: Path, database: Path) -> None:
    """Start from the database that the application ships, where it ships one."""
    base = fetched / "_base.sqlite"
    if base.exists():
        shutil.copy(base, database)
