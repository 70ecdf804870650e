"""`/readyz`: can a mutation be committed now, and if not, why not?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from engine import MutationCtx, StoreFull, mutation
from engine.committer.actor import RunAgain
from engine.model.commits import SYSTEM
from engine.model.limits import Limits
from engine.serving import Served, serving
from engine.store.memory_store import MemoryStore

FULL = "the disk has no room"

# The HTTP server below leaves the channels between its tasks open when a request is over.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <.*MemoryReceiveChannel:ResourceWarning")


@mutation
async def write(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {})


class House:
    def __init__(self, served: Served, client: httpx.AsyncClient) -> None:
        self.engine = served.engine
        self._client = client
        store = served.engine.node.store
        assert isinstance(store, MemoryStore)
        self.store = store

    async def ready(self) -> tuple[int, Any]:
        response = await self._client.get("/readyz")
        return response.status_code, response.json()


@asynccontextmanager
async def opened() -> AsyncIterator[House]:
    async with (
        serving(":memory:", app=[write], limits=Limits(staged_count_max=8)) as served,
        httpx.AsyncClient(base_url=served.url) as client,
    ):
        yield House(served, client)


async def test_an_engine_that_commits_is_ready() -> None:
    async with opened() as house:
        await house.engine.mutation(write)

        assert (200, {"ready": True}) == await house.ready()


async def test_a_store_that_refuses_is_not_ready_and_says_why() -> None:
    async with opened() as house:
        await refused(house)
        house.store.fail_next(StoreFull(FULL))

        status, answer = await house.ready()

    assert (503, False) == (status, answer["ready"])
    assert FULL in answer["reason"]


async def test_a_store_that_has_room_again_is_ready_although_nobody_writes() -> None:
    async with opened() as house:
        await refused(house)

        assert (200, {"ready": True}) == await house.ready()


async def test_a_lane_without_room_is_not_ready() -> None:
    async with opened() as house:
        hold = house.store.hold()
        committer = house.engine.node.committer
        while committer.obstacle is None:
            committer.stage([], SYSTEM)
        await hold.wait_reached()
        status, answer = await house.ready()
        hold.release()

    assert (503, False) == (status, answer["ready"])
    assert "wait for the disk" in answer["reason"]


async def refused(house: House) -> None:
    """Have a batch refused."""
    house.store.fail_next(StoreFull(FULL))
    with pytest.raises(RunAgain):
        async with house.engine.node.functions.turns.turn():
            house.engine.node.committer.stage([], SYSTEM)
