"""What a migration's statements say by themselves, beyond the two schemas: renames, drops, deletes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from local_mcp_gateway.schema.tokens import Token, normal, quote, tokenize

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


@dataclass(slots=True)
class Seen:
    """What the statements say by themselves; names are keys."""

    renamed_tables: dict[str, str] = field(default_factory=dict)
    """New name → name before, through any chain of renames."""
    renamed_columns: dict[tuple[str, str], str] = field(default_factory=dict)
    """(table, new name) → name before."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Table that was dropped → the name that it had before any rename."""
    deleted_from: set[str] = field(default_factory=set)
    copied: dict[str, str] = field(default_factory=dict)
    """Table → the INSERT that fills it, normalised."""

    def gives(self, table: str, column: str, *, new: bool) -> bool:
        """Tell whether the copy into a rebuilt table writes a value where rows had none."""
        statement = self.copied.get(self.renamed_tables.get(table, ""), "")
        listed, _, select = statement.partition(" ) select ")
        if new:  # a copy that has nothing to write begins with a lone NULL
            return not select.startswith("null from ") and column in listed.partition(" ( ")[
                2
            ].split(" , ")
        return f"coalesce ( {column} ," in select or f"ifnull ( {column} ," in select

    def origin(self, table: str, before: Collection[str]) -> str:
        """Return the name before of the table that has this name now; `before` are all that there were.

        Renamed from one of them, it is that one; from a new one, it is a rebuild of what was dropped.
        """
        moved = self.renamed_tables.get(table, table)
        return moved if moved in before else self.dropped.get(table, table)

    def now(self, table: str, text: str) -> str:
        """Write a normalised fragment of the table before with the names of columns afterwards."""
        moved = {
            quote(old): quote(new)
            for (owner, new), old in self.renamed_columns.items()
            if owner == table
        }
        return " ".join(moved.get(word, word) for word in text.split(" ")) if moved else text


def read(statements: Sequence[str]) -> Seen:
    """Collect renames, drops and deletes, in order: a name that was dropped and taken again is a rebuild."""
    seen = Seen()
    for statement in statements:
        tokens: list[Token] = tokenize(statement)
        match _verb(tokens):
            case ["drop", "table", "if", "exists", name, *_] | ["drop", "table", name, *_]:
                seen.dropped[_key(name)] = seen.renamed_tables.pop(_key(name), _key(name))
            case ["delete", "from", name, *_]:
                seen.deleted_from.add(_key(name))
            case ["insert", "into", name, "(", *_]:
                seen.copied[_key(name)] = normal(tokens)
            case (
                ["replace", "into", name, *_]
                | ["insert", "or", "replace", "into", name, *_]
                | ["update", "or", "replace", name, *_]
            ):
                seen.deleted_from.add(_key(name))
            case ["alter", "table", name, "rename", "to", new, *_]:
                _rename_table(seen, _key(name), _key(new))
            case ["alter", "table", name, "rename", "column", old, "to", new, *_]:
                _rename(seen, _key(name), _key(old), _key(new))
            case ["alter", "table", name, "rename", old, "to", new, *_]:
                _rename(seen, _key(name), _key(old), _key(new))
            case _:
                pass
    return seen


def _verb(tokens: Sequence[Token]) -> list[str]:
    """Return the first words of a statement, after its WITH clause and without the schema `main`."""
    words = [token[1] for token in tokens]
    if words[:1] == ["with"]:
        depth = 0
        for at, word in enumerate(words):
            depth += (word == "(") - (word == ")")
            if depth == 0 and word in {"select", "insert", "replace", "update", "delete"}:
                words = words[at:]
                break
    words = words[:12]
    while "." in words and words[(at := words.index(".")) - 1] == "main":
        del words[at - 1 : at + 1]
    return words


def _rename_table(seen: Seen, old: str, new: str) -> None:
    seen.renamed_tables[new] = seen.renamed_tables.pop(old, old)
    for table, column in [place for place in seen.renamed_columns if place[0] == old]:
        seen.renamed_columns[new, column] = seen.renamed_columns.pop((table, column))


def _rename(seen: Seen, table: str, old: str, new: str) -> None:
    seen.renamed_columns[table, new] = seen.renamed_columns.pop((table, old), old)


def _key(word: str) -> str:
    """Return the key of a name token: what `tokenize` quoted again is bare here."""
    return word[1:-1].replace('""', '"') if word.startswith('"') else word
