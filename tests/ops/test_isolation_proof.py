"""`ops/prove isolation`: that it holds, and that a check that is missing is missed."""

from __future__ import annotations

import pytest

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.cli.command import VERBS
from tests.proofs.isolation import LEAST, Story, tell
from tests.proofs.isolation_attempts import PENDING, attempts
from tests.proofs.isolation_planted import PLANTED
from tests.proofs.proof import too_few

BROUGHT_BY = {
    "files": {"storage", "files"},
    "exports": {"export"},
    "backups": {"backup", "backups", "restore"},
}
"""What verbs and contexts would have, as Convex names it."""


def test_no_attempt_gets_anywhere() -> None:
    story = Story()

    tell(story, 2026)

    assert [] == [*story.problems, *too_few(story.done, LEAST)]


@pytest.mark.parametrize(
    ("missing", "seen"),
    [
        ("functions out of reach", "function: "),
        ("the proof of a handle", "handle: "),
        ("tables of ids", "id: "),
        ("whose query a cursor is of", "cursor: "),
        ("that clients call no components", "a client, "),
    ],
)
def test_a_check_that_is_missing_is_missed(missing: str, seen: str) -> None:
    story = Story(problems_max=1)

    with PLANTED[missing]():
        tell(story, 2026)

    assert story.problems
    assert story.problems[0].startswith(seen)


@pytest.mark.parametrize("way", PENDING)
def test_a_way_that_is_not_there_yet_is_listed(way: str) -> None:
    """Whoever brings files, exports or backups finds here that they need attempts."""
    names = {*VERBS, *dir(ActionCtx), *dir(MutationCtx), *dir(QueryCtx)}
    assert not names & BROUGHT_BY[way], "it is there: it is pending no more"
    assert not [one.name for one in attempts() if one.name.startswith(way)]
