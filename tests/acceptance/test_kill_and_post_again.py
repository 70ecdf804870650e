"""The server is killed under programs that post mutations with keys, and post them again."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.acceptance.processes import serving

pytestmark = pytest.mark.xdist_group("acceptance")  # each wants a core for itself

PROGRAMS = 8
EACH = 40
"""Mutations of one program, one after another."""
KILL_AFTER = 80
"""Answers; every program then has one on its way, done and not answered, or not begun."""
PATIENCE_S = 40.0

APP = """\
from headrace import MutationCtx, QueryCtx, mutation, query


@query
async def numbers(ctx: QueryCtx) -> list[float]:
    return [note["number"] async for note in ctx.db.query("notes")]


@mutation
async def note(ctx: MutationCtx, number: float) -> str:
    return await ctx.db.insert("notes", {"number": number})
"""


def test_what_was_posted_with_a_key_is_done_once_whenever_the_server_was_killed(
    tmp_path: Path,
) -> None:
    app = tmp_path / "desk.py"
    app.write_text(APP)
    data = tmp_path / "data"
    expected = list(range(PROGRAMS * EACH))
    with serving(app, data) as (server, url):
        programs = Programs(url)
        programs.start()
        programs.wait_answers(KILL_AFTER)
        server.kill()
        answered_before = len(programs.answers)
        port = urlsplit(url).port
        assert port is not None
        with serving(app, data, port=port):
            programs.join()
            final = post(url, "query", None, "desk:numbers", {})["value"]
            once_more = {number: programs.send(number) for number in expected}

    assert KILL_AFTER <= answered_before < len(expected)
    assert programs.repeated, "somebody was on the way"
    assert Counter(expected) == Counter(final)
    assert programs.answers == once_more


class Programs:
    """Threads that post mutations; what was not answered is posted again with the same key."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: dict[int, str] = {}
        self.repeated: list[int] = []
        self._threads = [threading.Thread(target=self._post, args=(i,)) for i in range(PROGRAMS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "it was never answered"

    def wait_answers(self, count: int) -> None:
        wait_until(lambda: len(self.answers) >= count)

    def send(self, number: int) -> str:
        answer = post(self._url, "mutation", f"note {number}", "desk:note", {"number": number})
        return str(answer["value"])

    def _post(self, program: int) -> None:
        for number in range(program * EACH, (program + 1) * EACH):
            while number not in self.answers:
                try:
                    self.answers[number] = self.send(number)
                except (OSError, HTTPException):  # also of what was refused with a status
                    self.repeated.append(number)
                    time.sleep(0.05)


def post(url: str, endpoint: str, key: str | None, path: str, args: object) -> Any:
    request = urllib.request.Request(
        f"{url}/api/{endpoint}",
        data=json.dumps({"path": path, "args": args}).encode(),
        headers={
            "Content-Type": "application/json",
            **({} if key is None else {"Idempotency-Key": key}),
        },
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.001)
