"""
The demo without a person: load, subscribe, change, see, kill -9 in mid-load, restart, compare.

Every step says what it saw, and one that saw something else ends the check.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import httpx
import trio

from ops.helpdesk.corpus import Entry, entries
from ops.helpdesk.load import Acknowledged, load

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
START_S_MAX = 30.0
UPDATE_S_MAX = 10.0
ANSWERS_S_MAX = 30.0
KILL_AFTER_SHARE = 0.4
"""Of the documents acknowledged: then the server is killed, while the rest is on its way."""


class WrongStep(Exception):
    """A step that did not come out as it should."""


def run() -> int:
    """Do all steps; 0 only if every one was right."""
    scratch = ROOT / ".headrace"
    scratch.mkdir(exist_ok=True)
    began = time.perf_counter()
    data = Path(tempfile.mkdtemp(prefix="demo-check-", dir=scratch))
    try:
        _steps(data)
    except WrongStep as error:
        print(f"WRONG: {error}\nThe data is kept in {data}")
        return 1
    shutil.rmtree(data)
    print(f"Every step was right, in {time.perf_counter() - began:.0f} s.")
    return 0


def _steps(data: Path) -> None:
    documents = list(entries())
    print(f"{len(documents):,} entries parsed from the standard library's source")
    with _serving(data / "whole") as (url, _):
        _load_all(url, documents)
        with _counting_words(url, len(documents)):
            _see_a_change(url)
        _search(url)
        _ask_too_much(url)
        _see_answers(url)
    with _serving(data / "killed") as (url, process):
        acknowledged = _kill_in_mid_load(url, process, documents)
    with _serving(data / "killed") as (url, _):
        _compare(url, acknowledged, len(documents))
        _see_a_change(url)


def _load_all(url: str, documents: list[Entry]) -> None:
    began = time.perf_counter()
    acknowledged = trio.run(_load, url, documents, None)
    rate = len(acknowledged) / (time.perf_counter() - began)
    _expect(len(documents), len(acknowledged), "entries acknowledged")
    print(f"{len(acknowledged):,} entries made durable through mutations, {rate:,.0f} a second")
    _compare(url, acknowledged, len(documents))


async def _load(url: str, documents: list[Entry], stop: Any) -> Acknowledged:
    async with httpx.AsyncClient(base_url=url) as http:
        return await load(http, documents, stop)


def _see_a_change(url: str) -> None:
    """Follow the questions with the official client, ask one, and see it arrive."""
    with _watching(url) as watcher:
        before = watcher.next("questions")
        text = f"Does it survive? ({len(before)})"
        began = time.perf_counter()
        watcher.ask(text)
        after = watcher.next("questions")
        took_ms = (time.perf_counter() - began) * 1000
    _expect([text, *before], after, "questions after asking one")
    print(f"{watcher.name} saw the change {took_ms:.0f} ms after it asked for it")


@contextmanager
def _counting_words(url: str, documents: int) -> Iterator[None]:
    """Have a migration add a field to all entries while the block runs, and see that it did."""
    with httpx.Client(base_url=url, timeout=30) as http:
        began = time.perf_counter()
        _call(http, "mutation", "desk:count_all_words", {})
        yield
        while (status := _call(http, "query", "desk:counting", {}))["state"] == "inProgress":
            time.sleep(0.05)
        rate = documents / (time.perf_counter() - began)
        _expect(("success", documents), (status["state"], status["processed"]), "the migration")
        entries = _call(http, "query", "desk:of_module", {"module": "json"})
        counted = [len(entry["text"].split()) for entry in entries]
        _expect(counted, [entry.get("words") for entry in entries], "words of entries")
    print(f"a migration added a field to {documents:,} entries meanwhile, {rate:,.0f} a second")


def _search(url: str) -> None:
    """Words are found in all of the documentation, the best first."""
    with httpx.Client(base_url=url, timeout=30) as http:
        began = time.perf_counter()
        found = _call(http, "query", "desk:search", {"text": "deserialize json docu"})
        took_ms = (time.perf_counter() - began) * 1e3
    _expect(30, len(found), "entries that a search found")
    _expect("json", found[0]["module"].partition(".")[0], "the module that fits best")
    print(f"a search of all entries took {took_ms:.0f} ms")


def _ask_too_much(url: str) -> None:
    """One visitor is held back, and another one is not."""
    args = {"author": "check", "text": "Again?", "module": "json"}
    with httpx.Client(base_url=url, timeout=30) as http:
        for _ in range(3):
            _call(http, "mutation", "desk:ask", {**args, "visitor": "impatient"})
        call = {"path": "desk:ask", "args": {**args, "visitor": "impatient"}, "format": "json"}
        refused = http.post("/api/mutation", json=call).json()
        _expect("RateLimited", refused.get("errorData", {}).get("kind"), "the fourth question")
        _call(http, "mutation", "desk:ask", {**args, "visitor": "another"})
    print(f"the fourth question of a visitor waits {refused['errorData']['retryAfter']:.0f} ms")


def _see_answers(url: str) -> None:
    """Each question has an answer in the end, and is counted with its module."""
    with httpx.Client(base_url=url, timeout=30) as http:
        ends = time.perf_counter() + ANSWERS_S_MAX
        while True:
            asked = _call(http, "query", "desk:questions", {})
            if all("answer" in question for question in asked):
                break
            if time.perf_counter() > ends:
                raise WrongStep(f"after {ANSWERS_S_MAX:g} s some of {asked!r:.400} have no answer")
            time.sleep(0.05)
        counted = _call(http, "query", "desk:counts", {"module": ""})["questions"]
        _expect(len(asked), counted, "questions counted")
    print(f"{len(asked)} questions are answered, and counted with their modules")


def _kill_in_mid_load(
    url: str, process: subprocess.Popen[str], documents: list[Entry]
) -> Acknowledged:
    enough = int(len(documents) * KILL_AFTER_SHARE)

    def kill(acknowledged: Acknowledged) -> None:
        if len(acknowledged) >= enough:
            process.send_signal(signal.SIGKILL)

    acknowledged = trio.run(_load, url, documents, kill)
    process.wait()
    if not enough <= len(acknowledged) < len(documents):
        raise WrongStep(f"{len(acknowledged)} entries were acknowledged before the kill")
    print(f"killed by SIGKILL with {len(acknowledged):,} entries acknowledged")
    return acknowledged


def _compare(url: str, acknowledged: Acknowledged, documents: int) -> None:
    """Everything acknowledged is there, nothing twice."""
    found: dict[str, tuple[str, str]] = {}
    after = ""
    with httpx.Client(base_url=url, timeout=30) as http:
        while part := _call(http, "query", "desk:page", {"after": after}):
            found |= {doc_id: (module, name) for doc_id, module, name in part}
            after = part[-1][0]
        counted = _call(http, "query", "desk:counts", {"module": ""})["entries"]
    _expect(len(found), counted, "entries counted")
    missing = [doc_id for doc_id, entry in acknowledged.items() if found.get(doc_id) != entry]
    _expect([], missing, "acknowledged entries that are missing")
    _expect(len(found), len(set(found.values())), "different entries")
    if len(found) > documents:
        raise WrongStep(f"{len(found)} entries of {documents}")
    print(f"{len(found):,} entries are there, all {len(acknowledged):,} acknowledged among them")


def _call(http: httpx.Client, kind: str, path: str, args: dict[str, Any]) -> Any:
    call = {"path": path, "args": args, "format": "json"}
    answer = http.post(f"/api/{kind}", json=call).raise_for_status().json()
    if answer["status"] != "success":
        raise WrongStep(f"{path} failed: {answer['errorMessage']}")
    return answer["value"]


def _expect(expected: Any, actual: Any, what: str) -> None:
    if expected != actual:
        raise WrongStep(f"{what}: expected {expected!r:.200}, got {actual!r:.200}")


@contextmanager
def _serving(data: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "ops.helpdesk", "--port", "0", "--empty", "--data", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        lines = _Lines(process)
        found = None
        while found is None:  # the engine's own traces come before it
            found = re.match(r"The help desk is open: (\S+)", lines.next(START_S_MAX))
        yield found[1], process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _watching(url: str) -> Iterator[Watcher]:
    watcher = Watcher(url)
    try:
        yield watcher
    finally:
        watcher.close()


class Watcher:
    """The official JavaScript client in a process of its own; the Python one where Node is not."""

    def __init__(self, url: str) -> None:
        node = shutil.which("node")
        if node and (HERE / "node_modules").is_dir():
            self.name, command = "the JavaScript client", [node, "watch.mjs", url]
        else:
            self.name, command = "the Python client", [sys.executable, "watch.py", url]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE,
            start_new_session=True,
        )
        self._lines = _Lines(self._process)

    def ask(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def next(self, kind: str) -> Any:
        """The next state of that kind."""
        while True:
            line = self._lines.next(UPDATE_S_MAX)
            if not line.startswith("{"):
                continue
            said = json.loads(line)
            if said["kind"] == kind:
                return said["value"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        # With the process that it may have started, which would keep our caller's streams open.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class _Lines:
    """Lines of a process, read by a thread, so that waiting for one can end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._queue: Queue[str] = Queue()
        self._stream = process.stdout
        Thread(target=self._read, daemon=True).start()

    def next(self, seconds: float) -> str:
        try:
            return self._queue.get(timeout=seconds)
        except Empty:
            raise WrongStep(f"nothing was said for {seconds:g} s") from None

    def _read(self) -> None:
        assert self._stream is not None
        for line in self._stream:
            self._queue.put(line.rstrip("\n"))
