"""What the log keeps of a call, and what it does not."""

from __future__ import annotations

from typing import Any, TypedDict

import trio

from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.app.registered import loading
from engine.app.registry import Application, functions_of
from engine.app.types import Secret
from engine.functions.results import Caller
from engine.functions.watchdog import Watchdog
from engine.kernel.runtime import VirtualRuntime
from engine.log.records import decode_record
from engine.model.limits import Limits
from engine.node import running_node
from engine.store.interface import Tree
from engine.store.memory_store import MemoryStore


@mutation
async def plain(ctx: MutationCtx, name: str) -> None:
    await ctx.db.insert("things", {"name": name})


@mutation(record=False)
async def unrecorded(ctx: MutationCtx, name: str) -> None:
    await ctx.db.insert("things", {})


@mutation
async def secretive(ctx: MutationCtx, name: str, password: Secret[str]) -> None:
    await ctx.db.insert("things", {"name": name})


class Login(TypedDict):
    user: str
    password: Secret[str]


@mutation
async def secretive_within(
    ctx: MutationCtx, /, name: str, login: Login, **more: Secret[str]
) -> None:
    await ctx.db.insert("things", {"name": name})


@mutation
async def changing(ctx: MutationCtx, names: list[str], options: Any) -> None:
    names.append("mine")
    options["inner"]["mine"] = True
    await ctx.db.insert("things", {"names": names})


async def recorded(**calls: dict[str, Any]) -> dict[str, Any]:
    """Call functions and return what the log has of their arguments."""
    store = MemoryStore()
    watchdog = Watchdog(Limits())
    watchdog.start()
    functions: dict[str, Any] = {
        "plain": plain,
        "unrecorded": unrecorded,
        "secretive": secretive,
        "secretive_within": secretive_within,
        "changing": changing,
    }
    with loading("t"):
        for function in functions.values():
            function.module = "t"
    application = Application(functions=functions_of("t", functions), digest="d")
    async with running_node(
        store, runtime=VirtualRuntime(), limits=Limits(), watchdog=watchdog
    ) as node:
        await node.push(application)
        for name, args in calls.items():
            result = await node.functions.mutation(f"t:{name}", args, caller=Caller())
            assert result.failure is None, result.failure
    watchdog.close()
    with store.snapshot() as snapshot:
        records = [decode_record(data) for _, data in snapshot.range(Tree.LOG, b"", None)]
    return {
        r.source.path: r.source.args
        for r in records
        if r.source.path in dict.fromkeys(f"t:{name}" for name in calls)
    }


async def test_arguments_are_recorded_unless_a_function_says_no(
    autojump_clock: trio.testing.MockClock,
) -> None:
    found = await recorded(plain={"name": "a"}, unrecorded={"name": "b"})

    assert {"t:plain": {"name": "a"}, "t:unrecorded": None} == found


async def test_a_handler_that_changes_its_arguments_changes_only_its_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    given = {"names": ["given"], "options": {"inner": {}}}

    found = await recorded(changing=given)

    assert {"t:changing": {"names": ["given"], "options": {"inner": {}}}} == found
    assert {"names": ["given"], "options": {"inner": {}}} == given


async def test_a_secret_argument_never_reaches_the_log(
    autojump_clock: trio.testing.MockClock,
) -> None:
    found = await recorded(secretive={"name": "a", "password": "hunter2"})

    assert {"t:secretive": {"name": "a"}} == found


async def test_a_secret_within_an_argument_never_reaches_the_log(
    autojump_clock: trio.testing.MockClock,
) -> None:
    login = {"user": "a", "password": "hunter2"}

    found = await recorded(secretive_within={"name": "a", "login": login, "pin": "1234"})

    assert {"t:secretive_within": {"name": "a"}} == found
