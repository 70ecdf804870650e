"""The engine for threads: scripts, Flask, workers; and the processes around one."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flask
import pytest
import requests
import trio
from werkzeug.serving import make_server

from engine import (
    DeclarationError,
    Failed,
    ListenConfig,
    Ok,
    ServerConfig,
    Stopped,
    StoreLocked,
    UsageError,
    blocking,
)
from tests.node import hosted

APP = Path(hosted.__file__).parent


def opened(data: str | Path = ":memory:", **options: Any) -> blocking.Engine:
    return blocking.open(data, app=APP, **options)


# The same methods.


def test_everything_that_can_be_called_is_called_from_a_thread() -> None:
    with opened() as engine:
        sent = engine.commit("messages:send", {"body": "a"})
        engine.mutation("messages:send", {"body": "b"})

        assert engine.now_ts > sent.ts
        assert engine.query("messages:bodies") == ["a", "b"]
        assert engine.at(sent.ts).query("messages:bodies") == ["a"]
        assert engine.query("messages:bodies", as_of=sent.ts) == ["a"]
        assert engine.action("outside:several_on_asyncio") == ["a", "a", "b", "b", "c"]


def test_an_error_arrives_as_it_was_raised_with_a_note() -> None:
    with opened() as engine, pytest.raises(LookupError, match="no such thing") as caught:
        engine.mutation("messages:fail")

    assert caught.value.__notes__ == ["in messages:fail, request engine-1"]


def test_another_version_is_pushed() -> None:
    with opened() as engine:
        with pytest.raises(DeclarationError):
            engine.push("no/such/folder")
        engine.push(APP)

        assert engine.query("messages:secret") == "secret"


def test_an_application_that_cannot_be_loaded_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")

    with pytest.raises(DeclarationError, match="ZeroDivisionError"):
        blocking.open(tmp_path / "data", app=tmp_path / "broken.py")

    with opened(tmp_path / "data") as engine:
        assert engine.query("messages:bodies") == []


def test_a_traceback_leads_from_the_opening_into_the_application(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("from engine import Schema\n\nschema = Schema(a=1)\n")

    with pytest.raises(DeclarationError, match="write a=Table") as caught:
        blocking.open(":memory:", app=tmp_path / "odd.py")

    _, *frames = traceback.extract_tb(caught.value.__traceback__)
    assert ["open", "__init__", "result", "__get_result", "<module>"] == [
        frame.name for frame in frames
    ]


def test_many_threads_are_served_at_once_and_share_batches(tmp_path: Path) -> None:
    with opened(tmp_path) as engine, ThreadPoolExecutor(32) as pool:
        node = engine._thread.opened.result()[0].node
        before = node.committer.stats["batches"]
        list(pool.map(lambda n: engine.mutation("messages:send", {"body": str(n)}), range(200)))
        batches = node.committer.stats["batches"] - before
        found = engine.query("messages:bodies")

    assert sorted(found, key=int) == [str(n) for n in range(200)]
    assert batches < len(found)


def test_flask_views_call_functions_and_the_engine_is_one_for_all_of_them() -> None:
    web = flask.Flask(__name__)

    with opened() as engine:

        @web.post("/messages/<body>")
        def post(body: str) -> dict[str, str]:
            return {"id": engine.mutation("messages:send", {"body": body})}

        @web.get("/messages")
        def messages() -> list[str]:
            found: list[str] = engine.query("messages:bodies")
            return found

        with wsgi_server(web) as url, ThreadPoolExecutor(8) as pool:
            sent = list(pool.map(lambda n: requests.post(f"{url}/messages/{n}"), range(40)))
            found = requests.get(f"{url}/messages").json()

    assert {reply.status_code for reply in sent} == {200}
    assert sorted(found, key=int) == [str(n) for n in range(40)]


@contextmanager
def wsgi_server(web: flask.Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, web, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# Subscriptions.


def test_a_subscription_is_a_loop_over_results() -> None:
    with opened() as engine, engine.subscribe("messages:bodies") as results:
        seen = []
        for bodies in results:
            seen.append(bodies)
            if len(bodies) == 2:
                break
            engine.mutation("messages:send", {"body": str(len(bodies))})

    assert seen == [[], ["0"], ["0", "1"]]


def test_states_go_on_after_a_failure() -> None:
    with opened() as engine, engine.subscribe("messages:no_bombs") as results:
        states = results.states()
        first = next(states)
        bombed = engine.commit("messages:send", {"body": "bomb"})
        second = next(states)
        with pytest.raises(TimeoutError):
            results.next_state(timeout_s=0.05)
        engine.mutation("messages:clear")

        assert first == Ok(0, first.ts)
        assert isinstance(second, Failed)
        assert (str(second.error), second.ts) == ("a bomb", bombed.ts)
        assert next(results) == 0


def test_a_loop_over_results_ends_when_another_thread_closes_them() -> None:
    with opened() as engine, ThreadPoolExecutor(1) as pool:
        results = engine.subscribe("messages:bodies")
        looping = pool.submit(lambda: list(results))
        time.sleep(0.1)
        results.close()

        assert looping.result(5) == [[]]


def test_a_loop_over_results_fails_when_the_engine_is_closed() -> None:
    engine = opened()
    with ThreadPoolExecutor(1) as pool, engine.subscribe("messages:bodies") as results:
        looping = pool.submit(lambda: list(results))
        time.sleep(0.1)
        engine.close()

        with pytest.raises(Stopped):
            looping.result(5)


def test_after_the_end_calls_say_that_it_was_closed() -> None:
    with opened() as engine:
        pass

    with pytest.raises(Stopped, match="the engine was closed; nothing was done"):
        engine.query("messages:bodies")


# Loops that would be blocked.


def test_an_asyncio_loop_is_not_blocked_but_told() -> None:
    async def main() -> None:
        engine.query("messages:bodies")

    with (
        opened() as engine,
        pytest.raises(UsageError, match=r"block this asyncio loop; use engine\.aio"),
    ):
        asyncio.run(main())


def test_a_trio_loop_is_not_blocked_but_told() -> None:
    async def main() -> None:
        opened()

    with pytest.raises(UsageError, match=r"block this trio loop; use engine\.Engine"):
        trio.run(main)


# Clients of an engine in a script.


def test_a_script_can_listen_to_clients() -> None:
    config = ListenConfig(bind=("127.0.0.1:0",))
    with opened() as engine, engine.listen(config) as (url,):
        call = {"path": "messages:send", "args": {"body": "a"}}
        reply = requests.post(f"{url}/api/mutation", json=call)

        assert reply.json()["status"] == "success"
        assert engine.query("messages:bodies") == ["a"]


# Other processes.


def test_a_second_process_is_told_who_has_the_directory_and_where(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from engine import blocking\n"
        "try:\n"
        "    blocking.open(sys.argv[1], app=[])\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )

    with opened(tmp_path) as engine, engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as (url,):
        done = run(program, tmp_path)

    assert done.stdout.strip() == (
        f"StoreLocked {tmp_path} is open in process {os.getpid()} at {url}; "
        f"use Engine.connect({url!r})"
    )


def test_a_mounted_engine_tells_the_url_it_was_given(tmp_path: Path) -> None:
    url = "https://example.com/convex"
    with opened(tmp_path, url=url):
        done = run(
            "import sys; from engine import blocking; blocking.open(sys.argv[1], app=[])",
            tmp_path,
        )

    assert f"use Engine.connect({url!r})" in done.stderr.splitlines()[-1]


def run(program: str, data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, data],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_forked_child_is_told_to_connect(tmp_path: Path) -> None:
    with opened(tmp_path, url="http://127.0.0.1:3210") as engine:
        told = in_fork(lambda: engine.query("messages:bodies"))
        opened_there = in_fork(lambda: opened(tmp_path))
        engine.mutation("messages:send", {"body": "the parent goes on"})

    expected = (
        f"StoreLocked {tmp_path} is open in process {os.getpid()} at http://127.0.0.1:3210; "
        "use Engine.connect('http://127.0.0.1:3210')"
    )
    assert told == expected
    assert opened_there == expected
    with opened(tmp_path) as engine:
        assert engine.query("messages:bodies") == ["the parent goes on"]


def end_after(seconds: int) -> None:
    """End this process if it waits for a thread that it has not got."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


