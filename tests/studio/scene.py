"""A gateway that is worth looking at: a shop's database, servers up and down, an hour of calls.

The tests of the pages in a browser run on it, and `docs/screenshots.py` takes its pictures of it.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness import REPOSITORY, GatewayProcess, Place, new_place

DESK = REPOSITORY / "tests" / "studio" / "servers" / "desk.py"
SHOP = """
CREATE TABLE customers (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  email TEXT NOT NULL UNIQUE,
  city TEXT,
  joined_at INTEGER NOT NULL
);
CREATE TABLE products (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  price_cents INTEGER NOT NULL CHECK (price_cents >= 0),
  details TEXT,
  picture BLOB
);
CREATE TABLE orders (
  id INTEGER PRIMARY KEY,
  customer_id INTEGER NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
  state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'sent', 'returned')),
  note TEXT,
  ordered_at INTEGER NOT NULL
);
CREATE TABLE order_items (
  order_id INTEGER NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
  product_id INTEGER NOT NULL REFERENCES products (id),
  quantity INTEGER NOT NULL CHECK (quantity > 0),
  PRIMARY KEY (order_id, product_id)
) WITHOUT ROWID;
CREATE INDEX orders_by_customer ON orders (customer_id, ordered_at);
"""
REVIEWS = """CREATE TABLE reviews (
  id INTEGER PRIMARY KEY,
  product_id INTEGER NOT NULL REFERENCES products (id),
  customer_id INTEGER REFERENCES customers (id) ON DELETE SET NULL,
  stars INTEGER NOT NULL CHECK (stars BETWEEN 1 AND 5),
  words TEXT
)"""
KEPT = """CREATE TRIGGER reviews_are_kept BEFORE UPDATE OF stars ON reviews
BEGIN SELECT RAISE(ABORT, 'a review is kept as it was written'); END"""
SALES = """CREATE VIEW sales AS
SELECT p.name, sum(i.quantity) AS sold, sum(i.quantity * p.price_cents) AS cents
FROM order_items AS i JOIN products AS p ON p.id = i.product_id GROUP BY p.id"""
POINTS = """-- Customers collect points; old ones begin with none.
ALTER TABLE customers ADD COLUMN points INTEGER NOT NULL DEFAULT 0"""
FIRST = ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Margaret", "Dennis", "Frances")
LAST = ("Lovelace", "Hopper", "Turing", "Dijkstra", "Liskov", "Knuth", "Hamilton", "Ritchie")
CITIES = ("London", "Berlin", "Lyon", None, "Oslo", "Ghent")
THINGS = ("Teapot", "Lamp", "Notebook", "Scissors", "Kettle", "Clock", "Basket", "Blanket")
NOTES = (None, "", "Leave it at the door.", "A present: <b>no bill</b> inside.", "Rang twice.")
DAY_MS, HOUR_MS = 86_400_000, 3_600_000


@dataclass(frozen=True, slots=True)
class Scene:
    """The gateway, and where it lives."""

    place: Place
    gateway: GatewayProcess


@contextmanager
def scene(
    root: Path, *serve: str, env: Mapping[str, str] | None = None, pending: bool = True
) -> Iterator[Scene]:
    """Start the gateway; `serve` are options of its command."""
    place = new_place(root, shipped=True)
    place.folder.add("shop", *(part.strip() for part in SHOP.split(";\n") if part.strip()))
    place.migrate()
    with closing(sqlite3.connect(place.database)) as connection, connection:
        fill_shop(connection)
        fill_calls(connection)
    place.folder.add("reviews", REVIEWS, KEPT)
    place.folder.add("sales_view", SALES)
    place.migrate()
    with place.serve(*serve, env={"LMG_UPSTREAM__NEW_TOOLS": "hold", **(env or {})}) as gateway:
        gateway.wait_ready()
        servers = {
            "desk": {"command": sys.executable, "args": [str(DESK)], "env": {"DESK_TOKEN": "s3"}},
            "tracker": {"url": "http://127.0.0.1:9/mcp"},
        }
        done = place.run("server", "import", "-", stdin=json.dumps({"mcpServers": servers}))
        assert done.code == 0, done.stderr
        assert place.run("call", "quote", "grams=900").code == 0
        place.run("server", "test", "tracker")
        if pending:
            place.folder.add("points", POINTS, "ALTER TABLE products DROP COLUMN details")
        yield Scene(place, gateway)
        assert gateway.stop() == 0


def fill_shop(connection: sqlite3.Connection) -> None:
    """Write 60 customers, 8 products and 400 orders; the same ones each time."""
    dice = random.Random(17)
    now = int(time.time() * 1000)
    connection.executemany(
        "INSERT INTO customers VALUES (?, ?, ?, ?, ?)",
        (
            (
                number,
                f"{FIRST[number % 9]} {LAST[number % 8]}",
                f"{FIRST[number % 9].lower()}.{number}@example.org",
                CITIES[number % 6],
                now - dice.randrange(900) * DAY_MS,
            )
            for number in range(1, 61)
        ),
    )
    for number, name in enumerate(THINGS, 1):
        details = json.dumps({"weight_g": dice.randrange(80, 3000), "colours": ["oak", "blue"]})
        connection.execute(
            "INSERT INTO products VALUES (?, ?, ?, ?, ?)",
            (
                number,
                name,
                dice.randrange(199, 9999),
                details,
                b"\x89PNG\r\n" + dice.randbytes(999),
            ),
        )
    for number in range(1, 401):
        state = dice.choice(("sent", "sent", "sent", "open", "returned"))
        connection.execute(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?)",
            (
                *(number, dice.randrange(1, 61), state, dice.choice(NOTES)),
                now - (400 - number) * 7_000_000 - dice.randrange(5_000_000),
            ),
        )
        connection.executemany(
            "INSERT INTO order_items VALUES (?, ?, ?)",
            ((number, thing, dice.randrange(1, 5)) for thing in dice.sample(range(1, 9), 3)),
        )


def fill_calls(connection: sqlite3.Connection) -> None:
    """Write an hour of calls, of which some failed, into the log of calls."""
    dice = random.Random(17)
    now = int(time.time() * 1000)
    for number, at in enumerate(
        sorted(int(dice.triangular(0, HOUR_MS, 50 * 60_000)) for _ in range(600))
    ):
        server = dice.choice(("desk", "desk", "desk", "tracker"))
        target = dice.choice(("find_orders", "quote", "chart")) if server == "desk" else "issues"
        failed = dice.random() < (0.02 if server == "desk" else 0.2)
        took = int(dice.lognormvariate(9.5 if server == "desk" else 11.5, 0.7))
        connection.execute(
            "INSERT INTO debug_logs (created_at, profile, server, method, target, status, error,"
            " duration_us, request_bytes, response_bytes) VALUES (?, 'default', ?, 'tools/call',"
            " ?, ?, ?, ?, ?, ?)",
            (
                *(now - HOUR_MS + at, server, target, "error" if failed else "ok"),
                "The server closed the connection." if failed else None,
                *(took, dice.randrange(90, 900), dice.randrange(200, 20_000) + number),
            ),
        )
