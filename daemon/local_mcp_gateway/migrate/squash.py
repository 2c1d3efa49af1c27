"""Replace the first migrations of a folder by one (`db squash`).

It has the tag, number and time of the last of them: a database that has them applies
nothing, by our ledger or by Drizzle's, and a new one applies just it. It makes the same schema and rows:

    written   the objects as SQLite has them at the end, and their rows as INSERTs
    carried   every statement as it was, where that alone makes the same: rows that depend on the moment
              or on chance, or are those of a virtual table

Before anything is written, both are replayed and compared with the old ones, in two surroundings (`outcome`). The old
migrations go on in `meta/_squashed`, for databases that have some of them (`squashed`).

The new folder is built next to the old one and exchanged with it in one step, so a kill at any point leaves
the old folder or the new one, and perhaps the other next to it under a hidden name.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.database import flush
from local_mcp_gateway.errors import (
    HistoryRefused,
    MigrationFailed,
    MigrationsFolderProblem,
    UsageProblem,
    VerificationFailed,
)
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.migrate.branches import find_collisions, ids_before
from local_mcp_gateway.migrate.folder import SQUASHED, Folder, Migration, read_folder
from local_mcp_gateway.migrate.folder_edits import (
    read_snapshot_file,
    snapshot_bytes,
    snapshot_file,
    with_snapshots,
)
from local_mcp_gateway.migrate.generate import down_to_nothing, open_folder, squashed_snapshot
from local_mcp_gateway.migrate.outcome import SEEDS, Outcome, as_statements, outcome_of
from local_mcp_gateway.migrate.replay import extend, replay
from local_mcp_gateway.migrate.statements import BREAKPOINT
from local_mcp_gateway.schema import inspect
from local_mcp_gateway.sql import first_words

if TYPE_CHECKING:
    from local_mcp_gateway.schema import Prepare

_ABOUT_OBJECTS = ("cannot_run", "double_quoted_strings")
"""What a file may have to accept of the objects that it makes, however it makes them."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@dataclass(frozen=True, slots=True)
class Squash:
    """A squash that is not written yet, and has been replayed."""

    folder: Folder
    replaced: tuple[Migration, ...]
    sql: str
    down: str | None
    snapshot: dict[str, Any] | None
    statements: int
    carried: str | None
    """What cannot be written as it is at the end, so that every statement is carried; None: nothing."""

    @property
    def tag(self) -> str:
        """Return its tag, which is that of the last migration that it replaces."""
        return self.replaced[-1].tag

    @property
    def files(self) -> tuple[Path, ...]:
        """Return what is written, the kept migrations as one folder."""
        path, last = self.folder.path, self.replaced[-1]
        found = [last.path]
        if self.down is not None:
            found.append(_down_file(last))
        if self.snapshot is not None:
            found.append(snapshot_file(path, last.tag))
        if not self.folder.is_v1:
            found.append(path / "meta" / "_journal.json")
        return (*found, path / SQUASHED)


def draft_squash(
    path: Path, *, to: str | None = None, prepare: Prepare | None = None
) -> Squash | None:
    """Plan the squash of all migrations up to and with `to`, by default of all; None: it would be of one.

    Raises UsageProblem for a folder or a tag that it is not possible for, HistoryRefused for a broken
    folder, VerificationFailed if nothing else makes the same rows, and what applying a migration raises.
    """
    folder = _require_ours(path)
    tags = [migration.tag for migration in folder.migrations]
    if to is not None and to not in tags:
        raise UsageProblem(
            f"There is no migration `{to}` in {path}.", hint="`db status` lists the tags."
        )
    replaced = folder.migrations[: len(tags) if to is None else tags.index(to) + 1]
    if len(replaced) < 2:
        return None
    _require_possible(folder, replaced, prepare)
    statements, carried = _find_statements(replaced, prepare)
    with replay(replaced, prepare=prepare) as connection:
        schema = inspect(connection)
    return Squash(
        folder,
        replaced,
        _text(replaced, statements, carried=carried is not None),
        down_to_nothing(schema, prepare=prepare),
        squashed_snapshot(folder, replaced[-1].tag, schema, prepare=prepare),
        len(statements),
        carried,
    )


