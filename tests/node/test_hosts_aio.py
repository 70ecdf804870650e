"""The engine in an asyncio program."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import fastapi
import httpx
import pytest
import uvicorn

from engine import (
    DeclarationError,
    Failed,
    ListenConfig,
    Ok,
    OutcomeUnknown,
    Stopped,
    StoreFailed,
    StoreLocked,
    UsageError,
    aio,
)
from engine.store.memory_store import MemoryStore
from tests.node import hosted

APP = Path(hosted.__file__).parent

T = TypeVar("T")


def under_asyncio(story: Coroutine[Any, Any, T]) -> T:
    """Run a test's story; nothing may be left over."""

    async def main() -> T:
        return await asyncio.wait_for(story, 30)

    return asyncio.run(main(), debug=True)


def opened(data: str | Path = ":memory:") -> aio.Opening[aio.Engine]:
    return aio.open(data, app=APP)


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 - what it asks about tells nobody
        await asyncio.sleep(0.005)


def ended() -> list[str]:
    """What the actions of this engine have unwound."""
    import hosted.outside  # type: ignore[import-not-found]  # as the application is imported

    return hosted.outside.ENDED  # type: ignore[no-any-return]


# The same methods.


def test_everything_that_can_be_called_is_called_from_asyncio() -> None:
    async def story() -> list[Any]:
        async with opened() as engine:
            sent = await engine.commit("messages:send", {"body": "a"})
            await engine.mutation("messages:send", {"body": "b"})
            return [
                engine.now_ts > sent.ts,
                await engine.query("messages:bodies"),
                await engine.at(sent.ts).query("messages:bodies"),
                await engine.action("outside:several_on_trio"),
            ]

    assert under_asyncio(story()) == [True, ["a", "b"], ["a"], ["a", "a", "b", "b", "c"]]


def test_a_subscription_gives_each_change_and_its_failures() -> None:
    async def story() -> None:
        async with opened() as engine, engine.subscribe("messages:no_bombs") as results:
            states = results.states()
            first = await anext(states)
            bombed = await engine.commit("messages:send", {"body": "bomb"})
            second = await anext(states)
            await engine.mutation("messages:clear")

            assert first == Ok(0, first.ts)
            assert isinstance(second, Failed)
            assert (str(second.error), second.ts) == ("a bomb", bombed.ts)
            assert await anext(results) == 0

    under_asyncio(story())


def test_an_error_arrives_as_it_was_raised_with_a_note() -> None:
    async def story() -> None:
        async with opened() as engine:
            await engine.mutation("messages:fail")

    with pytest.raises(LookupError, match="no such thing") as caught:
        under_asyncio(story())

    assert caught.value.__notes__ == ["in messages:fail, request engine-1"]


def test_another_version_is_pushed() -> None:
    async def story() -> str:
        async with opened() as engine:
            with pytest.raises(DeclarationError):
                await engine.push("no/such/folder")
            await engine.push(APP)
            return str(await engine.query("messages:secret"))

    assert under_asyncio(story()) == "secret"


# Nobody holds up the other.


def test_a_function_that_computes_does_not_hold_up_the_loop() -> None:
    async def story() -> float:
        async with opened() as engine:
            spinning = asyncio.create_task(engine.query("messages:spin", {"turns": 5_000_000}))
            longest = 0.0
            while not spinning.done():
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                longest = max(longest, time.perf_counter() - began)
            await spinning
            return longest

    assert under_asyncio(story()) < 0.15


def test_a_loop_that_is_blocked_does_not_hold_up_a_commit() -> None:
    async def story() -> bool:
        async with opened() as engine:
            before = engine.now_ts
            sending = asyncio.create_task(engine.mutation("messages:send", {"body": "a"}))
            await asyncio.sleep(0)
            deadline = time.monotonic() + 5
            while engine.now_ts == before and time.monotonic() < deadline:
                time.sleep(0.005)  # noqa: ASYNC251 - a host that does what it should not
            committed = engine.now_ts > before
            await sending
            return committed

    assert under_asyncio(story())


def test_calls_at_the_same_time_share_a_batch(tmp_path: Path) -> None:
    async def story() -> tuple[int, int]:
        async with opened(tmp_path) as engine:
            batches = engine._engine.node.committer.stats["batches"]
            await asyncio.gather(
                *[engine.mutation("messages:send", {"body": str(n)}) for n in range(200)]
            )
            found = await engine.query("messages:bodies")
            return len(found), engine._engine.node.committer.stats["batches"] - batches

    count, batches = under_asyncio(story())

    assert count == 200
    assert batches < count


