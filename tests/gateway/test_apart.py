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
WAYS = (
    ("stdio", (), Share.AUTO),
    ("stdio", ("--silent",), Share.AUTO),
    ("stdio", ("--silent",), Share.NEVER),
    ("http", (), Share.AUTO),
)
"""Kind, flags and sharing of the server: one that says by itself that it differs, and one that does not."""


class One:
    """One of the clients, and what it may be told."""

    def __init__(self, mark: str, rng: random.Random, *, keeps: bool) -> None:
        self.mark = mark
        self.rng = rng
        self.listens = rng.random() < 0.8
        self.level = 0
        self.roots = [f"file:///{mark}"]
        self.keeps = keeps
        self.token = 0
        self.note = ""

    def answers(self) -> dict[str, Any]:
        return {"roots_list": roots(*self.roots)} | {
            method.replace("/", "_"): {"text": f"{self.mark} answers"} for method in ASKED
        }

    async def act(self, user: Client) -> None:
        """Do one thing, and look at what comes back."""
        doing = [self.work, self.work, self.log, self.later, self.set_level, self.tools]
        if self.keeps:
            doing += [self.look, self.look, self.keep]
        if self.keeps and self.listens:  # nobody else can be asked outside of a call
            doing.append(self.move)
        await self.rng.choice(doing)(user)

    async def work(self, user: Client) -> None:
        self.token += 1
        text, method = f"{self.mark} works {self.token}", self.rng.choice(ASKED)
        meta = {"progressToken": self.token}
        answer = await user.use("work", meta, method=method, text=text)
        told = [n for n in user.notes("notifications/progress") if n["message"] == text]
        assert [n["progressToken"] for n in told] == [self.token]
        if answer.get("code") != -32601:  # nobody is asked while it is not known who is meant
            assert answer == {"text": f"{self.mark} answers"}

    async def log(self, user: Client) -> None:
        self.token += 1
        level, data = self.rng.choice(LEVELS), f"{self.mark} logs {self.token}"
        assert await user.use("log", level=level, data=data) == "logged"
        if self.keeps and LEVELS.index(level) < self.level:
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


async def interleaving(running: Running, rng: random.Random, number: int, *, keeps: bool) -> None:
    """Let two clients act at the same time, and look for each in what the other has received."""
    marks = f"alpha{number}x", f"omega{number}x"
    ones = [One(mark, random.Random(rng.random()), keeps=keeps) for mark in marks]
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
async def serving(folder: Path, way: tuple[str, tuple[str, ...], Share]) -> AsyncIterator[Running]:
    kind, flags, share = way
    folder.mkdir()
    if kind == "stdio":
        server = stdio("keeping", "keeping.py", *flags, share=share)
        async with gateway_of(folder, server, options=QUICK) as running:
            yield running
        return
    async with process(SERVERS / "keeping.py", "--http", *flags) as (_, url):
        async with gateway_of(folder, http("keeping", url, share=share), options=QUICK) as running:
            yield running


async def many(folder: Path, seed: int, runs: int, per_gateway: int = PER_GATEWAY) -> None:
    rng = random.Random(seed)
    for at in range(0, runs, per_gateway):
        way = WAYS[(at // per_gateway) % len(WAYS)]
        keeps = way != WAYS[1]  # a silent server that clients share keeps the same for all
        async with serving(folder / str(at), way) as running:
            for number in range(at, min(at + per_gateway, runs)):
                await interleaving(running, rng, number, keeps=keeps and "--silent" not in way[1])


@pytest.mark.parametrize("seed", range(2))
async def test_nothing_of_one_client_is_seen_by_another_in_any_interleaving(
    tmp_path: Path, seed: int
) -> None:
    await many(tmp_path, seed, runs=12, per_gateway=3)


@pytest.mark.nightly
async def test_nothing_is_seen_in_ten_thousand_interleavings(tmp_path: Path) -> None:
    await many(tmp_path, random.SystemRandom().randrange(10**9), runs=10_000)
