"""Two clients do anything, in any order, at one server: nothing of one is ever seen by the other.

A seeded driver with real processes. Each run opens sessions of two clients, lets both do a few random
things at the same time, and then looks at every byte that each has received for a mark of the other.
`make nightly` runs 10,000 of them.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.store.model import Share
from tests.gateway.apart import Client, client, roots
from tests.gateway.support import QUICK, SERVERS, Running, gateway_of, http, process, stdio

LEVELS = ("debug", "info", "warning", "error")
ASKED = ("sampling/createMessage", "elicitation/create")
PER_GATEWAY = 50
"""How many runs one gateway serves; each gateway meets its server for the first time."""


@dataclass(frozen=True)
class Way:
    """How the server is reached, and what it does."""

    kind: str
    flags: tuple[str, ...] = ()
    share: Share = Share.AUTO

    @property
    def asks(self) -> bool:
        """Whether it asks for roots."""
        return "--silent" not in self.flags

    @property
    def tasks(self) -> bool:
        return "--tasks" in self.flags

    @property
    def apart(self) -> bool:
        """Whether it has one client: one that says nothing by itself is shared, and keeps the same for all."""
        return self.asks or self.tasks or self.share is Share.NEVER


WAYS = (
    Way("stdio"),
    Way("stdio", ("--silent",)),
    Way("stdio", ("--silent",), Share.NEVER),
    Way("stdio", ("--silent", "--tasks")),
    Way("http", ("--tasks",)),
)


class One:
    """One of the clients, and what it may be told."""

    def __init__(self, mark: str, rng: random.Random, way: Way) -> None:
        self.mark = mark
        self.rng = rng
        self.listens = rng.random() < 0.8
        self.level = 0
        self.roots = [f"file:///{mark}"]
        self.way = way
        self.tasks: set[str] = set()
        self.token = 0
        self.note = ""

    def answers(self) -> dict[str, Any]:
        return {"roots_list": roots(*self.roots)} | {
            method.replace("/", "_"): {"text": f"{self.mark} answers"} for method in ASKED
        }

    async def act(self, user: Client) -> None:
        """Do one thing, and look at what comes back."""
        doing = [self.work, self.two, self.log, self.later, self.set_level, self.tools]
        if self.way.tasks:
            doing += [self.begin, self.begin, self.all_tasks]
        if self.way.apart:
            doing += [self.keep]
        if self.way.asks:
            doing += [self.look, self.look]
        if self.way.asks and self.listens:  # nobody else can be asked outside of a call
            doing.append(self.move)
        await self.rng.choice(doing)(user)

    async def work(self, user: Client) -> None:
        self.token += 1
        token, method = self.token, self.rng.choice(ASKED)
        text = f"{self.mark} works {token}"
        meta = {"progressToken": token}
        answer = await user.use("work", meta, method=method, text=text)
        told = [n for n in user.notes("notifications/progress") if n["message"] == text]
        assert [n["progressToken"] for n in told] == [token]
        if answer.get("code") != -32601:  # nobody is asked while it is not known who is meant
            assert answer == {"text": f"{self.mark} answers"}

    async def two(self, user: Client) -> None:
        await asyncio.gather(self.work(user), self.work(user))

    async def begin(self, user: Client) -> None:
        """Begin a task; what is told of it later has the same id."""
        self.token += 1
        data = f"{self.mark} runs {self.token}"
        params: Any = {"name": "pid", "arguments": {"data": data}, "task": {"ttl": 60_000}}
        task = (await user.ask("tools/call", **params))["result"]["task"]["taskId"]
        self.tasks.add(task)
        assert (await user.ask("tasks/get", taskId=task))["result"]["status"] == "completed"
        if self.listens and self.way.kind == "stdio":  # over HTTP it has no stream for that
            await user.until(
                lambda: task in {n["taskId"] for n in user.notes("notifications/tasks/status")}
            )

    async def all_tasks(self, user: Client) -> None:
        listed = (await user.ask("tasks/list"))["result"]["tasks"]
        assert {task["taskId"] for task in listed} == self.tasks

    async def log(self, user: Client) -> None:
        self.token += 1
        level, data = self.rng.choice(LEVELS), f"{self.mark} logs {self.token}"
        assert await user.use("log", level=level, data=data) == "logged"
        if self.way.apart and LEVELS.index(level) < self.level:
            assert data not in [note["data"] for note in user.notes("notifications/message")]

    async def later(self, user: Client) -> None:
        assert await user.use("later", data=f"{self.mark} later") == "logged"

    async def set_level(self, user: Client) -> None:
        self.level = self.rng.randrange(len(LEVELS))
        assert (await user.ask("logging/setLevel", level=LEVELS[self.level]))["result"] == {}

    async def tools(self, user: Client) -> None:
        assert "tools" in (await user.ask("tools/list"))["result"]

    async def look(self, user: Client) -> None:
        assert await user.use("roots") == self.roots

    async def move(self, user: Client) -> None:
        """Have other roots; the server asks for them in its own time."""
        self.roots = [*self.roots[:1], f"file:///{self.mark}/{self.rng.randrange(9)}"]
        user.answers["roots/list"] = roots(*self.roots)
        await user.tell("notifications/roots/list_changed")
        while await user.use("roots") != self.roots:
            await user.use("pid")

    async def keep(self, user: Client) -> None:
        assert await user.use("note") == self.note
        self.note = f"{self.mark}_{self.rng.randrange(9)}"
        assert await user.use("note", text=self.note) == self.note


async def interleaving(running: Running, rng: random.Random, number: int, way: Way) -> None:
    """Let two clients act at the same time, and look for each in what the other has received."""
    marks = f"alpha{number}x", f"omega{number}x"
    ones = [One(mark, random.Random(rng.random()), way) for mark in marks]
    received: list[str] = []

    async def live(one: One) -> None:
        async with client(running, listens=one.listens, **one.answers()) as user:
            for _ in range(one.rng.randint(1, 4)):
                for _ in range(one.rng.randrange(4)):
                    await asyncio.sleep(0)
                await one.act(user)
            if one.rng.random() < 0.5:
                await user.leave()
        received.append(json.dumps([one.mark, *user.received]))

    async with asyncio.TaskGroup() as living:
        for one in ones:
            living.create_task(live(one))
    for text in received:
        own = json.loads(text)[0]
        (other,) = {*marks} - {own}
        assert other not in text, f"run {number}: {own} has seen something of {other}"


@asynccontextmanager
async def serving(folder: Path, way: Way) -> AsyncIterator[Running]:
    folder.mkdir()
    if way.kind == "stdio":
        server = stdio("keeping", "keeping.py", *way.flags, share=way.share)
        async with gateway_of(folder, server, options=QUICK) as running:
            yield running
        return
    async with process(SERVERS / "keeping.py", "--http", *way.flags) as (_, url):
        server = http("keeping", url, share=way.share)
        async with gateway_of(folder, server, options=QUICK) as running:
            yield running


async def many(folder: Path, seed: int, runs: int, per_gateway: int = PER_GATEWAY) -> None:
    rng = random.Random(seed)
    for at in range(0, runs, per_gateway):
        way = WAYS[(at // per_gateway) % len(WAYS)]
        async with serving(folder / str(at), way) as running:
            for number in range(at, min(at + per_gateway, runs)):
                await interleaving(running, rng, number, way)


async def test_nothing_of_one_client_is_seen_by_another_in_any_interleaving(
    tmp_path: Path,
) -> None:
    await many(tmp_path, seed=0, runs=15, per_gateway=3)


@pytest.mark.nightly
async def test_nothing_is_seen_in_ten_thousand_interleavings(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**9)
    print(f"{seed=}")  # noqa: T201  shown where it fails
    await many(tmp_path, seed, runs=10_000)
