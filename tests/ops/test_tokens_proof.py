"""`ops/prove tokens`: that a server with a hole in it is told from one without."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs.tokens import Story, tell


@pytest.mark.parametrize(
    ("bug", "seen"),
    [
        ("algorithm-of-the-header", "mallory"),
        ("results-shared", "alice"),
    ],
)
def test_a_planted_bug_is_seen(bug: str, seen: str, tmp_path: Path) -> None:
    story = tell(tmp_path / bug, bug, 1, 1, Story(problems_max=1))

    assert story.problems
    assert seen in story.problems[0]
