"""The engine in a trio program."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from engine import (
    ConvexError,
    DeclarationError,
    Engine,
    Failed,
    InvalidValue,
    ListenConfig,
    MutationCtx,
    NotAwaited,
    Ok,
    OutOfRetention,
    PushRefused,
    QueryCtx,
    Schema,
    Stopped,
    StoreLocked,
    Table,
    UsageError,
    mutation,
    query,
    v,
)
from tests.node import hosted

APP = Path(hosted.__file__).parent


@asynccontextmanager
async def opened(data: str | Path = ":memory:") -> AsyncIterator[Engine]:
    async with Engine.open(data, app=APP) as engine:
        yield engine


# What can be opened.


async def test_a_folder_a_file_a_dotted_name_a_module_and_a_list_are_applications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chat.py").write_text(
        "from engine import query\n\n@query\nasync def hello(ctx) -> str:\n    return 'hello'\n"
    )
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "chat.py").write_text((tmp_path / "chat.py").read_text())
    (tmp_path / "shop" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    sources: list[Any] = [tmp_path / "chat.py", str(tmp_path / "shop"), "shop", "chat"]

    found = []
    for source in sources:
        async with Engine.open(":memory:", app=source) as engine:
            found.append(await engine.query("chat:hello"))
    import chat  # type: ignore[import-not-found]  # it is in tmp_path

    async with Engine.open(":memory:", app=chat) as engine:
        found.append(await engine.query("chat:hello"))
    async with Engine.open(":memory:", app=[twice]) as engine:
        found.append(await engine.query(twice, 3))

    assert found == ["hello"] * 5 + [6]
    sys.modules.pop("chat", None)


@query
def twice(ctx: QueryCtx, n: int) -> int:
    return 2 * n


async def test_an_application_that_cannot_be_loaded_leaves_the_directory_free(
    tmp_path: Path,
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")

    with pytest.raises(DeclarationError, match=r"broken.py:1: ZeroDivisionError"):
        async with Engine.open(tmp_path / "data", app=tmp_path / "broken.py"):
            pass

    async with opened(tmp_path / "data") as engine:
        assert await engine.query("messages:bodies") == []


async def test_a_traceback_leads_from_the_opening_into_the_application(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("from engine import Schema\n\nschema = Schema(a=1)\n")

    with pytest.raises(DeclarationError, match="write a=Table") as caught:
        async with Engine.open(":memory:", app=tmp_path / "odd.py"):
            pass

    _, *frames = traceback.extract_tb(caught.value.__traceback__)
    assert ["__aenter__", "open", "_loaded", "load_application", "<module>"] == [
        frame.name for frame in frames
    ]


async def test_whoever_embeds_an_application_is_told_of_globals_that_it_changes(
    tmp_path: Path,
) -> None:
    (tmp_path / "counting.py").write_text(
        "from engine import query\n\nSEEN = []\n\n"
        "@query\nasync def count(ctx) -> None:\n    SEEN.append(1)\n"
    )

    with capture_logs() as traces:
        async with Engine.open(":memory:", app=tmp_path / "counting.py"):
            pass

    (told,) = (each["warning"] for each in traces if each["event"] == "application.doubtful")
    assert "count changes the module's global `SEEN`" in told


async def test_documents_that_do_not_fit_refuse_the_opening_and_leave_the_directory_free(
    tmp_path: Path,
) -> None:
    @mutation
    async def put(ctx: MutationCtx) -> None:
        await ctx.db.insert("things", {"n": 1})

    async with Engine.open(tmp_path, app=[put]) as engine:
        await engine.mutation(put)

    with pytest.raises(PushRefused, match="does not fit"):
        async with Engine.open(tmp_path, app=[put, Schema(things=Table({"n": v.string()}))]):
            pytest.fail("what is there has a number")

    async with Engine.open(tmp_path, app=[put]) as again:
        await again.mutation(put)


async def test_a_directory_that_is_open_here_is_not_opened_twice(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(StoreLocked):
            async with opened(tmp_path):
                pass


async def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        await engine.mutation("messages:send", {"body": "kept"})

    async with opened(tmp_path) as engine:
        assert await engine.query("messages:bodies") == ["kept"]


@pytest.mark.filterwarnings(  # hypercorn leaves the socket that it could not bind to the collector
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
async def test_an_address_that_is_taken_is_an_error_that_names_it() -> None:
    async with opened() as engine, engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as (url,):
        address = url.removeprefix("http://")

        with pytest.raises(OSError, match=re.escape(f"in use ({address})")):
            async with engine.listen(ListenConfig(bind=(address,))):
                pytest.fail("two listen at one address")
    gc.collect()  # here, where the warning is ignored


def test_under_asyncio_it_says_which_host_to_use() -> None:
    async def main() -> None:
        async with opened():
            pass

    with pytest.raises(UsageError, match=r"use engine\.aio under asyncio"):
        asyncio.run(main())


# Calls.


async def test_functions_are_called_as_objects_references_and_paths() -> None:
    async with Engine.open(":memory:", app=[keep, kept]) as engine:
        first = await engine.mutation(keep, "a")
        path = str(keep.path)
        await engine.mutation(path, {"body": "b"})

        assert isinstance(first, str)
        assert await engine.query(kept) == ["a", "b"]
        assert await engine.query(str(kept.path), {}) == ["a", "b"]


@mutation
async def keep(ctx: MutationCtx, body: str) -> str:
    return await ctx.db.insert("messages", {"body": body})


@query
async def kept(ctx: QueryCtx) -> list[str]:
    return [message["body"] async for message in ctx.db.query("messages")]


async def test_internal_functions_can_be_called() -> None:
    async with opened() as engine:
        assert await engine.query("messages:secret") == "secret"


async def test_a_result_is_the_callers_own() -> None:
    async with opened() as engine:
        await engine.mutation("messages:send", {"body": "a"})

        first = await engine.query("messages:documents")
        first[0]["body"] = "changed"

        assert (await engine.query("messages:documents"))[0]["body"] == "a"


async def test_an_error_arrives_as_it_was_raised_with_a_note() -> None:
    async with opened() as engine:
        with pytest.raises(LookupError, match="no such thing") as caught:
            await engine.mutation("messages:fail")

        assert caught.value.__notes__ == ["in messages:fail, request engine-1"]
        assert await engine.query("messages:bodies") == []


async def test_the_very_object_that_was_raised_arrives() -> None:
    thrown = ConvexError({"code": 7})

    @mutation
    async def throw(ctx: MutationCtx) -> None:
        raise thrown

    async with Engine.open(":memory:", app=[throw]) as engine:
        with pytest.raises(ConvexError) as caught:
            await engine.mutation(throw)

    assert caught.value is thrown


async def test_a_traceback_shows_the_call_and_the_handler() -> None:
    async with opened() as engine:
        with pytest.raises(LookupError) as caught:
            await engine.mutation("messages:fail")

    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames == [
        "test_a_traceback_shows_the_call_and_the_handler",
        "mutation",  # the host's, where it is raised to the caller
        "fail",
        "_explode",
    ]


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with opened() as engine, engine.subscribe("messages:bodies"):
            raise ZeroDivisionError


async def test_the_block_can_be_cancelled() -> None:
    with trio.move_on_after(0.05) as scope:
        async with opened():
            await trio.sleep_forever()

    assert scope.cancelled_caught


async def test_after_the_block_calls_say_that_it_was_closed() -> None:
    async with opened() as engine, engine.subscribe("messages:bodies") as results:
        await anext(results)
        later = engine.subscribe("messages:bodies")

    for call in (engine.query, engine.mutation, engine.action):
        with pytest.raises(Stopped, match="the engine was closed; nothing was done"):
            await call("messages:bodies")
    with pytest.raises(Stopped):
        async with later:
            pass


async def test_whoever_follows_a_query_is_told_when_the_engine_closes() -> None:
    async def follow(engine: Engine) -> None:
        async with engine.subscribe("messages:bodies") as results:
            await anext(results)
            with pytest.raises(Stopped):
                await anext(results)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery, opened() as engine:
            nursery.start_soon(follow, engine)
            await trio.testing.wait_all_tasks_blocked()


# Plain functions.


async def test_a_plain_def_can_compute_and_can_return_one_call() -> None:
    @query
    def shout(ctx: QueryCtx, word: str) -> str:
        return word.upper() + "!" * len(ctx.now.tzname() or "")

    @mutation
    def keep_it(ctx: MutationCtx, body: str) -> Any:
        return ctx.db.insert("messages", {"body": body})

    async with Engine.open(":memory:", app=[shout, keep_it, kept]) as engine:
        assert await engine.query(shout, "hey") == "HEY!!!"
        assert isinstance(await engine.mutation(keep_it, "a"), str)
        assert await engine.query(kept) == ["a"]


async def test_a_plain_def_that_drops_a_call_is_told_what_to_write() -> None:
    @mutation
    def drop(ctx: MutationCtx) -> None:
        ctx.db.insert("messages", {"body": "never"})  # type: ignore[unused-coroutine]

    async with Engine.open(":memory:", app=[drop, kept]) as engine:
        with pytest.raises(NotAwaited, match=r"test_hosts_trio\.py:\d+; write `await` .* `async d"):
            await engine.mutation(drop)

        assert await engine.query(kept) == []


# Subscriptions.


async def test_a_subscription_gives_each_change() -> None:
    async with opened() as engine, engine.subscribe("messages:bodies") as results:
        seen = []
        async for bodies in results:
            seen.append(bodies)
            if len(bodies) == 3:
                break
            await engine.mutation("messages:send", {"body": str(len(bodies))})

    assert seen == [[], ["0"], ["0", "1"], ["0", "1", "2"]]


async def test_an_equal_result_is_not_given_again() -> None:
    async with opened() as engine, engine.subscribe("messages:longest") as results:
        assert await anext(results) == 0
        await engine.mutation("messages:send", {"body": "four"})
        assert await anext(results) == 4
        await engine.mutation("messages:send", {"body": "one"})
        with trio.move_on_after(0.1) as waited:
            await anext(results)
        await engine.mutation("messages:send", {"body": "longer"})

        assert waited.cancelled_caught
        assert await anext(results) == 6


async def test_iterating_raises_when_the_query_fails_and_can_go_on() -> None:
    async with opened() as engine, engine.subscribe("messages:no_bombs") as results:
        assert await anext(results) == 0
        await engine.mutation("messages:send", {"body": "bomb"})
        with pytest.raises(LookupError, match="a bomb") as caught:
            await anext(results)
        await engine.mutation("messages:clear")

        assert await anext(results) == 0
        assert caught.value.__notes__[0].startswith("in messages:no_bombs, request engine-")


async def test_states_go_on_after_a_failure_and_tell_when() -> None:
    async with opened() as engine, engine.subscribe("messages:no_bombs") as results:
        states = results.states()
        first = await anext(states)
        bombed = await engine.commit("messages:send", {"body": "bomb"})
        second = await anext(states)
        cleared = await engine.commit("messages:clear")
        third = await anext(states)

    assert first == Ok(0, first.ts)
    assert isinstance(second, Failed)
    assert (str(second.error), second.ts) == ("a bomb", bombed.ts)
    assert third == Ok(0, cleared.ts)


async def test_subscriptions_that_are_closed_leave_nothing_behind() -> None:
    async with opened() as engine:
        before = engine.node.subscriptions.statistics()
        for _ in range(3):
            async with engine.subscribe("messages:bodies") as results:
                await anext(results)
        await engine.mutation("messages:send", {"body": "a"})
        await engine.node.subscriptions.processed.wait_reached(engine.now_ts)

        after = engine.node.subscriptions.statistics()
        assert (after.lives, after.ranges) == (before.lives, before.ranges)


# Timestamps.


async def test_the_past_is_read_by_ts_and_by_datetime() -> None:
    async with opened() as engine:
        first = await engine.commit("messages:send", {"body": "a"})
        await trio.sleep(0.002)
        between = datetime.now(UTC)
        await trio.sleep(0.002)
        await engine.mutation("messages:send", {"body": "b"})

        assert await engine.at(first.ts).query("messages:bodies") == ["a"]
        assert await engine.at(between).query("messages:bodies") == ["a"]
        assert await engine.at(engine.now_ts).query("messages:bodies") == ["a", "b"]
        assert await engine.query("messages:bodies", {}, as_of=first.ts) == ["a"]
        assert await engine.query("messages:bodies", as_of=between) == ["a"]
        assert await engine.query("messages:bodies", as_of=None) == ["a", "b"]


async def test_as_of_is_a_moment_unless_the_function_has_an_argument_of_that_name() -> None:
    @query
    async def bodies(ctx: QueryCtx, upto: str = "z") -> list[str]:
        return [m["body"] async for m in ctx.db.query("messages") if m["body"] <= upto]

    @query
    async def dated(ctx: QueryCtx, as_of: float) -> list[Any]:
        return [as_of, await bodies(ctx)]

    @mutation
    async def send(ctx: MutationCtx, body: str) -> None:
        await ctx.db.insert("messages", {"body": body})

    async with Engine.open(":memory:", app=[bodies, dated, send]) as engine:
        first = await engine.commit(send, "a")
        await engine.mutation(send, "b")
        asked: Any = engine.query

        assert await asked(bodies, as_of=first.ts) == ["a"]
        assert await asked(bodies, upto="a", as_of=None) == ["a"]
        assert await asked(dated, as_of=5) == [5, ["a", "b"]]
        assert await engine.at(first.ts).query(dated, as_of=5) == [5, ["a"]]
        assert await engine.at(first.ts).query(bodies, "a") == ["a"]
        with pytest.raises(InvalidValue, match="aware datetime"):
            await asked(bodies, as_of="yesterday")


async def test_a_moment_after_the_last_commit_sees_everything() -> None:
    async with opened() as engine:
        await engine.mutation("messages:send", {"body": "a"})
        await trio.sleep(0.002)

        assert await engine.at(datetime.now(UTC)).query("messages:bodies") == ["a"]


async def test_a_moment_waits_for_what_was_staged_before_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine, trio.open_nursery() as nursery:
        nursery.start_soon(engine.mutation, "messages:send", {"body": "a"})
        while engine.node.committer.head.ts == engine.now_ts:
            await trio.lowlevel.checkpoint()

        assert await engine.at(datetime.now(UTC)).query("messages:bodies") == ["a"]


@pytest.mark.parametrize(
    ("moment", "error"),
    [
        (datetime.now(UTC) + timedelta(hours=1), OutOfRetention),
        (datetime(2026, 1, 1), InvalidValue),
        (-1, InvalidValue),
        (True, InvalidValue),
        (1.5, InvalidValue),
    ],
)
async def test_moments_that_are_none_are_refused(moment: Any, error: type[Exception]) -> None:
    async with opened() as engine:
        with pytest.raises(error):
            await engine.at(moment).query("messages:bodies")


# Another version.


async def test_a_push_replaces_the_functions_and_a_failed_one_does_not() -> None:
    @query(name="hello")
    async def first(ctx: QueryCtx) -> str:
        return "first"

    @query(name="hello")
    async def second(ctx: QueryCtx) -> str:
        return "second"

    async with (
        Engine.open(":memory:", app=[first]) as engine,
        engine.subscribe(first) as results,
    ):
        assert await anext(results) == "first"
        with pytest.raises(DeclarationError):
            await engine.push("no/such/folder")
        assert await engine.query(first) == "first"
        await engine.push([second])

        assert await anext(results) == "second"
