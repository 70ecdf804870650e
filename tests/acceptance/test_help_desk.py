"""The help desk, as people have it: its page in two windows of a real browser."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import httpx
import pytest

from ops.helpdesk.corpus import entries
from ops.helpdesk.serve import CLIENT
from tests.acceptance.browser import browser, needs_chromium
from tests.acceptance.processes import START_S_MAX, running

pytestmark = pytest.mark.xdist_group("acceptance")  # each wants a core for itself

QUESTIONS = [
    ("Ada", "json", "How do I keep the order of keys?"),
    ("Grace", "asyncio", "Why does my task disappear while it runs?"),
]
ENTRIES = 60
ADD_S_MAX = 30.0


@contextmanager
def open_desk(data: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "ops.helpdesk", "--port", "0", "--empty", "--data", data]
    with running(command) as desk:
        url = desk.wait_line(r"The help desk is open: (\S+)", seconds=START_S_MAX)[1]
        about_json = (entry for entry in entries() if entry["module"].startswith("json"))
        call = {"path": "desk:add", "args": {"entries": list(islice(about_json, ENTRIES))}}
        body = {**call, "format": "json"}
        httpx.post(f"{url}/api/mutation", json=body, timeout=ADD_S_MAX).raise_for_status()
        yield url


@needs_chromium
def test_what_is_asked_in_one_window_shows_in_the_other(tmp_path: Path) -> None:
    with open_desk(tmp_path / "data") as url, browser(tmp_path) as chromium:
        asking, reading = chromium.open(url), chromium.open(url)
        state = "live" if CLIENT.is_dir() else "over the HTTP API, once a second"
        for window in (asking, reading):
            window.wait(f"document.getElementById('state').textContent === '{state}'")
            window.wait("document.querySelectorAll('#entries li').length > 0")
        for author, module, text in QUESTIONS:
            asking.type("#ask [name=author]", author)
            asking.type("#ask [name=module]", module)
            asking.type("#ask [name=text]", text)
            asking.click("#ask button")
            for window in (asking, reading):
                window.wait(f"document.body.innerText.includes('{text}')")
            asking.wait("document.querySelector('#ask [name=text]').value === ''")  # acknowledged
            asking.run("document.getElementById('ask').reset()")
        shown = [
            window.run(
                "[...document.querySelectorAll('#questions strong')].map(e => e.textContent)"
            )
            for window in (asking, reading)
        ]
        reading.screenshot(tmp_path / "reading.png")
        asking.screenshot(tmp_path / "asking.png")

    newest_first = [text for _, _, text in reversed(QUESTIONS)]
    assert [newest_first, newest_first] == shown
