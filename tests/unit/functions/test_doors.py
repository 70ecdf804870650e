"""
Every way out of a query or mutation: which are refused, and which never are.

A door is a few lines of an application module.  Refused ones must do nothing,
and be refused by name, inside a mutation; outside of one they are ordinary.
"""

# ruff: noqa: ASYNC240 - a look into a folder, in between

from __future__ import annotations

import os
import socket
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine.errors import NotAllowed
from engine.functions.refusals import allow_reading, install_audit_hook
from engine.functions.watchdog import Watchdog
from tests.unit.functions.running import run_plain

Execute = Callable[[str], ModuleType]

IMPORTS = """
import asyncio, codecs, concurrent.futures, io, linecache, logging, multiprocessing, os, pathlib
import random, secrets, shutil, socket, sqlite3, subprocess, tempfile, threading, time, traceback
import urllib.request, uuid, zoneinfo
import anyio, trio
from builtins import open as real_open
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib import resources
from threading import Thread
from time import sleep

HERE = pathlib.Path(__file__).parent
FILE = HERE / "a file"
pool = ThreadPoolExecutor(1)


def in_process():
    class Work(multiprocessing.Process):
        pass

    Work(target=print).start()


def in_thread():
    class Work(threading.Thread):
        pass

    Work().start()
"""

# What is refused: the lines, and the name in the error.
REFUSED = {
    # Waiting.
    "time.sleep(0)": "time.sleep",
    "sleep(0)": "time.sleep",
    "input()": "input",
    # Files.
    "open(FILE)": "open",
    "io.open(FILE)": "io.open",
    "io.FileIO(FILE)": "io.FileIO",
    "os.open(FILE, os.O_RDONLY)": "os.open",
    "real_open(FILE)": "opening a file",
    "FILE.read_text()": "opening a file",
    "FILE.write_text('x')": "opening a file",
    "FILE.open()": "opening a file",
    "codecs.open(str(FILE))": "opening a file",
    "os.listdir(HERE)": "os.listdir",
    "os.scandir(HERE)": "os.scandir",
    "os.walk(HERE)": "os.walk",
    "os.mkdir(HERE / 'x')": "os.mkdir",
    "os.makedirs(HERE / 'x')": "os.makedirs",
    "os.remove(FILE)": "os.remove",
    "os.unlink(FILE)": "os.unlink",
    "os.rename(FILE, HERE / 'x')": "os.rename",
    "os.replace(FILE, HERE / 'x')": "os.replace",
    "os.symlink(FILE, HERE / 'x')": "os.symlink",
    "os.chmod(FILE, 0o600)": "os.chmod",
    "os.truncate(FILE, 0)": "os.truncate",
    "os.environ.__setitem__('X', 'y')": "changing the environment",
    "list(HERE.iterdir())": "listing a folder",
    "(HERE / 'x').mkdir()": "changing a folder",
    "FILE.unlink()": "changing a folder",
    "FILE.rename(HERE / 'x')": "changing a folder",
    "shutil.copy(FILE, HERE / 'x')": "opening a file",
    "shutil.rmtree(HERE)": "listing a folder|changing a folder|opening a file",
    "tempfile.mkstemp()": "temporary file",
    "tempfile.mkdtemp()": "temporary file",
    "tempfile.TemporaryFile()": "opening a file|temporary file",
    "sqlite3.connect(':memory:')": "opening a database",
    # The network.
    "socket.socket()": "socket.socket",
    "socket.create_connection(('localhost', 1))": "socket.create_connection",
    "socket.getaddrinfo('localhost', 1)": "socket.getaddrinfo",
    "socket.gethostbyname('localhost')": "socket.gethostbyname",
    "socket.socketpair()": "socket.socketpair",
    "urllib.request.urlopen('http://localhost:1')": "HTTP request|socket",
    "__import__('http.client').client.HTTPConnection('localhost', 1).connect()": (
        "HTTP connection|socket"
    ),
    # Processes.
    "subprocess.run(['true'])": "subprocess.run",
    "subprocess.Popen(['true'])": "subprocess.Popen",
    "subprocess.check_output(['true'])": "subprocess.check_output",
    "os.system('true')": "os.system",
    "os.popen('true')": "os.popen",
    "os.fork()": "os.fork",
    "os.execv('/bin/true', ['true'])": "os.execv",
    "os.posix_spawn('/bin/true', ['true'], {})": "os.posix_spawn",
    "os.kill(os.getpid(), 0)": "os.kill",
    "os._exit(3)": "os._exit",
    "os.abort()": "os.abort",
    "multiprocessing.Process(target=print)": "multiprocessing.Process",
    "multiprocessing.Pool(1)": "multiprocessing.Pool",
    "in_process()": "multiprocessing.Process",
    # Threads.
    "threading.Thread(target=print).start()": "threading.Thread",
    "Thread(target=print).start()": "threading.Thread",
    "threading.Timer(0, print).start()": "threading.Timer",
    "in_thread()": "threading.Thread",
    "__import__('_thread').start_new_thread(print, ())": "_thread.start_new_thread",
    "pool.submit(print)": "concurrent.futures.ThreadPoolExecutor",
    "list(pool.map(print, 'a'))": "concurrent.futures.ThreadPoolExecutor",
    "concurrent.futures.ThreadPoolExecutor().submit(print)": "ThreadPoolExecutor",
    "concurrent.futures.ProcessPoolExecutor().submit(print)": "ProcessPoolExecutor",
    # Tasks.
    "asyncio.sleep(0)": "asyncio.sleep",
    "asyncio.gather()": "asyncio.gather",
    "asyncio.create_task(None)": "asyncio.create_task",
    "asyncio.run(None)": "asyncio.run",
    "asyncio.TaskGroup()": "asyncio.TaskGroup",
    "asyncio.timeout(1)": "asyncio.timeout",
    "asyncio.to_thread(print)": "asyncio.to_thread",
    "asyncio.new_event_loop()": "asyncio.new_event_loop",
    "trio.sleep(0)": "trio.sleep",
    "trio.open_nursery()": "trio.open_nursery",
    "trio.move_on_after(1)": "trio.move_on_after",
    "trio.CancelScope()": "trio.CancelScope",
    "trio.to_thread.run_sync(print)": "trio.to_thread.run_sync",
    "trio.open_file(FILE)": "trio.open_file",
    "trio.run(print)": "trio.run",
    "anyio.sleep(0)": "anyio.sleep",
    "anyio.create_task_group()": "anyio.create_task_group",
    "anyio.to_thread.run_sync(print)": "anyio.to_thread.run_sync",
}

