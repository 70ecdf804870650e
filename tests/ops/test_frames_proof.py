"""What the proof of frames notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import frames
from tests.proofs.frames_planted import PLANTED
from tests.proofs.hostile_frames import Loot, conversation

# The HTTP server below leaves the channels between its tasks open when a connection is over.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <.*MemoryReceiveChannel:ResourceWarning")


@pytest.mark.parametrize(
    "bug",
    [
        "an error of decoding that nobody handles",
        "an identity kept from the connection before",
        "tokens that are not verified",
        "a mask that is applied from its second byte",
        "a piece of a message that is lost",
        "a ping amid pieces that is not answered",
        "one client's answer told to others",
    ],
)
def test_a_planted_bug_is_caught(bug: str, tmp_path: Path) -> None:
    with PLANTED[bug]():
        story = frames.tell(tmp_path / "data", 5, 3_000)

    assert story.problems


def test_a_crowd_of_which_nothing_came_is_no_proof() -> None:
    nothing = frames.Story(seed=1)

    assert 5 == len(frames.too_few_of(nothing, 1))


def test_a_conversation_is_the_same_for_its_seed_and_number() -> None:
    loot = Loot(
        tokens=["a", "b"],
        admin_keys=["c"],
        mallory="d",
        cursors=["e"],
        journals=["f"],
        recordings=[["g"]],
        message_bytes_max=10,
    )

    first, again, other = (conversation(*each, loot) for each in ((1, 2), (1, 2), (1, 3)))

    assert first == again != other
