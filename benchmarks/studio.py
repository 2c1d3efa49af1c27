"""The pages: the first one after the link, a page of a million rows, memory, size, and what streams cost.

A gateway of its own, asked over HTTP as a browser asks. `open`, which makes the link, imports the pages
and compiles the templates of the first one.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.table import Row, Size
from tests.harness import REPOSITORY, GatewayProcess, new_place
from tests.studio.conftest import PLAIN, Browser, come_in

ROWS = {Size.QUICK: 100_000, Size.SHORT: 1_000_000, Size.LONG: 1_000_000}
PAGES = {Size.QUICK: 20, Size.SHORT: 60, Size.LONG: 300}
CALLS = {Size.QUICK: 200, Size.SHORT: 1_000, Size.LONG: 10_000}
STUDIO = REPOSITORY / "daemon" / "local_mcp_gateway" / "studio"


def measure(size: Size) -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as folder:
        place = new_place(Path(folder), shipped=True)
        place.migrate()
        place.write("CREATE TABLE big (id INTEGER PRIMARY KEY, name TEXT, at INTEGER)")
        place.write(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO big SELECT i, 'row ' || i, 1700000000000 + i FROM n",
            ROWS[size],
        )
        with place.serve() as gateway:
            gateway.wait_ready()
            document = {"mcpServers": {"plain": {"command": sys.executable, "args": [str(PLAIN)]}}}
            place.run("server", "import", "-", stdin=json.dumps(document))
            place.run("call", "echo")
            link = place.link()
            before = resident_mib(gateway)
            used, began = cpu_ms(gateway), time.perf_counter()
            browser = come_in(gateway.url, link)
            browser.page("/studio/")
            first_ms = (time.perf_counter() - began) * 1000
            note = f"{cpu_ms(gateway) - used:.0f} ms of the processor"
            yield Row("studio: first page after the link", first_ms, "ms", at_most=300, note=note)
            used = cpu_ms(gateway)
            times = sorted(row_pages(browser, ROWS[size], PAGES[size]))
            each_ms = (cpu_ms(gateway) - used) / len(times)
            note = f"{len(times)} pages of {ROWS[size]:,} rows by key, {each_ms:.0f} ms of the processor each"
            p95 = times[int(len(times) * 0.95)]
            yield Row("studio: page of rows, p95", p95, "ms", at_most=100, note=note)
            for path in ("/studio/", "/studio/calls", "/studio/servers/plain"):
                browser.page(path)
            with streams(browser, 3):
                grown = resident_mib(gateway) - before
                yield Row("studio: memory with three pages open", grown, "MiB", at_most=15)
            yield effect_on_calls(browser, gateway, CALLS[size])
    yield Row("studio: in the wheel", packed_kib(), "KiB", at_most=400)
    loaded = sum(file.stat().st_size for file in (STUDIO / "static").iterdir()) / 1024
    yield Row("studio: script, styles and icon", loaded, "KiB", at_most=200)


def resident_mib(gateway: GatewayProcess) -> float:
    """Return the memory that the gateway holds, without that of its servers."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def cpu_ms(gateway: GatewayProcess) -> float:
    """Return how long the gateway has used a processor, which says more on a busy machine."""
    fields = Path(f"/proc/{gateway.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def row_pages(browser: Browser, rows: int, count: int) -> Iterator[float]:
    """Yield milliseconds for pages all over the table."""
    for number in range(count):
        after = json.dumps([rows * number // count])
        began = time.perf_counter()
        browser.page(f"/studio/data/big?after={after}")
        yield (time.perf_counter() - began) * 1000


@contextmanager
def streams(browser: Browser, count: int) -> Iterator[None]:
    """Hold as many streams of events open as pages would."""
    parts = urlsplit(browser.url)
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    with ExitStack() as opened:
        for _ in range(count):
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            opened.enter_context(closing(connection))
            connection.request("GET", "/studio/live", headers={"Cookie": cookie})
            assert connection.getresponse().status == 200
        yield


def effect_on_calls(browser: Browser, gateway: GatewayProcess, count: int) -> Row:
    """Return the p99 of calls with three streams open, by that of calls with none; in turns."""
    rounds = 4
    times: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(rounds * 2):
        with streams(browser, 3 if turn % 2 else 0):
            times[bool(turn % 2)] += calls(gateway, count // rounds)
    alone, watched = (sorted(times[key])[int(len(times[key]) * 0.99)] for key in (False, True))
    note = f"{watched:.1f} ms and {alone:.1f} ms, {count} calls each, back to back"
    return Row("studio: call p99, three pages / none", watched / alone, "×", at_most=1.5, note=note)


def calls(gateway: GatewayProcess, count: int) -> list[float]:
    """Call a tool one after another on one connection; return milliseconds for each."""
    parts = urlsplit(gateway.url)
    params = {"name": "echo", "arguments": {"text": "x"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    found = []
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port)) as connection:
        for _ in range(count):
            began = time.perf_counter()
            connection.request("POST", "/mcp", body, headers)
            reply = connection.getresponse()
            answer = reply.read()
            assert reply.status == 200, answer
            found.append((time.perf_counter() - began) * 1000)
    return found


def packed_kib() -> float:
    """Return how large the folder is in a wheel."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(STUDIO.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file)
    return len(packed.getvalue()) / 1024