# What is never refused.
ALLOWED = [
    "__import__('wave')",
    "__import__('xml.dom.minidom')",
    "__import__('importlib').reload(__import__('this' if 0 else 'colorsys'))",
    "zoneinfo.ZoneInfo.no_cache('Europe/Paris')",
    "zoneinfo.available_timezones()",
    "linecache.checkcache() or linecache.clearcache() or linecache.getlines(__file__)",
    "resources.files('zoneinfo').joinpath('__init__.py').read_text()",
    "list(resources.files('zoneinfo').iterdir())",
    "resources.read_text('zoneinfo', '__init__.py')",
    "'é'.encode('cp037')",
    "codecs.lookup('utf_16_be')",
    "print('hello')",
    "logging.getLogger('x').warning('hello')",
    "traceback.format_stack()",
    "datetime.now().strftime('%A')",
    "datetime.strptime('2026-01-01', '%Y-%m-%d')",
    "time.strptime('2026', '%Y')",
    "random.random(), secrets.token_hex(), uuid.uuid4(), uuid.uuid1(), os.urandom(3)",
    "os.path.exists(FILE), os.getpid(), os.environ.get('HOME')",
    "threading.Thread(target=print), threading.Lock()",
    "io.StringIO().write('x'), io.BytesIO(b'x').read()",
    "isinstance(1, (socket.socket, subprocess.Popen, threading.Thread))",
    "pathlib.Path('a') / 'b'",
    "__import__('inspect').getsource(traceback)",
    "__import__('mimetypes').guess_type('a.png')",
    "__import__('warnings').warn_explicit('x', UserWarning, 'x', 1, registry={'x': 1})",
]


