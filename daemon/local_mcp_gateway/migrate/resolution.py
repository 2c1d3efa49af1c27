"""Match the folder's files with the ledger: find what is pending, or why nothing may run. Pure.

Pending is the set difference between the two, never "newer than the newest": a high-water mark silently
skips whatever was merged late. A ledger row belongs to a file when the hash and the time agree; else
when the hash alone does (the journal was rewritten); else when only line ends or a byte order mark
differ; else, by the time or the tag, it is the same migration with another text: edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import Problem, ProblemCode
from local_mcp_gateway.migrate.journal import places_of

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.migrate.ledger import Applied


class AppliedMigration(NamedTuple):
    """A migration of the folder that this database has applied. A tuple: thousands are made."""

    migration: Migration
    row: Applied

    @property
    def tag(self) -> str:
        """Return its tag, as the folder has it now."""
        return self.migration.tag

    @property
    def hash(self) -> str:
        """Return the hash that the ledger holds."""
        return self.row.hash

    @property
    def line_ends_differ(self) -> bool:
        """Return whether the file has other line ends, or another byte order mark, than was applied."""
        return self.row.hash != self.migration.hash

    @property
    def created_at(self) -> int:
        """Return the ledger's integer milliseconds."""
        return self.row.created_at

    @property
    def applied_at(self) -> str | None:
        """Return when it was applied here; None if another tool applied it."""
        return self.row.applied_at

    @property
    def duration_ms(self) -> float | None:
        """Return how long it took; None if another tool applied it."""
        return self.row.duration_ms


class Edited(NamedTuple):
    """An applied migration whose file has changed since."""

    migration: Migration
    row: Applied


class Resolution(NamedTuple):
    """How a folder and a ledger match. With problems, nothing may be applied."""

    applied: tuple[AppliedMigration, ...]
    """In the folder's order."""
    pending: tuple[Migration, ...]
    """In the folder's order, which is the order to apply them in."""
    problems: tuple[Problem, ...]
    edited: tuple[Edited, ...] = ()


def resolve(
    folder: Folder, applied: Sequence[Applied], *, allow_out_of_order: bool = False
) -> Resolution:
    """Match the folder's migrations with the ledger's rows, and report everything that does not match."""
    if _is_current(folder, applied):
        pairs = map(AppliedMigration._make, zip(folder.migrations, applied, strict=True))
        return Resolution(tuple(pairs), (), ())
    if unnamed := sum(not _is_text(row.hash) for row in applied):
        return Resolution((), (), (_without_hash(unnamed),))
    matched, edited, unmatched = match(folder, applied)
    done = tuple(AppliedMigration(m, matched[m.tag]) for m in folder.migrations if m.tag in matched)
    changed = {entry.migration.tag for entry in edited}
    pending = tuple(m for m in folder.migrations if m.tag not in matched and m.tag not in changed)
    problems = list(folder.problems)
    problems += [_edited(entry) for entry in edited]
    problems += _unknown_rows(folder, unmatched)
    problems += _repeated_numbers(folder, {m.tag for m in pending})
    if not allow_out_of_order:
        problems += _out_of_order(folder, pending, applied, matched)
    problems += [
        _unjournaled(str(path.relative_to(folder.path)), folder) for path in folder.unjournaled
    ]
    return Resolution(done, pending, tuple(problems), tuple(edited))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _without_hash(rows: int) -> Problem:
    """Report rows that no migration can be matched with: another program wrote them."""
    return Problem(
        ProblemCode.NO_HASH,
        f"__drizzle_migrations has {'a row' if rows == 1 else f'{rows} rows'} without a hash, so it does"
        " not say which migrations are applied.",
        "Restore a backup from before another program wrote that (`db backup list`, then"
        " `db restore NAME`); or back up with `db backup create`, then run in SQLite:"
        " DELETE FROM __drizzle_migrations WHERE typeof(hash) <> 'text'.",
    )


def _is_current(folder: Folder, applied: Sequence[Applied]) -> bool:
    """Return whether everything is applied, in this order, and nothing else: most starts end here."""
    if folder.problems or folder.unjournaled or len(applied) != len(folder.migrations):
        return False
    return all(
        m.hash == row.hash and m.when == row.created_at
        for m, row in zip(folder.migrations, applied, strict=True)
    )


def match(
    folder: Folder, applied: Sequence[Applied]
) -> tuple[dict[str, Applied], list[Edited], list[Applied]]:
    """Assign each ledger row its migration: by hash and time, hash, same text, then time or tag (edited)."""
    exact = {(m.hash, m.when): m.tag for m in folder.migrations}
    matched: dict[str, Applied] = {}
    rest: list[Applied] = []
    seen: set[tuple[str, int]] = set()
    for row in applied:
        key = row[:2]
        if key in seen:
            continue  # another tool applied it more than once by starting twice at the same time
        seen.add(key)
        tag = exact.get(key)
        if tag is None:
            rest.append(row)
        else:
            matched[tag] = row
    if not rest:
        return matched, [], []
    for hashes in (lambda m: (m.hash,), lambda m: m.hashes):
        left = [m for m in folder.migrations if m.tag not in matched]
        rest = _take(left, rest, matched, hashes)
    left = [m for m in left if m.tag not in matched]
    edited: list[Edited] = []
    unmatched: list[Applied] = []
    for row in rest:
        same = next((m for m in left if m.when == row.created_at or m.tag == row.tag), None)
        if same is None:
            unmatched.append(row)
        else:
            left.remove(same)
            edited.append(Edited(same, row))
    return matched, edited, unmatched