# Cancellation.


def test_a_cancelled_task_cancels_its_call_and_waits_for_its_end() -> None:
    async def story() -> list[str]:
        async with opened() as engine:
            acting = asyncio.create_task(engine.action("outside:sleep_on_trio"))
            await asyncio.sleep(0.1)
            acting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await acting
            return list(ended())

    assert under_asyncio(story()) == ["trio"]


def test_a_result_that_came_as_its_waiter_gave_up_is_not_lost() -> None:
    async def story() -> list[int]:
        async with opened() as engine, engine.subscribe("messages:no_bombs") as results:
            await anext(results)
            seen: list[int] = []
            for number in range(1, 30):
                waiting = asyncio.create_task(anext(results))
                sending = asyncio.create_task(engine.mutation("messages:send", {"body": "x"}))
                await asyncio.sleep(0.0002 * (number % 7))
                waiting.cancel()
                await asyncio.wait([waiting, sending])
                newest = seen[-1] if seen else 0
                if not waiting.cancelled():
                    newest = waiting.result()
                while newest < number:
                    newest = await asyncio.wait_for(anext(results), 5)
                seen.append(newest)
            return seen

    assert under_asyncio(story()) == list(range(1, 30))


def test_opening_can_be_given_up(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\n\ntime.sleep(0.3)\n")

    async def story() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                aio.open(tmp_path / "data", app=tmp_path / "slow.py").__aenter__(), 0.05
            )
        async with opened(tmp_path / "data") as engine:
            await engine.query("messages:bodies")

    under_asyncio(story())


# Opening and closing.


def test_an_engine_can_be_awaited_and_closed() -> None:
    async def story() -> None:
        opening = opened()
        engine = await opening
        await engine.mutation("messages:send", {"body": "a"})
        with pytest.raises(UsageError):
            await opening
        await engine.close()
        await engine.close()
        with pytest.raises(Stopped):
            await engine.query("messages:bodies")

    under_asyncio(story())


def test_a_directory_that_is_taken_is_refused_to_whoever_opens_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(tmp_path):
            with pytest.raises(StoreLocked):
                await opened(tmp_path)

    under_asyncio(story())


def test_closing_lets_calls_finish_and_ends_subscriptions(tmp_path: Path) -> None:
    async def story() -> None:
        engine = await opened(tmp_path)
        async with engine.subscribe("messages:bodies") as results:
            await anext(results)
            acting = asyncio.create_task(engine.action("outside:send_late", {"body": "a"}))
            following = asyncio.create_task(_follow(results))
            await asyncio.sleep(0)
            await engine.close()
            await acting
            with pytest.raises(Stopped):
                await following
        async with opened(tmp_path) as again:
            assert await again.query("messages:bodies") == ["a"]

    under_asyncio(story())


async def _follow(results: Any) -> None:
    async for _ in results:
        pass


def test_an_engine_that_fails_says_so_to_callers_and_at_the_end() -> None:
    async def story() -> None:
        engine = await opened()
        store = engine._engine.node.store
        assert isinstance(store, MemoryStore)
        store.fail_next(StoreFailed("the disk is on fire"))
        with pytest.raises(OutcomeUnknown):
            await engine.mutation("messages:send", {"body": "a"})
        await until(engine._thread.ended.done)
        with pytest.raises(Stopped, match=r"the engine had failed .*on fire"):
            await engine.query("messages:bodies")
        with pytest.raises(ExceptionGroup) as caught:
            await engine.close()
        assert caught.group_contains(StoreFailed, match="on fire")

    under_asyncio(story())


# A notebook: cells of __main__ under a loop that already runs.

NOTEBOOK = '''
import ast, asyncio, inspect

CELLS = ["""
from engine import MutationCtx, QueryCtx, aio, mutation, query

@mutation
async def send(ctx: MutationCtx, body: str) -> str:
    return await ctx.db.insert("messages", {"body": body})

@query
async def bodies(ctx: QueryCtx) -> list[str]:
    return [m["body"] async for m in ctx.db.query("messages")]
""", """
engine = await aio.open(":memory:", app=[send, bodies])
await engine.mutation(send, "a")
print(await engine.query(bodies))
""", """
@query
async def bodies(ctx: QueryCtx, upper: bool = False) -> list[str]:
    found = [m["body"] async for m in ctx.db.query("messages")]
    return [body.upper() for body in found] if upper else found

await engine.push([send, bodies])
print(await engine.query(bodies, upper=True))
""", """
async with engine.subscribe(bodies) as results:
    print(await anext(results))
    await engine.mutation(send, body="b")
    print(await anext(results))
"""]

async def notebook():
    for number, cell in enumerate(CELLS):
        code = compile(cell, f"<cell {number}>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, globals())
        if inspect.iscoroutine(result):
            await result

asyncio.run(notebook())
'''