def _require_ours(path: Path) -> Folder:
    folder = read_folder(path)
    if folder.unjournaled and not folder.migrations:
        raise UsageProblem(
            f"{path} has no journal, so nothing says which of its files a database has applied.",
            hint="Make the folder ours first: `db adopt --format auto`.",
        )
    if (path / "migration_lock.toml").exists():
        raise UsageProblem(
            f"{path} is a folder of Prisma's, which looks for every migration that it has applied.",
            hint="Squash it with Prisma (`prisma migrate diff`), or leave it as it is.",
        )
    return open_folder(path)


def _require_possible(
    folder: Folder, replaced: Sequence[Migration], prepare: Prepare | None
) -> None:
    """Refuse what cannot be in one file, and branches that begin inside of what is squashed."""
    for migration in replaced:
        words = {first_words(text, 1)[0] for text in migration.texts}
        if migration.directives.no_transaction and words != {"VACUUM"}:
            raise UsageProblem(
                f"{migration.name} runs outside of a transaction, so it cannot be part of another.",
                hint="Squash up to the one before it with --to, if there is more than one.",
            )
    if not folder.is_v1:
        return
    if problems := find_collisions(folder, prepare=prepare):
        raise HistoryRefused(problems)
    last = replaced[-1].tag
    gone = {_id(folder, migration) for migration in replaced} - {_id(folder, replaced[-1]), ""}
    for migration in folder.migrations[len(replaced) :]:
        named = ids_before(read_snapshot_file(folder.path, migration.tag) or {})
        if gone.intersection(named):
            raise UsageProblem(
                f"{migration.tag} is of a branch that begins before {last}.",
                hint=f"Squash up to where the branches are merged: --to {folder.migrations[-1].tag}.",
            )


def _id(folder: Folder, migration: Migration) -> str:
    return str((read_snapshot_file(folder.path, migration.tag) or {}).get("id", ""))


def _find_statements(
    replaced: Sequence[Migration], prepare: Prepare | None
) -> tuple[list[str], str | None]:
    """Return statements that make the same, and why they are not the ones of the end, if so."""
    old = [outcome_of(replaced, seed=seed, prepare=prepare) for seed in SEEDS]
    written = as_statements(*old)
    differs = _difference(replaced, written, old, prepare)
    if differs is None:
        return written, None
    carried = _statements_of(replaced, prepare)
    left = _difference(replaced, carried, old, prepare)
    if left is not None:
        raise VerificationFailed(
            f"No one migration can make what the {len(replaced)} up to {replaced[-1].tag} make: {left}.",
            hint="Squash up to an earlier one with --to; nothing was written.",
        )
    return carried, differs


def _difference(
    replaced: Sequence[Migration],
    statements: Sequence[str],
    old: Sequence[Outcome],
    prepare: Prepare | None,
) -> str | None:
    """Return in words what one migration with these statements would not do; None: nothing."""
    squash = replaced[-1]._replace(sql=_script(statements))
    for seed, wanted in zip(SEEDS, old, strict=True):
        try:
            found = outcome_of([squash], seed=seed, prepare=prepare)
        except MigrationFailed as error:
            return error.message.rstrip(".")
        if differs := wanted.first_difference(found):
            return f"{differs} would differ"
    return None


def _statements_of(migrations: Iterable[Migration], prepare: Prepare | None) -> list[str]:
    """Return every statement, and after those of a file what the guard does at its end."""
    found: list[str] = []
    with replay((), prepare=prepare) as connection:
        for migration in migrations:
            if not migration.directives.no_transaction:
                step = extend(connection, migration)
                found += (one.text for one in migration.parsed.to_run)
                found += step.ending
    return found


def _script(statements: Iterable[str]) -> str:
    """Join statements as Drizzle does, which runs one at a time; a `;` may not end up in a comment."""
    ended = (text.rstrip().removesuffix(";") for text in statements)
    lines = (f"{text}\n;" if "--" in text.rpartition("\n")[2] else f"{text};" for text in ended)
    return f"\n{BREAKPOINT}\n".join(lines) + "\n"


def _text(replaced: Sequence[Migration], statements: Sequence[str], *, carried: bool) -> str:
    accepts = {one for migration in replaced for one in migration.directives.accept}
    lines = [
        f"-- guard: accept {one}"
        for one in sorted(accepts)
        if carried or one.split()[0] in _ABOUT_OBJECTS
    ]
    lines.append(
        f"-- Replaces {len(replaced)} migrations, {replaced[0].tag} to {replaced[-1].tag}, which are in"
        f" {SQUASHED}."
    )
    return "\n".join(lines) + "\n" + _script(statements)


# --- writing it -----------------------------------------------------------------------------------


