"""Actors start in the order written down, drain in the reverse, and share one fate."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.kernel.actor import ActorExited, running


class Recorded:
    """An actor that notes what happens to it, and lives until it is closed."""

    def __init__(self, name: str, events: list[str], *, drain_s: float = 0) -> None:
        self.name = name
        self._events = events
        self._drain_s = drain_s
        self._closed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(1)
        self._events.append(f"{self.name} started")
        task_status.started()
        await self._closed.wait()
        await trio.sleep(self._drain_s)
        self._events.append(f"{self.name} drained")

    def close(self) -> None:
        self._closed.set()


class Broken(Recorded):
    """An actor that fails a second after it started."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)
        raise OSError("disk on fire")


class Quitter(Recorded):
    """An actor that returns although nobody closed it."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()


class Unable(Recorded):
    """An actor that cannot start."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:  # noqa: ARG002 - never does
        raise OSError("no such disk")


async def test_the_order_that_starts_them_is_reversed_to_drain_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    events: list[str] = []

    async with (
        running(Recorded("log", events), grace_s=5),
        running(Recorded("server", events), grace_s=5),
    ):
        events.append("open")

    assert events == ["log started", "server started", "open", "server drained", "log drained"]


async def test_one_that_drains_within_its_grace_is_left_to_finish(
    autojump_clock: trio.testing.MockClock,
) -> None:
    events: list[str] = []

    async with running(Recorded("slow", events, drain_s=4), grace_s=5):
        pass

    assert events == ["slow started", "slow drained"]
    assert trio.current_time() == 1 + 4


async def test_one_that_will_not_drain_is_cut_short(
    autojump_clock: trio.testing.MockClock,
) -> None:
    events: list[str] = []

    async with running(Recorded("stubborn", events, drain_s=60), grace_s=3):
        pass

    assert events == ["stubborn started"]
    assert trio.current_time() == 1 + 3


async def test_a_crash_stops_everybody_and_carries_its_cause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    events: list[str] = []

    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="on fire"), flatten_subgroups=True):
        async with (
            running(Recorded("log", events), grace_s=5),
            running(Broken("disk", events), grace_s=5),
        ):
            await trio.sleep_forever()

    assert events == ["log started"]


async def test_one_that_exits_uninvited_is_a_crash(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ActorExited, match="quitter returned although")):
        async with running(Quitter("quitter", []), grace_s=1):
            await trio.sleep(60)


async def test_an_error_in_the_block_cancels_the_actor(
    autojump_clock: trio.testing.MockClock,
) -> None:
    events: list[str] = []

    with pytest.RaisesGroup(KeyError):
        async with running(Recorded("log", events), grace_s=5):
            raise KeyError("mine")

    assert events == ["log started"]


async def test_what_keeps_one_from_starting_comes_out_as_it_is() -> None:
    with pytest.raises(OSError, match="no such disk"):
        async with running(Unable("log", []), grace_s=5):
            pytest.fail("it never started")
