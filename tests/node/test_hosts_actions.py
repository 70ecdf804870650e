"""Actions on trio, in threads and on asyncio, with the libraries that people use there."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from engine import (
    ActionCtx,
    BlockingActionCtx,
    Engine,
    FunctionAborted,
    FunctionTimeout,
    Limits,
    MutationCtx,
    NotAllowed,
    QueryCtx,
    action,
    mutation,
    query,
)
from engine.functions.results import Caller
from tests.node import hosted

APP = Path(hosted.__file__).parent
LOOPS = ("on_trio", "in_a_thread", "on_asyncio")


@asynccontextmanager
async def opened(**limits: Any) -> AsyncIterator[Engine]:
    async with Engine.open(":memory:", app=APP, limits=Limits(**limits)) as engine:
        yield engine


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page")

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextmanager
def web_server() -> Iterator[str]:
    """A real server with one page; gives its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def log_lines(engine: Engine, path: str) -> tuple[str, ...]:
    """What the last run of a function logged."""
    records = [record for _, record in engine.node.functions.executions.after(0)]
    return next(record.log_lines for record in reversed(records) if record.path == path)


def outside() -> ModuleType:
    """The module that the engine has loaded."""
    import hosted.outside  # type: ignore[import-not-found]  # as the application is imported

    return hosted.outside  # type: ignore[no-any-return]


@pytest.mark.parametrize("loop", LOOPS)
async def test_an_action_fetches_and_writes_and_logs_wherever_it_runs(loop: str) -> None:
    with web_server() as url:
        async with opened() as engine:
            count = await engine.action(f"outside:fetch_{loop}", {"url": url})
            found = await engine.query("messages:bodies")
            lines = log_lines(engine, f"outside:fetch_{loop}")

    assert (count, found) == (1, ["a page"])
    ours = [line for line in lines if "HTTP Request" not in line]
    assert ours == [f"[LOG] 'fetching' '{url}'", "[WARN] 'fetched 6'"]


@pytest.mark.parametrize("loop", LOOPS)
async def test_an_error_of_an_action_arrives_from_wherever_it_runs(loop: str) -> None:
    async with opened() as engine:
        with pytest.raises(LookupError, match=loop.rpartition("_")[2]) as caught:
            await engine.action(f"outside:fail_{loop}")

    assert caught.value.__notes__ == [f"in outside:fail_{loop}, request engine-1"]


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_client_is_shown_frames_of_the_application_only(loop: str) -> None:
    async with opened() as engine:
        path = f"outside:fail_{loop}"
        result = await engine.node.functions.action(path, {}, caller=Caller(admin=True))

    assert result.failure is not None
    _, *frames = result.failure.message.splitlines()
    assert frames
    assert [] == [frame for frame in frames if "(outside.py:" not in frame]


@pytest.mark.parametrize("loop", LOOPS)
async def test_an_action_that_exits_ends_only_itself(loop: str) -> None:
    async with opened() as engine:
        with pytest.raises(FunctionAborted, match=r"SystemExit\(3\)"):
            await engine.action(f"outside:exit_{loop}")

        assert await engine.query("messages:bodies") == []


@pytest.mark.parametrize("loop", LOOPS)
async def test_an_action_that_takes_too_long_is_ended(loop: str) -> None:
    async with opened(action_time_s_max=0.1) as engine:
        began = trio.current_time()
        with pytest.raises(FunctionTimeout, match=rf"outside:sleep_{loop} ran longer than 0.1 s"):
            await engine.action(f"outside:sleep_{loop}")
        took_s = trio.current_time() - began
        ended = outside().ENDED
        with trio.fail_after(5):
            while not ended:  # noqa: ASYNC110 - a thread ends when it next uses its ctx
                await trio.sleep(0.01)

    assert ended == [loop.rpartition("_")[2]]
    assert took_s < 2


@pytest.mark.parametrize("loop", LOOPS)
async def test_an_action_ends_when_its_caller_is_cancelled(loop: str) -> None:
    async with opened() as engine:
        with trio.move_on_after(0.1):
            await engine.action(f"outside:sleep_{loop}")
        ended = outside().ENDED
        with trio.fail_after(5):
            while not ended:  # noqa: ASYNC110 - a thread ends when it next uses its ctx
                await trio.sleep(0.01)

    assert ended == [loop.rpartition("_")[2]]


