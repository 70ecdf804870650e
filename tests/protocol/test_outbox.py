"""What is on its way to one client: the shortcut to the kernel, and the long way round."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from engine.model.limits import Limits
from engine.server.outbox import Outbox


class Kernel:
    """A socket's buffer with so much room, and what has gone into it by both ways."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = ""
        self._rest = ""
        self.calls = 0
        self.is_read = trio.Event()
        """Until it is set, whoever waits for room goes on waiting."""

    def begin(self, *messages: bytes) -> bool:
        self.calls += 1
        if self._rest:
            return False
        text = b"".join(messages).decode()
        part = text[: self.room]
        self.taken += part
        self.room -= len(part)
        self._rest = text[len(part) :] if part else ""
        return bool(part)

    @property
    def is_begun(self) -> bool:
        return bool(self._rest)

    async def finish(self) -> None:
        await self.is_read.wait()
        self.taken += self._rest
        self._rest = ""

    async def send(self, event: dict[str, Any]) -> None:
        await self.is_read.wait()
        self.taken += self._rest + event.get("text", "[closed]")
        self._rest = ""


def outbox_of(kernel: Kernel, nursery: trio.Nursery, **limits: int) -> Outbox:
    outbox = Outbox(
        Limits(**limits),
        nursery,
        on_room=lambda: None,
        on_finished=lambda: None,
        shortcut=kernel,
    )
    outbox.open(kernel.send)
    return outbox


async def test_what_the_kernel_has_room_for_is_sent_where_it_is_put(
    nursery: trio.Nursery,
) -> None:
    kernel = Kernel(room=100)
    outbox = outbox_of(kernel, nursery)

    outbox.put(b"one,")
    outbox.put_transition([b"two"])

    assert "one,two" == kernel.taken
    assert outbox.has_room_for_transition


@pytest.mark.parametrize("room", [0, 2, 4, 6])
async def test_what_it_has_no_room_for_follows_in_order(
    room: int, autojump_clock: trio.testing.MockClock
) -> None:
    kernel = Kernel(room)
    async with trio.open_nursery() as nursery:
        outbox = outbox_of(kernel, nursery)
        outbox.put(b"one,")
        outbox.put(b"two,")
        await trio.testing.wait_all_tasks_blocked()
        kernel.room = 100
        outbox.put(b"three,")
        kernel.is_read.set()
        await trio.testing.wait_all_tasks_blocked()
        outbox.put(b"four")
        outbox.end(None, 1000, "")

    assert "one,two,three,four[closed]" == kernel.taken


async def test_a_transition_that_the_kernel_has_a_part_of_is_unsent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kernel = Kernel(room=2)
    async with trio.open_nursery() as nursery:
        outbox = outbox_of(kernel, nursery, unsent_transitions_max=1)
        outbox.put_transition([b"transition"])
        had_room = outbox.has_room_for_transition
        kernel.is_read.set()
        await trio.testing.wait_all_tasks_blocked()
        has_room, taken = outbox.has_room_for_transition, kernel.taken
        outbox.end(None, 1000, "")

    assert (False, True) == (had_room, has_room)
    assert "transition" == taken


@pytest.mark.parametrize("room", [0, 3, 8, 11, 20])
@pytest.mark.parametrize("parts", [[], [b"transition"], [b"transi", b"tion"]])
async def test_what_is_held_is_sent_in_one_call_and_in_order(
    room: int, parts: list[bytes], autojump_clock: trio.testing.MockClock
) -> None:
    kernel = Kernel(room)
    async with trio.open_nursery() as nursery:
        outbox = outbox_of(kernel, nursery, unsent_transitions_max=1)
        outbox.hold()
        outbox.put(b"response,")
        if parts:
            outbox.put_transition(parts)
        before = kernel.calls
        outbox.let_go()
        outbox.put(b"|next")
        calls = kernel.calls
        kernel.is_read.set()
        await trio.testing.wait_all_tasks_blocked()
        has_room, unsent = outbox.has_room_for_transition, outbox._bytes
        outbox.end(None, 1000, "")

    expected = "response," + b"".join(parts).decode()
    assert expected + "|next[closed]" == kernel.taken
    assert (0, True, 0) == (before, has_room, unsent)
    assert (2 if room >= len(expected) else 1) == calls


async def test_what_is_held_waits_its_turn_behind_what_has_not_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kernel = Kernel(room=2)
    async with trio.open_nursery() as nursery:
        outbox = outbox_of(kernel, nursery)
        outbox.put(b"one,")
        outbox.hold()
        outbox.put(b"two,")
        outbox.put_transition([b"three"])
        outbox.let_go()
        kernel.is_read.set()
        await trio.testing.wait_all_tasks_blocked()
        outbox.end(None, 1000, "")

    assert "one,two,three[closed]" == kernel.taken


async def test_a_client_that_is_sent_away_amid_what_is_held_is_told_all_of_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kernel = Kernel(room=100)
    kernel.is_read.set()
    async with trio.open_nursery() as nursery:
        outbox = outbox_of(kernel, nursery)
        outbox.hold()
        outbox.put(b"response,")
        outbox.end(b"farewell", 1000, "")
        outbox.let_go()

    assert "response,farewell[closed]" == kernel.taken


async def test_parts_of_a_transition_count_as_one_until_the_last_has_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kernel = Kernel(room=9)
    async with trio.open_nursery() as nursery:
        outbox = outbox_of(kernel, nursery, unsent_transitions_max=1)
        outbox.put_transition([b"part one,", b"part two,", b"part three"])
        had_room = outbox.has_room_for_transition
        kernel.is_read.set()
        await trio.testing.wait_all_tasks_blocked()
        has_room = outbox.has_room_for_transition
        outbox.end(None, 1000, "")

    assert (False, True) == (had_room, has_room)
    assert "part one,part two,part three[closed]" == kernel.taken


@pytest.mark.parametrize(("parts", "farewell"), [([b"whole"], "farewell"), ([b"a part", b""], "")])
async def test_a_client_with_too_much_unread_is_left_with_whole_messages(
    parts: list[bytes], farewell: str, autojump_clock: trio.testing.MockClock
) -> None:
    kernel = Kernel(room=2)
    async with trio.open_nursery() as nursery:
        outbox = outbox_of(kernel, nursery, unsent_bytes_max=5)
        outbox.put_transition(parts)
        outbox.end(b"farewell", 1000, "")
        kernel.is_read.set()

    assert f"{parts[0].decode()}{farewell}[closed]" == kernel.taken


async def test_nothing_is_sent_to_a_client_that_is_gone(nursery: trio.Nursery) -> None:
    kernel = Kernel(room=100)
    outbox = outbox_of(kernel, nursery)

    outbox.abandon()
    outbox.put(b"late")

    assert "" == kernel.taken


async def test_what_is_sent_at_once_breaks_the_silence(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    kernel = Kernel(room=100)
    outbox = outbox_of(kernel, nursery)
    await trio.sleep(Limits().ping_s - 1)
    outbox.put(b"news")
    await trio.sleep(2)

    outbox.tick(trio.current_time())

    assert "news" == kernel.taken
