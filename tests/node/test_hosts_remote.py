"""An engine that runs elsewhere, called as if it were here."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio

from engine import (
    ArgumentValidationError,
    ConvexError,
    Engine,
    Failed,
    FunctionFailed,
    FunctionNotFound,
    Int64,
    ListenConfig,
    Ok,
    OutcomeUnknown,
    OutOfRetention,
    ServerConfig,
    Unauthenticated,
    Unreachable,
    UsageError,
    aio,
    blocking,
)
from engine.interface import Target
from engine.kernel.runtime import Runtime, SystemRuntime
from engine.remote import RemoteEngine
from engine.remote.calls import RemoteCallee
from engine.remote.requests import open_requests
from engine.remote.subscriptions import RemoteSubscriptions
from tests.node import hosted

APP = Path(hosted.__file__).parent
KEY = "test|secret"


@asynccontextmanager
async def served(
    data: str | Path = ":memory:",
    *,
    port: int = 0,
    redact: bool = False,
    runtime: Runtime | None = None,
) -> AsyncIterator[tuple[Engine, str]]:
    """An engine and the URL that it listens at."""
    config = ServerConfig(admin_key=KEY, redact=redact)
    bind = ListenConfig(bind=(f"127.0.0.1:{port}",))
    async with (
        Engine.open(data, app=APP, server=config, runtime=runtime) as engine,
        engine.listen(bind) as (url,),
    ):
        yield engine, url


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[RemoteEngine]:
    async with served(**options) as (_, url), Engine.connect(url, admin_key=KEY) as far:
        yield far


# The same methods, on each of the hosts.


async def test_everything_that_can_be_called_is_called_from_afar() -> None:
    async with connected() as far:
        sent = await far.commit("messages:send", {"body": "a"})
        assert far.now_ts == sent.ts
        await far.mutation("messages:send", {"body": "b"})

        assert far.now_ts > sent.ts
        assert await far.query("messages:bodies") == ["a", "b"]
        assert await far.at(sent.ts).query("messages:bodies") == ["a"]
        assert await far.query("messages:bodies", as_of=sent.ts) == ["a"]
        assert await far.at(datetime.now(UTC)).query("messages:bodies") == ["a", "b"]
        assert await far.action("outside:several_on_trio") == ["a", "a", "b", "b", "c"]
        with pytest.raises(OutOfRetention):
            await far.at(far.now_ts + 10**12).query("messages:bodies")


class MovedRuntime(SystemRuntime):
    """The system's clocks, moved by so much."""

    def __init__(self) -> None:
        super().__init__()
        self.later_s = 0.0
        self.wall_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.later_s

    def now_ns(self) -> int:
        return super().now_ns() + round((self.later_s + self.wall_s) * 1e9)


async def test_the_far_past_is_for_administrators() -> None:
    runtime = MovedRuntime()
    async with served(runtime=runtime) as (engine, url), Engine.connect(url) as anybody:
        first = await engine.commit("messages:send", {"body": "a"})
        runtime.later_s += 600  # nothing is written, so it is the newest for as long
        assert await anybody.at(first.ts).query("messages:bodies") == ["a"]
        second = await engine.commit("messages:send", {"body": "b"})

        # It is ten minutes old, and was replaced a moment ago.
        assert await anybody.at(first.ts).query("messages:bodies") == ["a"]

        runtime.later_s += 29
        assert await anybody.at(first.ts).query("messages:bodies") == ["a"]

        runtime.later_s += 2
        runtime.wall_s -= 600
        # Nothing was written since; what was replaced by then is past nevertheless.
        assert await anybody.at(second.ts).query("messages:bodies") == ["a", "b"]
        with pytest.raises(OutOfRetention, match="the past is for administrators"):
            await anybody.at(first.ts).query("messages:bodies")
        async with Engine.connect(url, admin_key=KEY) as admin:
            assert await admin.at(first.ts).query("messages:bodies") == ["a"]