async def test_a_task_that_an_action_leaves_behind_is_cancelled_and_named() -> None:
    async with opened() as engine:
        await engine.action("outside:leave_a_task")
        lines = log_lines(engine, "outside:leave_a_task")

        assert outside().ENDED[1:] == ["leftover"]
    assert lines == (
        "[WARN] 'leave_a_task.<locals>.linger was still running when the action ended, "
        "and was cancelled'",
    )


async def test_a_call_that_was_never_awaited_never_ran_and_is_named() -> None:
    async with opened() as engine:
        await engine.action("outside:forget_to_await")

        assert await engine.query("messages:bodies") == []
        assert log_lines(engine, "outside:forget_to_await") == (
            "[WARN] 'run_mutation(messages:send) was called and never awaited, so it never ran'",
        )


@pytest.mark.parametrize("loop", ["on_trio", "on_asyncio"])
async def test_calls_can_be_tasks(loop: str) -> None:
    async with opened() as engine:
        assert await engine.action(f"outside:several_{loop}") == ["a", "b", "c"]


async def test_actions_of_different_loops_call_each_other() -> None:
    async with opened() as engine:
        assert await engine.action("outside:call_an_asyncio_action") == ["a", "b", "c"]


async def test_an_action_that_cancels_itself_has_failed() -> None:
    async with opened() as engine:
        with pytest.raises(FunctionAborted, match="CancelledError"):
            await engine.action("outside:cancel_itself")


@pytest.mark.parametrize("loop", ["in_a_thread", "on_asyncio"])
async def test_identity_and_scheduler_work_wherever_an_action_runs(loop: str) -> None:
    async with opened() as engine:
        assert await engine.action(f"outside:who_{loop}") == [None, True, True]


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_ctx_that_was_kept_is_closed(loop: str) -> None:
    async with opened() as engine:
        await engine.action(f"outside:keep_ctx_{loop}")
        [ctx] = outside().KEPT

        with pytest.raises(NotAllowed, match="has ended; its ctx cannot be used any more"):
            ctx.run_query("messages:bodies")


@action
async def look_on_trio(ctx: ActionCtx) -> None:
    getattr(ctx, "db")  # noqa: B009 - type checkers know that there is none


@action
def look_in_a_thread(ctx: BlockingActionCtx) -> None:
    getattr(ctx, "db")  # noqa: B009


@action(loop="asyncio")
async def look_on_asyncio(ctx: ActionCtx) -> None:
    getattr(ctx, "db")  # noqa: B009


@pytest.mark.parametrize("look", [look_on_trio, look_in_a_thread, look_on_asyncio], ids=LOOPS)
async def test_an_action_that_asks_for_a_database_is_told_what_to_call(look: Any) -> None:
    wait = "" if look is look_in_a_thread else "await "
    async with Engine.open(":memory:", app=[look]) as engine:
        with pytest.raises(NotAllowed) as refused:
            await engine.action(look)

    assert "an action has no database" in str(refused.value)
    assert f"{wait}ctx.run_query(...) or {wait}ctx.run_mutation(...)" in str(refused.value)


async def test_an_action_that_asks_on_and_on_lets_others_answer() -> None:
    @query
    async def count(ctx: QueryCtx) -> int:
        return await ctx.db.count("bells")

    @mutation
    async def ring(ctx: MutationCtx) -> None:
        await ctx.db.insert("bells", {})

    @action
    async def wait(ctx: ActionCtx) -> int:
        for _ in range(100_000):
            if found := await ctx.run_query(count):
                return found
        return 0

    async with (
        Engine.open(":memory:", app=[count, ring, wait]) as engine,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(engine.mutation, ring)

        assert 1 == await engine.action(wait)


async def test_the_engine_goes_on_while_an_action_blocks_its_thread() -> None:
    async with opened(action_time_s_max=5) as engine, trio.open_nursery() as nursery:
        nursery.start_soon(engine.action, "outside:block_a_thread")
        await trio.sleep(0.05)
        began = trio.current_time()
        for _ in range(20):
            await engine.mutation("messages:send", {"body": "x"})
        took_s = trio.current_time() - began
        outside().RELEASED.set()

    assert took_s < 1
