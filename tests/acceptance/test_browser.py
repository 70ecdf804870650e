"""Waiting for a page: what cannot be told yet is not true yet."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.acceptance import browser as looking
from tests.acceptance.browser import NotDone, browser, needs_chromium

pytestmark = pytest.mark.xdist_group("acceptance")  # each wants a core for itself

LATE = """\
<script>
setTimeout(() => { document.body.innerHTML = "<p id=late>here</p>" }, 300)
</script>
"""


@needs_chromium
def test_a_page_that_is_still_loading_is_waited_for_and_what_it_throws_last_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with browser(tmp_path) as chromium:
        tab = chromium.open(f"data:text/html,{quote(LATE)}")

        tab.wait("document.getElementById('late').textContent === 'here'")

        with pytest.raises(NotDone, match="TypeError: Cannot read properties of null"):
            tab.run("document.getElementById('never').textContent")
        monkeypatch.setattr(looking, "WAIT_S_MAX", 0.2)
        with pytest.raises(AssertionError, match=r"(?s)not known \(TypeError: .*\) in:\nhere"):
            tab.wait("document.getElementById('never').textContent === 'here'")
        with pytest.raises(AssertionError, match=r"1 === 2 is false in:\nhere"):
            tab.wait("1 === 2")
