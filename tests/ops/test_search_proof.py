"""`ops/prove search`: that an index which is wrong now and then is told from one that is not."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.proofs.search import Story, play
from tests.proofs.search_killed import Witness, live_and_kill
from tests.proofs.search_planted import PLANTED


@pytest.mark.parametrize(
    "bug",
    [
        "overlay-forgets-a-delete",
        "a-document-counts-twice",
        "a-fold-loses-what-ended-meanwhile",
        "the-log-is-not-read-after-a-crash",
        "own-vectors-forget-a-delete",
        "a-fold-of-vectors-loses-what-ended-meanwhile",
    ],
)
def test_a_planted_bug_is_seen(bug: str, tmp_path: Path) -> None:
    story, dice = Story(), Random(7)
    with PLANTED[bug]():
        for _ in range(20):
            play(tmp_path, dice.getrandbits(32), story)
            if story.problems:
                break

    assert story.problems


def test_without_one_nothing_is_seen(tmp_path: Path) -> None:
    story, dice = Story(), Random(7)
    for _ in range(5):
        play(tmp_path, dice.getrandbits(32), story)

    assert [] == story.problems


@pytest.mark.parametrize(
    "bug", ["a-checkpoint-is-ahead-of-its-files", "a-graph-holds-too-few-candidates"]
)
def test_a_planted_bug_is_seen_in_a_process_that_is_killed(bug: str, tmp_path: Path) -> None:
    witness = Witness()
    live_and_kill(tmp_path, 15, Random(7), witness, bug)

    assert [*witness.problems, *witness.missing(0)]
