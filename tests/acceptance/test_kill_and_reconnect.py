"""The server is killed under a client that has mutations on their way."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.processes import serving
from tests.acceptance.windows import needs_client, window

pytestmark = pytest.mark.xdist_group("acceptance")  # each wants a core for itself

MUTATIONS = 300
KILL_AFTER = 60
"""Answers; the rest is on its way, done and not answered, or not begun."""
RECONNECT_S_MAX = 40.0
"""The client waits a while before it tries again, longer each time."""

APP = """\
from headrace import MutationCtx, QueryCtx, mutation, query


@query
async def numbers(ctx: QueryCtx) -> list[float]:
    return [note["number"] async for note in ctx.db.query("notes")]


@mutation
async def note(ctx: MutationCtx, number: float) -> str:
    return await ctx.db.insert("notes", {"number": number})
"""


@needs_client
def test_what_was_pending_when_the_server_was_killed_is_done_exactly_once(tmp_path: Path) -> None:
    app = tmp_path / "desk.py"
    app.write_text(APP)
    data = tmp_path / "data"
    expected = list(range(MUTATIONS))
    with serving(app, data) as (server, url), window(url, "desk:numbers") as client:
        client.wait_shown(lambda numbers: numbers == [])
        for number in expected:
            client.tell(number, "desk:note", number=number)
        client.wait_answers(KILL_AFTER)
        server.kill()
        answered_before = len(client.answers)
        port = urlsplit(url).port
        assert port is not None
        with serving(app, data, port=port):
            answers = client.wait_answers(MUTATIONS, seconds=RECONNECT_S_MAX)
            client.wait_shown(lambda numbers: len(numbers) >= MUTATIONS)
            [final] = client.shown[-1:]

        assert KILL_AFTER <= answered_before < MUTATIONS
        assert Counter(expected) == Counter(final)
        assert expected == [answer["answered"] for answer in answers]
        assert [] == [answer for answer in answers if "error" in answer]
        assert client.connections >= 2