def _take(
    left: Sequence[Migration],
    rest: Sequence[Applied],
    matched: dict[str, Applied],
    hashes: Callable[[Migration], Iterable[str]],
) -> list[Applied]:
    """Match rows by these hashes, in order, at best with the time; return those without a match."""
    by_hash: dict[str, list[Migration]] = {}
    for migration in left:
        for digest in hashes(migration):
            by_hash.setdefault(digest, []).append(migration)
    nobody: list[Applied] = []
    for row in rest:
        candidates = [m for m in by_hash.get(row.hash, ()) if m.tag not in matched]
        if candidates:
            same_time = (m for m in candidates if m.when == row.created_at)
            matched[next(same_time, candidates[0]).tag] = row
        else:
            nobody.append(row)
    return nobody


def _unknown_rows(folder: Folder, rows: Iterable[Applied]) -> Iterable[Problem]:
    """Report rows that have no file: deleted, or written by a newer version of the program."""
    newest = max((m.when for m in folder.migrations), default=0)
    absent = {entry.when for entry in folder.absent} | {entry.tag for entry in folder.absent}
    for row in rows:
        if row.created_at in absent or row.tag in absent:
            continue  # the folder's own problem reports it
        name = row.tag or f"the migration with hash {row.hash[:12]}…"
        if folder.migrations and row.created_at > newest:
            yield Problem(
                ProblemCode.NEWER_DATABASE,
                f"The database has applied {name}, which is newer than everything in {folder.path}.",
                "Start the newer version of the program, or restore the backup from before it"
                " (`db backup list`, then `db restore NAME`).",
                row.tag,
            )
        else:
            yield Problem(
                ProblemCode.MISSING,
                f"The database has applied {name}, which is not in {folder.path}.",
                "Bring its file and its journal entry back from version control."
                if folder.migrations
                else "The folder holds no migrations: give the right one with --migrations, or bring the"
                " files back from version control.",
                row.tag,
            )


def _edited(entry: Edited) -> Problem:
    tag, name = entry.migration.tag, entry.migration.name
    was, now = entry.row.hash, entry.migration.hash
    if entry.row.applied_at is None:
        hint = (
            f"Bring {name} back from version control; or, as another tool applied it and its old text"
            " is not known here, take the files as they are with `db adopt --trust-files`."
        )
    else:
        hint = (
            f"Bring {name} back from version control and write the change as a new migration;"
            f" or look at the difference and accept it with `db repair --accept-edited {tag}`."
        )
    return Problem(
        ProblemCode.EDITED,
        f"{name} was edited after it was applied: its hash was {was[:12]}… and is {now[:12]}….",
        hint,
        tag,
    )


def _out_of_order(
    folder: Folder,
    pending: Sequence[Migration],
    applied: Sequence[Applied],
    matched: dict[str, Applied],
) -> Iterable[Problem]:
    """Report pending migrations that stand before, or are dated before, one that is applied."""
    if not applied:
        return
    newest = max(row.created_at for row in applied)
    last = max((n for n, m in enumerate(folder.migrations) if m.tag in matched), default=-1)
    place = {m.tag: n for n, m in enumerate(folder.migrations)}
    for migration in pending:
        if place[migration.tag] > last and migration.when > newest:
            continue
        after = folder.migrations[last].tag if last >= 0 else "the newest"
        yield Problem(
            ProblemCode.OUT_OF_ORDER,
            f"{migration.tag} is pending, but it comes before {after}, which is applied already"
            + ("." if folder.is_v1 else " (Drizzle would skip it in silence)."),
            "Read whether it still fits, then apply it with `db migrate --allow-out-of-order`"
            + _or_at_the_end(migration, folder),
            migration.tag,
        )


def _or_at_the_end(migration: Migration, folder: Folder) -> str:
    if migration.is_squashed:
        return "."
    how = ": rename its folder to a later stamp." if folder.is_v1 else " with `db renumber`."
    return f", or give it a place at the end{how}"


def _repeated_numbers(folder: Folder, pending: set[str]) -> Iterable[Problem]:
    """Report duplicate numbers in the journal, as after a merge, while they can still be fixed.

    The order of those that are squashed is decided: the squash makes what they make in it.
    """
    if folder.is_v1:
        return
    first: dict[object, Migration] = {}
    for migration in folder.migrations:
        for key in places_of(migration.idx, migration.tag):
            other = first.setdefault(key, migration)
            if other is not migration and any(
                one.tag in pending and not one.is_squashed for one in (other, migration)
            ):
                yield Problem(
                    ProblemCode.DUPLICATE,
                    f"{other.tag} and {migration.tag} have the same number, as after a merge of two"
                    " branches.",
                    "Give the later one a new number with `db renumber`.",
                    migration.tag,
                )
                break


def _unjournaled(name: str, folder: Folder) -> Problem:
    plain = not folder.migrations and not folder.absent
    return Problem(
        ProblemCode.UNJOURNALED,
        f"{name} is not listed in meta/_journal.json (Drizzle would skip it in silence).",
        "Make the folder ours with `db adopt --format auto`, which looks what form it has."
        if plain
        else "Save it while `serve --dev` runs, which journals it after a rehearsal; or write its entry"
        " with `db adopt --format journal`; or take the file away.",
        name.removesuffix(".sql"),
    )
