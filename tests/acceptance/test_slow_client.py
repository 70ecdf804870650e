"""A client that does not read for a while. `ops/prove slow-client` does it for a minute."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.proofs.slow_client import COMMITS_PER_S, GROWTH_BYTES_MAX, UNSENT_MAX, tell

pytestmark = pytest.mark.xdist_group("acceptance")  # each wants a core for itself

SLEEP_S = 8


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for memory and buffers")
def test_a_client_that_sleeps_costs_two_transitions_and_wakes_up_to_the_newest_state(
    tmp_path: Path,
) -> None:
    story = tell(tmp_path / "data", "none", SLEEP_S)

    assert [] == story.problems
    assert SLEEP_S * COMMITS_PER_S == story.commits
    assert story.kept_up > story.commits / 2
    assert story.unsent <= UNSENT_MAX
    assert story.growth_bytes < GROWTH_BYTES_MAX