async def test_what_was_replaced_before_the_engine_began_is_past(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as (engine, _):
        first = await engine.commit("messages:send", {"body": "a"})
        second = await engine.commit("messages:send", {"body": "b"})

    async with served(tmp_path / "data") as (_, url), Engine.connect(url) as anybody:
        assert await anybody.at(second.ts).query("messages:bodies") == ["a", "b"]
        with pytest.raises(OutOfRetention, match="the past is for administrators"):
            await anybody.at(first.ts).query("messages:bodies")


async def test_from_asyncio_and_from_threads_likewise() -> None:
    def from_a_thread(url: str) -> list[str]:
        with blocking.connect(url) as far, far.subscribe("messages:bodies") as results:
            next(results)
            far.mutation("messages:send", {"body": "thread"})
            return next(results)

    def from_asyncio(url: str) -> list[str]:
        async def story() -> list[str]:
            async with aio.connect(url) as far, far.subscribe("messages:bodies") as results:
                await anext(results)
                await far.mutation("messages:send", {"body": "asyncio"})
                return await anext(results)

        return asyncio.run(story())

    async with served() as (_, url):
        first = await trio.to_thread.run_sync(from_a_thread, url)
        second = await trio.to_thread.run_sync(from_asyncio, url)

    assert first == ["thread"]
    assert second == ["thread", "asyncio"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -0.0,
        1.5,
        math.inf,
        Int64(7),
        "snow ☃",
        b"\x00\xff",
        [1, [Int64(2)]],
        {"a": {"b": None}},
    ],
)
async def test_a_value_comes_back_as_it_went(value: Any) -> None:
    async with connected() as far:
        back = await far.query("messages:echo", {"value": value})

    assert (back, type(back)) == (value, type(value))
    assert str(back) == str(value)


async def test_functions_are_objects_where_the_application_is_at_hand(tmp_path: Path) -> None:
    (tmp_path / "note.py").write_text(
        "from engine import mutation\n\n"
        "@mutation\nasync def send(ctx, body: str) -> str:\n    return body\n"
    )
    source = tmp_path / "note.py"
    bind = ListenConfig(bind=("127.0.0.1:0",))
    async with (
        Engine.open(":memory:", app=source) as engine,
        engine.listen(bind) as (url,),
        Engine.connect(url, app=source) as far,
    ):
        import note  # type: ignore[import-not-found]  # it is in tmp_path

        assert await far.mutation(note.send, "a") == "a"


# Who may.


async def test_without_the_key_one_is_any_client() -> None:
    async with served() as (_, url), Engine.connect(url) as far:
        assert await far.query("messages:bodies") == []
        with pytest.raises(FunctionNotFound):
            await far.query("messages:secret")


async def test_with_the_key_internal_functions_can_be_called_and_followed() -> None:
    async with connected() as far, far.subscribe("messages:secret") as results:
        assert await far.query("messages:secret") == "secret"
        assert await anext(results) == "secret"


async def test_a_wrong_key_is_refused_at_once() -> None:
    async with served() as (_, url):
        with pytest.raises(Unauthenticated):
            async with Engine.connect(url, admin_key="test|wrong"):
                pass


async def test_where_nobody_is_it_says_so() -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"

    with pytest.raises(Unreachable, match="does not answer"):
        async with Engine.connect(url):
            pass


async def test_where_something_else_is_it_asks_for_the_prefix() -> None:
    with (
        answering(404, b"no such page") as url,
        pytest.raises(Unreachable, match="with the prefix that the engine is mounted at"),
    ):
        async with Engine.connect(url):
            pass


# Errors.


async def test_an_error_with_data_arrives_with_its_data() -> None:
    async with connected(redact=True) as far:
        with pytest.raises(ConvexError) as caught:
            await far.mutation("messages:refuse", {"data": {"code": Int64(7)}})

    assert caught.value.data == {"code": Int64(7)}
    assert caught.value.__notes__[0].startswith("in messages:refuse, request ")


async def test_an_error_of_the_engine_arrives_as_what_it_is() -> None:
    async with connected() as far:
        with pytest.raises(ArgumentValidationError, match="Value does not match validator"):
            await far.mutation("messages:send", {"body": 5})
        with pytest.raises(FunctionNotFound, match="Did you mean 'messages:send'"):
            await far.mutation("messages:sent")