def mutation(execute: Execute, line: str) -> Callable[[], object]:
    module = execute(IMPORTS + "\ndef handler():\n    return " + textwrap.dedent(line))
    handler: Callable[[], object] = module.handler
    return handler


@pytest.fixture(autouse=True)
def second_net(tmp_path: Path) -> None:
    install_audit_hook()
    (tmp_path / "a file").write_text("content")


@pytest.mark.parametrize("line", REFUSED)
async def test_a_door_is_closed_by_name(
    line: str, execute: Execute, watchdog: Watchdog, tmp_path: Path
) -> None:
    handler = mutation(execute, line)
    before = threading.enumerate(), sorted(tmp_path.iterdir())

    with pytest.raises(NotAllowed, match=f"({REFUSED[line]}).* in the mutation messages:send: use"):
        await run_plain(handler, watchdog)

    assert before == (threading.enumerate(), sorted(tmp_path.iterdir()))
    assert "content" == (tmp_path / "a file").read_text()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", ALLOWED)
async def test_a_door_is_never_closed(line: str, execute: Execute, watchdog: Watchdog) -> None:
    await run_plain(mutation(execute, line), watchdog)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("time.sleep(0)", None),
        ("open(FILE).__exit__()", None),
        ("FILE.read_text()", "content"),
        ("socket.socket().close()", None),
        ("subprocess.run(['true']).returncode", 0),
        ("Thread(target=print).start()", None),
        ("trio.run(trio.sleep, 0)", None),
        ("asyncio.run(asyncio.sleep(0, 'slept'))", "slept"),
        ("pool.submit(str).result()", ""),
        ("[type(trio.CancelScope()).__module__, pool.shutdown()][0]", "trio"),
    ],
)
def test_elsewhere_all_doors_are_open(line: str, expected: object, execute: Execute) -> None:
    assert expected == mutation(execute, line)()


async def test_files_beside_the_code_may_be_read_and_not_written(
    execute: Execute, watchdog: Watchdog, tmp_path: Path
) -> None:
    (tmp_path / "backend").mkdir()
    (tmp_path / "backend" / "prices.json").write_text("{}")
    allow_reading(str(tmp_path / "backend"))

    read = mutation(execute, "(HERE / 'backend' / 'prices.json').read_text()")
    write = mutation(execute, "(HERE / 'backend' / 'prices.json').write_text('x')")

    assert "{}" == await run_plain(read, watchdog)
    with pytest.raises(NotAllowed):
        await run_plain(write, watchdog)


async def test_a_library_meets_the_second_net(watchdog: Watchdog) -> None:
    """This module is no application's: its `socket` is the ordinary one."""
    with pytest.raises(NotAllowed, match="a socket is not allowed in the mutation messages:send"):
        await run_plain(socket.socket, watchdog)

    socket.socket().close()


async def test_a_breakpoint_lifts_the_limit(
    watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.functions.running import execution

    running = execution()
    reached: list[str] = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: reached.append("here"))

    await run_plain(breakpoint, watchdog, within=running)

    assert ["here"] == reached
    assert running.left_s > 1e9


def test_the_modules_of_the_process_are_untouched(execute: Execute) -> None:
    import time

    execute(IMPORTS)

    assert time.sleep.__module__ == "time"
    assert "posix" == os.open.__module__
    assert open.__module__ in ("io", "_io")
    assert threading.Thread.__module__ == "threading"
    assert sys.modules["time"] is time


async def test_who_wants_tasks_is_told_of_gather(execute: Execute, watchdog: Watchdog) -> None:
    with pytest.raises(NotAllowed, match="use `gather`"):
        await run_plain(mutation(execute, "asyncio.gather()"), watchdog)


async def test_a_debugger_around_the_engine_exempts_nothing(
    execute: Execute, watchdog: Watchdog
) -> None:
    around: dict[str, Any] = {"__name__": "pdb"}
    exec("async def step(f, *args):\n    return await f(*args)", around)

    with pytest.raises(NotAllowed):
        await around["step"](run_plain, mutation(execute, "FILE.read_text()"), watchdog)