def in_fork(call: Any) -> str:
    """What `call` raises in a forked child, as the child says it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        end_after(20)
        try:
            call()
            said = "nothing"
        except Exception as error:
            said = f"{type(error).__name__} {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_a_child_of_multiprocessing_is_told_to_connect(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with opened(tmp_path) as engine:
        reading, writing = context.Pipe(duplex=False)
        child = context.Process(target=_ask, args=(engine, writing))
        child.start()
        writing.close()
        told = reading.recv()
        child.join()
        reading.close()

        assert child.exitcode == 0
        assert engine.query("messages:bodies") == []
    assert f"is open in process {os.getpid()}; use Engine.connect(url)" in told


def _ask(engine: blocking.Engine, told: Any) -> None:
    end_after(20)
    try:
        engine.query("messages:bodies")
    except StoreLocked as error:
        told.send(str(error))


# How a script ends.

SCRIPT = """
import sys
from engine import MutationCtx, QueryCtx, blocking, mutation, query, action
import time

@mutation
async def send(ctx: MutationCtx, body: str) -> None:
    await ctx.db.insert("messages", {"body": body})

@query
async def bodies(ctx: QueryCtx) -> list[str]:
    return [m["body"] async for m in ctx.db.query("messages")]

@action
async def wait(ctx) -> None:
    import trio
    await trio.sleep(60)

engine = blocking.open(sys.argv[1], app=[send, bodies, wait])
"""


def test_an_engine_that_a_script_does_not_close_closes_as_it_ends(tmp_path: Path) -> None:
    done = run(SCRIPT + "engine.mutation(send, 'kept')\n", tmp_path)
    lock = (tmp_path / "LOCK").read_text()
    again = run(SCRIPT + "print(engine.query(bodies))\n", tmp_path)

    assert (done.stderr, lock.strip()) == ("", "")
    assert (again.stdout, again.stderr) == ("['kept']\n", "")


def test_ctrl_c_ends_a_script_that_waits_for_a_call(tmp_path: Path) -> None:
    program = SCRIPT + (
        # Whoever is started in the background of a shell ignores Ctrl-C, and so do its children.
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "print('waiting', flush=True)\n"
        "try:\n"
        "    engine.action(wait)\n"
        "except KeyboardInterrupt:\n"
        "    engine.mutation(send, 'after')\n"
        "    print(engine.query(bodies))\n"
        "engine.close()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "waiting\n"
        time.sleep(0.2)
        script.send_signal(signal.SIGINT)
        said = script.stdout.read()

    assert (said, script.returncode) == ("['after']\n", 0)


def test_who_may_do_what_is_said_when_it_is_opened() -> None:
    config = ServerConfig(admin_key="test|secret")
    bind = ListenConfig(bind=("127.0.0.1:0",))
    with (
        opened(server=config) as engine,
        engine.listen(bind) as (url,),
        blocking.connect(url, admin_key="test|secret") as far,
    ):
        assert far.query("messages:secret") == "secret"