async def test_an_error_of_the_application_arrives_in_words() -> None:
    async with connected() as far:
        with pytest.raises(FunctionFailed, match="LookupError: no such thing") as caught:
            await far.mutation("messages:fail")

    assert "_explode" in str(caught.value)


async def test_in_production_the_words_are_left_out() -> None:
    async with served(redact=True) as (_, url), Engine.connect(url) as far:
        with pytest.raises(FunctionFailed, match="the server does not say why"):
            await far.mutation("messages:fail")


async def test_a_call_without_an_answer_is_told_by_whether_it_may_have_changed_something() -> None:
    target = Target("", "messages:send", {})
    with hanging_up() as url, trio.fail_after(10):
        async with open_requests(url, None) as requests, trio.open_nursery() as nursery:
            callee = RemoteCallee(requests, RemoteSubscriptions(url, None, nursery))

            with pytest.raises(OutcomeUnknown, match="may or may not be done"):
                await callee.mutation(target)
            with pytest.raises(OutcomeUnknown):
                await callee.action(target)
            with pytest.raises(Unreachable):
                await callee.query(target, None)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A web server that is no engine."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def hanging_up() -> Iterator[str]:
    """A server that takes requests and hangs up."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


# Subscriptions.


async def test_states_go_on_after_a_failure_and_tell_when() -> None:
    async with connected() as far, far.subscribe("messages:no_bombs") as results:
        states = results.states()
        first = await anext(states)
        bombed = await far.commit("messages:send", {"body": "bomb"})
        second = await anext(states)
        cleared = await far.commit("messages:clear")
        third = await anext(states)

    assert first == Ok(0, first.ts)
    assert isinstance(second, Failed)
    assert isinstance(second.error, FunctionFailed)
    assert "a bomb" in str(second.error)
    assert second.ts >= bombed.ts
    assert isinstance(third, Ok)
    assert (third.value, third.ts >= cleared.ts) == (0, True)


async def test_many_subscriptions_share_one_connection() -> None:
    async with served() as (engine, url), Engine.connect(url) as far:
        async with (
            far.subscribe("messages:bodies") as bodies,
            far.subscribe("messages:no_bombs") as count,
        ):
            assert await anext(bodies) == []
            assert await anext(count) == 0
            sessions = engine.server.statistics().sessions
            await far.mutation("messages:send", {"body": "a"})

            assert await anext(bodies) == ["a"]
            assert await anext(count) == 1
        async with far.subscribe("messages:bodies") as again:
            assert await anext(again) == ["a"]

    assert sessions == 1


async def test_a_subscription_outlives_its_server(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    async with trio.open_nursery() as nursery:
        stop, stopped = trio.Event(), trio.Event()

        async def first_life(task_status: trio.TaskStatus[str]) -> None:
            async with served(tmp_path, port=port) as (_, url):
                task_status.started(url)
                await stop.wait()
            stopped.set()

        url = await nursery.start(first_life)
        async with Engine.connect(url) as far, far.subscribe("messages:bodies") as results:
            assert await anext(results) == []
            stop.set()
            await stopped.wait()
            async with served(tmp_path, port=port) as (engine, _):
                await engine.mutation("messages:send", {"body": "after"})
                with trio.fail_after(15):
                    assert await anext(results) == ["after"]


async def test_an_equal_result_is_not_given_again_after_a_new_connection() -> None:
    async with (
        served() as (engine, url),
        Engine.connect(url) as far,
        far.subscribe("messages:bodies") as results,
    ):
        assert await anext(results) == []
        for session in list(engine.server._sessions):
            session.close()
        with trio.move_on_after(1) as waited:
            await anext(results)
        assert waited.cancelled_caught
        assert engine.server.statistics().sessions == 1
        await engine.mutation("messages:send", {"body": "a"})
        with trio.fail_after(15):
            assert await anext(results) == ["a"]


async def test_a_query_that_does_not_exist_is_a_failed_state() -> None:
    async with connected() as far, far.subscribe("messages:nope") as results:
        with pytest.raises(FunctionNotFound):
            await anext(results)


async def test_a_reference_is_followed_by_one_mapping() -> None:
    async with connected() as far:
        with pytest.raises(UsageError):
            await far.query("messages:echo", value=5)  # type: ignore[call-overload]