def write_squash(squash: Squash) -> None:
    """Write it: build the new folder next to the old one, and exchange them.

    Raises MigrationsFolderProblem, with the old folder as it was.
    """
    real = squash.folder.path.resolve()
    staged = real.with_name(f".{real.name}.squash.tmp")
    try:
        shutil.rmtree(staged, ignore_errors=True)  # what a kill left
        shutil.copytree(real, staged, symlinks=True)
        _require_unchanged(squash, staged)
        _keep(squash, staged)
        _place(squash, staged)
        owner = real.stat()
        for path in (staged, *staged.rglob("*")):
            if os.geteuid() == 0:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
            if not path.is_symlink():
                flush(path)
        _exchange(staged, real)
        flush(real.parent)
    except OSError as error:
        elsewhere = "Squash a copy on another file system, and bring that back."
        hint = elsewhere if error.errno in _NO_EXCHANGE else "Try again."
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
        raise MigrationsFolderProblem(
            f"The squashed folder could not take the place of {real}: {reason}.",
            hint=f"{hint} The folder is as it was.",
            path=str(real),
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


_NO_EXCHANGE = frozenset({errno.EBUSY, errno.EINVAL, errno.ENOSYS, errno.EXDEV})
"""A mount point, and file systems that cannot exchange two folders."""


def _require_unchanged(squash: Squash, staged: Path) -> None:
    """Refuse to write what was made of other texts."""
    for migration in squash.folder.migrations:
        file = staged / migration.path.relative_to(squash.folder.path)
        if not file.exists() or sha256(file.read_bytes()).hexdigest() != migration.hash:
            raise UsageProblem(
                f"{migration.name} was changed while it was squashed.",
                hint="Run the command again; nothing was written.",
            )


def _keep(squash: Squash, staged: Path) -> None:
    """Move the old migrations to a folder of their own, with what was squashed before."""
    kept = staged / f"{SQUASHED}.new"
    (kept / "meta").mkdir(parents=True)
    if (staged / SQUASHED).exists():
        (staged / SQUASHED).rename(kept / SQUASHED)
    for source in _files_of(squash, staged):
        target = kept / source.relative_to(staged)
        if source.is_dir():  # copied, since a link would no longer lead to its target
            shutil.copytree(source, target)
            shutil.rmtree(source)
        else:
            shutil.copy2(source, target)
            source.unlink()
    if squash.folder.is_v1:
        if not any((kept / "meta").iterdir()):
            (kept / "meta").rmdir()
    else:
        journal = staged / "meta" / "_journal.json"
        content = parse_json(journal.read_bytes())
        tags = {migration.tag for migration in squash.replaced}
        for file, wanted in (
            (kept / "meta" / "_journal.json", tags),
            (journal, {entry["tag"] for entry in content["entries"]} - tags | {squash.tag}),
        ):
            entries = [entry for entry in content["entries"] if entry["tag"] in wanted]
            text = json.dumps({**content, "entries": entries}, indent=2, ensure_ascii=False)
            file.unlink(missing_ok=True)  # it may be a link
            file.write_bytes(text.encode())
    kept.rename(staged / SQUASHED)


def _files_of(squash: Squash, staged: Path) -> Iterator[Path]:
    """Yield the files of the old migrations, or in a folder of Drizzle 1.x their folders."""
    if squash.folder.is_v1:
        yield from (staged / migration.tag for migration in squash.replaced)
        return
    own = {migration.tag for migration in with_snapshots(squash.folder)}
    for migration in squash.replaced:
        yield staged / migration.path.name
        if migration.down is not None:
            yield staged / migration.down.name
        snapshot = snapshot_file(staged, migration.tag)
        if migration.tag in own and snapshot.exists():
            yield snapshot


def _place(squash: Squash, staged: Path) -> None:
    last, path = squash.replaced[-1], squash.folder.path
    if squash.folder.is_v1:
        (staged / last.tag).mkdir()
    (staged / last.path.relative_to(path)).write_bytes(squash.sql.encode())
    if squash.down is not None:
        (staged / _down_file(last).relative_to(path)).write_bytes(squash.down.encode())
    if squash.snapshot is not None:
        snapshot_file(staged, last.tag).write_bytes(snapshot_bytes(squash.snapshot))


def _down_file(migration: Migration) -> Path:
    return migration.path.with_name(Path(migration.down_name).name)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two folders in one step: no moment has neither, or both. Linux only."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
