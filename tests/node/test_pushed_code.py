"""What is shown of a timestamp is by the code of that timestamp, also while a push switches."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.registry import Application
from engine.functions.loader import load
from engine.kernel.actor import running
from engine.kernel.runtime import VirtualRuntime
from engine.model.json_values import decode_ts, encode_ts
from engine.model.limits import Limits
from engine.server.server import Server, ServerConfig
from tests.node.nodes import mutate, serving
from tests.protocol.cells import Cells
from tests.protocol.wires import House


@mutation
async def add(ctx: MutationCtx) -> None:
    await ctx.db.insert("things", {})


def saying(word: str) -> Application:
    """An application whose query says so, and how many things there are."""

    @query
    async def look(ctx: QueryCtx) -> list[Any]:
        return [word, await ctx.db.count("things")]

    return load([add, look])


async def test_a_push_in_the_middle_of_a_round_is_not_shown_before_its_time(
    autojump_clock: MockClock,
) -> None:
    runtime = VirtualRuntime()
    shown: list[tuple[bool, Any]] = []
    async with serving(saying("old"), runtime=runtime) as node:
        (path,) = [p for p in node.functions.deployment.application.functions if "look" in p]
        server = Server(node.functions, runtime=runtime, limits=Limits(), config=ServerConfig())
        async with trio.open_nursery() as nursery, running(server, grace_s=5):
            wire = await House(server, Cells(), nursery).dial()
            await wire.add(0, path)
            await wire.hear()
            hold = runtime.hold("fanout.planned")
            await mutate(node, add)
            await hold.wait_reached()
            before_ts = node.published.value
            await node.push(saying("new"))
            hold.release()
            with trio.move_on_after(5):
                while True:
                    message = await wire.hear()
                    is_new = decode_ts(message["endVersion"]["ts"]) > before_ts
                    shown += [(is_new, each["value"]) for each in message["modifications"]]
            nursery.cancel_scope.cancel()

    assert (True, ["new", 1.0]) == shown[-1]
    assert all(value[0] == ("new" if is_new else "old") for is_new, value in shown)


async def test_several_queries_at_one_ts_go_on_when_a_push_comes_between(
    autojump_clock: MockClock,
) -> None:
    async with serving(saying("old")) as node:
        (path,) = [p for p in node.functions.deployment.application.functions if "look" in p]
        config = ServerConfig()
        server = Server(node.functions, runtime=node.runtime, limits=Limits(), config=config)
        async with trio.open_nursery() as nursery, running(server, grace_s=5):
            house = House(server, Cells(), nursery)
            ts = node.published.value
            await mutate(node, add)
            await node.push(saying("new"))
            body = {"path": path, "args": {}, "format": "json", "ts": encode_ts(ts)}
            reply = await house.http("POST", "/api/query_at_ts", body)
            nursery.cancel_scope.cancel()

    assert ["new", 0] == reply.json["value"]
