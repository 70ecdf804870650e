"""`headrace dev` and a window: what is saved is shown, on the connection that is there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.acceptance.processes import developing
from tests.acceptance.windows import needs_client, window

pytestmark = pytest.mark.xdist_group("acceptance")  # each wants a core for itself

SHOWN_S_MAX = 1.0

FIRST = """\
from headrace import QueryCtx, query


@query
async def greeting(ctx: QueryCtx) -> str:
    return "hello"
"""
SECOND = FIRST.replace("hello", "good morning")
BROKEN = FIRST.replace('return "hello"', 'return "hello')
THIRD = FIRST.replace("hello", "good evening")


def saved(app: Path, text: str) -> float:
    """Save `text` in the way of editors, and when that was."""
    new = app.with_suffix(".new")
    new.write_text(text)
    new.replace(app)
    return time.monotonic()


@needs_client
def test_a_saved_file_is_shown_within_a_second_on_the_same_connection(tmp_path: Path) -> None:
    app = tmp_path / "desk.py"
    app.write_text(FIRST)
    with developing(app, tmp_path / "data") as (_, url), window(url, "desk:greeting") as shown:
        shown.wait_shown(lambda value: value == "hello")
        began = saved(app, SECOND)
        shown.wait_shown(lambda value: value == "good morning")
        took_s = time.monotonic() - began

        assert ["hello", "good morning"] == shown.shown
        assert 1 == shown.connections
    assert took_s < SHOWN_S_MAX


@needs_client
def test_a_syntax_error_changes_nothing_and_names_its_line_and_repairing_it_recovers(
    tmp_path: Path,
) -> None:
    app = tmp_path / "desk.py"
    app.write_text(FIRST)
    with developing(app, tmp_path / "data") as (server, url), window(url, "desk:greeting") as shown:
        shown.wait_shown(lambda value: value == "hello")
        before = len(server.lines)
        saved(app, BROKEN)
        server.wait_line("Not pushed. The version before serves on", after=before)
        complaint = server.wait_line(r"desk\.py:\d+: .*", after=before)[0]
        time.sleep(0.3)  # in which a state would have come
        while_broken = shown.shown
        began = saved(app, THIRD)
        shown.wait_shown(lambda value: value == "good evening")
        took_s = time.monotonic() - began

        assert ["hello"] == while_broken
        assert ["hello", "good evening"] == shown.shown
        assert 1 == shown.connections
    assert complaint.startswith("desk.py:6: unterminated string literal")
    assert took_s < SHOWN_S_MAX
