"""What one client can make us hold, whatever it puts into which field of which message."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from engine.server.protocol import Refuse
from tests.protocol.talk import SESSION, Talk

MEGABYTE = 1_000_000
SAID = 100
"""Messages of a megabyte; so many at once are not to be held."""
HELD_BYTES_MAX = 2 * MEGABYTE
"""The limits below are a megabyte, and what is counted is what is held, give or take a message."""

LARGE = "x" * MEGABYTE
EMPTY: Final = [[dict[str, object]()] * 8_000] * 40
"""A megabyte of text, and over twenty as objects."""

LARGE_ARGS = {
    "a value": [{"text": LARGE}],
    "many objects": [{"empty": EMPTY}],
    "no value": [{"text": LARGE, "bytes": {"$bytes": "*"}}],
    "a name that is none": [{"$" + LARGE: 1}],
    "no object": [LARGE],
    "half a character": [{"text": "\ud800" + LARGE}],
}


class Held:
    """How much memory was taken since, and is still."""

    def __init__(self) -> None:
        self._before = tracemalloc.get_traced_memory()[0]

    @property
    def bytes(self) -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._before


@contextmanager
def measured() -> Iterator[Held]:
    tracemalloc.start()
    try:
        yield Held()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "fields",
    [
        *({"args": args} for args in LARGE_ARGS.values()),
        {"udfPath": LARGE},
        {"componentPath": LARGE},
        {"journal": LARGE},
        {"unknown": LARGE},
    ],
    ids=[*LARGE_ARGS, "path", "component", "journal", "unknown field"],
)
def test_whatever_is_large_about_a_query_counts_or_is_forgotten(fields: dict[str, Any]) -> None:
    talk = Talk.opened(limits={"queries_bytes_max": MEGABYTE})

    with measured() as held:
        for number in range(SAID):
            if isinstance(talk.modify({**talk.add(number), **fields}), Refuse):
                break

        assert held.bytes < HELD_BYTES_MAX


@pytest.mark.parametrize(
    "fields",
    [
        *({"args": args} for args in LARGE_ARGS.values()),
        {"udfPath": LARGE},
        {"componentPath": LARGE},
        {"unknown": LARGE},
    ],
    ids=[*LARGE_ARGS, "path", "component", "unknown field"],
)
@pytest.mark.parametrize("kind", ["Mutation", "Action"])
def test_whatever_is_large_about_a_call_counts_or_is_forgotten(
    kind: str, fields: dict[str, Any]
) -> None:
    talk = Talk.opened(
        limits={"mutations_queued_bytes_max": MEGABYTE, "actions_bytes_max": MEGABYTE}
    )
    call = {"type": kind, "requestId": 1, "udfPath": "m:f", "args": [{}]}
    steps = []

    with measured() as held:
        for _ in range(SAID):
            steps.append(talk.say(**{**call, **fields}))
            if talk.protocol.is_reading_paused():
                break

        assert held.bytes < HELD_BYTES_MAX


@pytest.mark.parametrize(
    "message",
    [
        {"type": "Event", "eventType": LARGE, "event": LARGE},
        {"type": "ModifyQuerySet", "modifications": [{"type": "Remove", "queryId": 7}]},
        {"type": "ModifyQuerySet", "modifications": [], "unknown": LARGE},
    ],
    ids=["event", "removing what is not there", "unknown field"],
)
def test_what_is_of_no_use_is_forgotten(message: dict[str, Any]) -> None:
    talk = Talk.opened()

    with measured() as held:
        for number in range(SAID):
            talk.say(**message, baseVersion=number, newVersion=number + 1)

        assert held.bytes < MEGABYTE


def test_nothing_of_a_connect_is_kept_but_who_it_is() -> None:
    with measured() as held:
        talk = Talk()
        talk.say(type="Connect", sessionId=SESSION, lastCloseReason=LARGE, unknown=LARGE)

        assert held.bytes < MEGABYTE // 2