def test_a_notebook_defines_calls_and_defines_again(tmp_path: Path) -> None:
    script = tmp_path / "notebook.py"
    script.write_text(NOTEBOOK)

    # The engine is never closed: it closes as the interpreter exits.
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["['a']", "['A']", "['a']", "['a', 'b']"]


# Under FastAPI and uvicorn.


@asynccontextmanager
async def mounted(prefix: str) -> AsyncIterator[tuple[aio.Engine, str]]:
    """FastAPI with an engine at a prefix, under uvicorn; gives it and its URL."""
    async with opened() as engine:
        web = fastapi.FastAPI()

        @web.get("/hello")
        async def hello() -> list[str]:
            found: list[str] = await engine.query("messages:bodies")
            return found

        web.mount(prefix, engine.asgi)
        config = uvicorn.Config(web, port=0, log_level="error", ws="wsproto", lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield engine, f"http://127.0.0.1:{port}{prefix}"
        finally:
            server.should_exit = True
            await serving


def test_a_mounted_engine_is_called_beside_the_hosts_own_routes() -> None:
    async def story() -> list[Any]:
        async with mounted("/convex") as (_, url), httpx.AsyncClient() as client:
            call = {"path": "messages:send", "args": {"body": "a"}}
            sent = await client.post(f"{url}/api/mutation", json=call)
            own = await client.get(url.replace("/convex", "/hello"))
            version = await client.get(f"{url}/version")
            return [sent.json()["status"], own.json(), version.status_code]

    assert under_asyncio(story()) == ["success", ["a"], 200]


def test_a_program_without_a_server_of_its_own_can_listen_to_clients() -> None:
    async def story() -> tuple[Any, ...]:
        call = {"path": "messages:send", "args": {"body": "a"}}
        async with opened() as engine, httpx.AsyncClient() as client:
            async with engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as (url,):
                sent = await client.post(f"{url}/api/mutation", json=call)
            with pytest.raises(httpx.ConnectError):
                await client.post(f"{url}/api/mutation", json=call)
            return sent.json()["status"], await engine.query("messages:bodies")

    assert under_asyncio(story()) == ("success", ["a"])


def test_listening_ends_with_the_task_that_listens() -> None:
    async def story() -> list[str]:
        async with opened() as engine:
            urls: list[str] = []

            async def listen() -> None:
                async with engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as (url,):
                    urls.append(url)
                    await asyncio.Event().wait()

            listening = asyncio.create_task(listen())
            await until(lambda: urls)
            listening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await listening
            async with httpx.AsyncClient() as client:
                with pytest.raises(httpx.ConnectError):
                    await client.get(urls[0])
            await engine.mutation("messages:send", {"body": "a"})
            return cast("list[str]", await engine.query("messages:bodies"))

    assert under_asyncio(story()) == ["a"]


def test_a_mounted_engine_has_live_queries() -> None:
    async def story() -> list[list[str]]:
        async with (
            mounted("/deep/prefix") as (_, url),
            aio.connect(url) as far,
            far.subscribe("messages:bodies") as results,
        ):
            seen = [await anext(results)]
            await far.mutation("messages:send", {"body": "a"})
            seen.append(await anext(results))
            return seen

    assert under_asyncio(story()) == [[], ["a"]]


def test_a_client_that_leaves_is_noticed() -> None:
    async def story() -> list[int]:
        async with mounted("/convex") as (engine, url):
            sessions = engine._engine.server
            async with aio.connect(url) as far, far.subscribe("messages:bodies") as results:
                await anext(results)
                during = sessions.statistics().sessions
            await until(lambda: sessions.statistics().sessions == 0)
            return [during, sessions.statistics().sessions]

    assert under_asyncio(story()) == [1, 0]


def test_a_client_that_is_there_when_the_engine_closes_is_sent_away() -> None:
    async def story() -> None:
        async with mounted("/convex") as (engine, url), aio.connect(url) as far:
            async with far.subscribe("messages:bodies") as results:
                await anext(results)
                await engine.close()
            with pytest.raises(Stopped):
                await far.query("messages:bodies")

    under_asyncio(story())
