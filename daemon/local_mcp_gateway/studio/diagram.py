"""Draw the tables and their foreign keys as an SVG diagram.

A table is drawn to the left of those that refer to it. Its column in the drawing is the length of the
longest chain of references to a table that refers to nothing; keys that would close a circle do not count.
In a column, tables are near those that they are linked with. Tables without a link are at the bottom.

An end with a foot is "many", a bar is "one", a circle "or none".
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup, escape

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.formats import counted
from local_mcp_gateway.sql import fold
from local_mcp_gateway.studio.http import address, whole_number
from local_mcp_gateway.studio.tables import list_tables, opened
from local_mcp_gateway.studio.visit import Powers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from local_mcp_gateway.database import Connection
    from local_mcp_gateway.studio.http import Response
    from local_mcp_gateway.studio.visit import Page, Visit

ROW, HEAD, GAP_X, GAP_Y, LETTER = 18, 26, 84, 24, 7.3
"""Heights of a line and of a name, the gaps between tables, and the width of a letter, in pixels."""
HIGHEST: Final = 1_600
"""A column of the drawing that is higher goes on in a second one."""
MOST_ROWS: Final = 16
"""How many columns of a table are drawn, keys first."""
MOST_WITH_COLUMNS: Final = 120
"""With more tables only the columns with keys are drawn."""
LONGEST_NAME: Final = 32
EDGE: Final = 12.0
ZOOMS: Final = (50, 75, 100, 150, 200)
STANDALONE: Final = """
svg { background: #fff } text { font: 12px ui-monospace, Menlo, "DejaVu Sans Mono", monospace; fill: #1d1f23 }
.box { fill: #fff; stroke: #857f74 } .name { fill: #efede8; stroke: #857f74 } .bold { font-weight: 700 }
.soft { fill: #585c64 } .link { fill: none; stroke: #1d4f9f; stroke-width: 1.25 } .none { fill: #fff; stroke: #1d4f9f }
"""


@dataclass(slots=True)
class Box:
    """One table as it is drawn."""

    name: str
    columns: list[tuple[str, str, str]]
    """Name, type, and "key", "refers" or "" of each column."""
    hidden: int = 0
    x: float = 0
    y: float = 0

    @property
    def width(self) -> float:
        """Return the width that its longest line needs."""
        lines = [len(name) + len(kind) + 3 for name, kind, _ in self.columns]
        return max(110.0, LETTER * max([len(self.name) + 1, *lines]) + 20)

    @property
    def height(self) -> float:
        """Return the height of all its lines."""
        return HEAD + ROW * (len(self.columns) + bool(self.hidden)) + 6

    def middle(self, column: str) -> float:
        """Return the height of a column's line; of the name, if the column is not drawn."""
        for at, (name, _, _) in enumerate(self.columns):
            if fold(name) == fold(column):
                return self.y + HEAD + ROW * at + ROW / 2 + 2
        return self.y + HEAD / 2


@dataclass(frozen=True, slots=True)
class Edge:
    """One foreign key: from the column of one table to that of another."""

    table: str
    column: str
    to: str
    to_column: str
    required: bool
    unique: bool


@dataclass(slots=True)
class Schema:
    """The tables and the foreign keys between them, by name."""

    boxes: dict[str, Box] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)

    def around(self, name: str) -> Schema:
        """Return one table with those that it is linked to."""
        edges = [edge for edge in self.edges if name in {edge.table, edge.to}]
        names = {name, *(edge.table for edge in edges), *(edge.to for edge in edges)}
        return Schema({n: box for n, box in self.boxes.items() if n in names}, edges)


def read_schema(connection: Connection) -> Schema:
    """Return the tables, without those of the guard and of SQLite."""
    shown = {
        table.name
        for table in list_tables(connection)
        if table.kind == "table" and not table.protected
    }
    by_fold = {fold(name): name for name in shown}
    columns: dict[str, list[tuple[str, str, int, bool]]] = {}
    for name, column, kind, key, required in connection.execute(
        'SELECT t.name, c.name, c.type, c.pk, c."notnull" FROM pragma_table_list AS t'
        " JOIN pragma_table_xinfo(t.name) AS c"
        " WHERE t.schema = 'main' AND t.type = 'table' AND c.hidden <> 1 ORDER BY lower(t.name), c.cid"
    ):
        if name in shown:
            columns.setdefault(name, []).append((column, kind, key, bool(required)))
    edges = list(_edges(connection, by_fold, columns))
    referring = {(edge.table, edge.column) for edge in edges}
    schema = Schema(edges=edges)
    for name, given in columns.items():
        lines = [
            (
                column,
                kind.lower(),
                "key" if key else "refers" if (name, column) in referring else "",
            )
            for column, kind, key, _ in given
        ]
        if len(columns) > MOST_WITH_COLUMNS:
            chosen = [line for line in lines if line[2]][:MOST_ROWS]
        elif len(lines) > MOST_ROWS:
            keys = {line for line in lines if line[2]}
            room = MOST_ROWS - min(len(keys), MOST_ROWS)
            others = {line for line in lines if not line[2]}
            kept = {*[line for line in lines if line in others][:room], *keys}
            chosen = [line for line in lines if line in kept][:MOST_ROWS]
        else:
            chosen = lines
        schema.boxes[name] = Box(name, chosen, len(lines) - len(chosen))
    return schema


def _edges(
    connection: Connection,
    names: Mapping[str, str],
    columns: Mapping[str, list[tuple[str, str, int, bool]]],
) -> Iterator[Edge]:
    """Yield the foreign keys; of one with several columns, its first."""
    unique = {
        (fold(table), fold(column))
        for table, column in connection.execute(
            "SELECT t.name, min(i.name) FROM pragma_table_list AS t JOIN pragma_index_list(t.name) AS l"
            " JOIN pragma_index_info(l.name) AS i"
            " WHERE t.schema = 'main' AND l.\"unique\" AND NOT l.partial GROUP BY t.name, l.name"
            " HAVING count(*) = 1 AND min(i.name) IS NOT NULL"
        )
    }
    for table, to, here, there in connection.execute(
        'SELECT t.name, f."table", f."from", f."to" FROM pragma_table_list AS t'
        " JOIN pragma_foreign_key_list(t.name) AS f WHERE t.schema = 'main' AND f.seq = 0"
        " ORDER BY t.name, f.id DESC"
    ):
        target, source = names.get(fold(to)), names.get(fold(table))
        if target is None or source is None:
            continue
        keys = sorted((key, column) for column, _, key, _ in columns[target] if key)
        to_column = there or (keys[0][1] if keys else "")
        own = next((c for c in columns[source] if fold(c[0]) == fold(here)), (here, "", 0, False))
        alone = own[2] == 1 and sum(bool(c[2]) for c in columns[source]) == 1
        required = own[3] or bool(own[2])
        is_unique = alone or (fold(source), fold(here)) in unique
        yield Edge(source, own[0], target, to_column, required, is_unique)


# --- where everything is ------------------------------------------------------------------------


def arrange(schema: Schema) -> tuple[float, float]:
    """Give every table its place; return the width and height of the whole."""
    parents: dict[str, set[str]] = {name: set() for name in schema.boxes}
    linked: dict[str, set[str]] = defaultdict(set)
    for edge in schema.edges:
        if edge.table != edge.to:
            parents[edge.table].add(edge.to)
            linked[edge.table].add(edge.to)
            linked[edge.to].add(edge.table)
    layers: dict[int, list[str]] = defaultdict(list)
    for name, depth in _depths(parents).items():
        if linked[name]:
            layers[depth].append(name)
    _order(layers, linked)
    boxes = schema.boxes
    columns = [column for depth in sorted(layers) for column in _columns(boxes, layers[depth])]
    alone = [box for name, box in boxes.items() if not linked[name]]
    bottom, right = _place_columns(columns)
    bottom = _place_rows(sorted(alone, key=lambda box: fold(box.name)), bottom, max(right, 900.0))
    return max([right, *(box.x + box.width for box in boxes.values())]) + EDGE, bottom


def _place_columns(columns: Iterable[Iterable[Box]]) -> tuple[float, float]:
    """Put the linked tables next to each other; return where they end, below and at the right."""
    x = bottom = right = EDGE
    for column in columns:
        y = EDGE
        for box in column:
            box.x, box.y = x, y
            y += box.height + GAP_Y
        bottom = max(bottom, y)
        right = x + max(box.width for box in column)
        x = right + GAP_X
    return bottom, right


def _place_rows(boxes: Iterable[Box], y: float, right: float) -> float:
    """Put tables without a link in rows below; return where those end."""
    x, highest = EDGE, 0.0
    for box in boxes:
        if x > EDGE and x + box.width > right:
            x, y, highest = EDGE, y + highest + GAP_Y, 0.0
        box.x, box.y = x, y
        x, highest = x + box.width + GAP_Y, max(highest, box.height)
    return y + highest + EDGE


def _depths(parents: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Return how far each table is from one that refers to nothing; circles are cut where they are met."""
    depths: dict[str, int] = {}
    for start in sorted(parents, key=fold):
        way = [] if start in depths else [(start, iter(sorted(parents[start])))]
        on_way = {start}
        while way:
            name, rest = way[-1]
            deeper = next((p for p in rest if p not in depths and p not in on_way), None)
            if deeper is not None:
                on_way.add(deeper)
                way.append((deeper, iter(sorted(parents[deeper]))))
                continue
            way.pop()
            depths[name] = max((depths[p] + 1 for p in parents[name] if p in depths), default=0)
    return depths


def _order(layers: dict[int, list[str]], linked: Mapping[str, set[str]]) -> None:
    """Sort each column by where those stand that its tables are linked with."""
    for names in layers.values():
        names.sort(key=lambda name: (-len(linked[name]), fold(name)))
    for depths in (sorted(layers), sorted(layers, reverse=True), sorted(layers)):
        place = {
            name: at / (len(names) or 1)
            for names in layers.values()
            for at, name in enumerate(names)
        }
        for depth in depths:
            middle = {
                name: sum(place[other] for other in linked[name]) / len(linked[name])
                for name in layers[depth]
            }
            layers[depth].sort(key=lambda name: middle[name])
            place |= {name: at / len(layers[depth]) for at, name in enumerate(layers[depth])}


def _columns(boxes: Mapping[str, Box], names: Iterable[str]) -> list[list[Box]]:
    found: list[list[Box]] = [[]]
    height = 0.0
    for name in names:
        if found[-1] and height + boxes[name].height > HIGHEST:
            found.append([])
            height = 0.0
        found[-1].append(boxes[name])
        height += boxes[name].height + GAP_Y
    return found


# --- the drawing --------------------------------------------------------------------------------


def draw(schema: Schema, *, zoom: int = 100, standalone: bool = False) -> Markup:
    """Return the drawing: for a page, with links, or as a file of its own, with its colours.

    Every name in it is escaped here: `Markup.format` takes seconds for 2,000 tables.
    """
    width, height = arrange(schema)
    said = f"{counted(len(schema.boxes), 'table')}, {counted(len(schema.edges), 'foreign key')}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="er" role="group" aria-label="{said}"'
        f' width="{width * zoom / 100:.0f}" height="{height * zoom / 100:.0f}"'
        f' viewBox="0 0 {width:.0f} {height:.0f}">'
    )
    parts = [head]
    if standalone:
        parts.append(f"<title>{said}</title><style>{STANDALONE}</style>")
    parts += [_link(schema.boxes[edge.table], schema.boxes[edge.to], edge) for edge in schema.edges]
    for box in schema.boxes.values():
        parts += _table(box, standalone=standalone)
    return Markup("\n".join([*parts, "</svg>\n"]))  # noqa: S704  made of numbers and of escaped names


def _table(box: Box, *, standalone: bool) -> Iterator[str]:
    x, y, width = box.x, box.y, box.width
    corner = f'x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" rx="4"'
    yield f'<rect class="box" {corner} height="{box.height:.0f}"/><rect class="name" {corner} height="{HEAD}"/>'
    name = _text("bold", x + 10, y + 17, box.name or "(no name)")
    to = escape(address("data", box.name, "structure"))
    yield name if standalone else f'<a href="{to}">{name}</a>'
    for at, (column, kind, what) in enumerate(box.columns):
        line = y + HEAD + ROW * at + 15
        yield _text("bold" if what == "key" else "", x + 10, line, column)
        yield _text('soft" text-anchor="end', x + width - 10, line, kind or "any")
    if box.hidden:
        line = y + HEAD + ROW * len(box.columns) + 15
        yield _text("soft", x + 10, line, f"… {box.hidden} more")


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


def _link(box: Box, to: Box, edge: Edge) -> str:
    """Draw a foreign key, with what each of its ends means."""
    here, there = box.middle(edge.column), to.middle(edge.to_column)
    way = -1 if box.x > to.x else 1
    tip = box.x if way < 0 else box.x + box.width
    end = to.x + to.width
    bend = max(34.0, abs(tip - end) / 2) if way < 0 else 60.0
    inner, outer = tip + way * 10, tip + way * 14
    path = (
        f"M{outer:.0f} {here:.0f}C{tip + way * bend:.0f} {here:.0f}"
        f" {end + bend:.0f} {there:.0f} {end + 14:.0f} {there:.0f}"
        f"M{tip:.0f} {here:.0f}H{outer:.0f}M{end:.0f} {there:.0f}h14M{end + 6:.0f} {there - 5:.0f}v10"
    )
    if edge.unique:
        path += f"M{inner:.0f} {here - 5:.0f}v10"
    else:
        path += f"M{tip:.0f} {here - 5:.0f}L{inner:.0f} {here:.0f}L{tip:.0f} {here + 5:.0f}"
    if edge.required:
        path += f"M{end + 10:.0f} {there - 5:.0f}v10"
    rings = [(outer, here)] if edge.required else [(outer, here), (end + 13, there)]
    drawn = (f'<circle class="none" cx="{x:.0f}" cy="{y:.0f}" r="3.5"/>' for x, y in rings)
    title = escape(f"{edge.table}.{edge.column} refers to {edge.to}.{edge.to_column}")
    return f'<g><title>{title}</title><path class="link" d="{path}"/>{"".join(drawn)}</g>'


def draw_database(path: Path, around: str | None = None) -> str:
    """Return the drawing of a database as a file of its own; raises UsageProblem for an unknown table."""
    with opened(Powers(path)) as connection:
        schema = read_schema(connection)
    if around is not None:
        name = next((name for name in schema.boxes if fold(name) == fold(around)), None)
        if name is None:
            raise UsageProblem(
                f"There is no table {around!r}.", hint="The whole diagram has all of them."
            )
        schema = schema.around(name)
    return str(draw(schema, standalone=True))


async def show(visit: Visit) -> Response:
    """Show the drawing, all of it or around one table."""
    around = visit.request.asked("around")
    asked = whole_number(visit.request.asked("zoom"))
    zoom = asked if asked in ZOOMS else 100

    def work() -> tuple[Schema, list[str], Any]:
        with opened(visit.powers) as connection:
            whole = read_schema(connection)
        shown = whole.around(around) if around in whole.boxes else whole
        return shown, list(whole.boxes), draw(shown, zoom=zoom)

    shown, names, drawing = await asyncio.to_thread(work)
    return await visit.page(
        "diagram.html",
        here="data",
        schema=shown,
        names=names,
        around=around if around in names else "",
        zoom=zoom,
        zooms=ZOOMS,
        drawing=drawing,
    )


ROUTES: Final[dict[tuple[str, str], Page]] = {("GET", "diagram"): show}
