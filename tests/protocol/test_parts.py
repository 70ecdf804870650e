"""Large transitions in parts: to whom, cut where, and with nothing in between."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from engine.model.limits import Limits
from engine.server.parts import in_parts, takes_parts
from tests.protocol.cells import START_TS, Cells, Ctx
from tests.protocol.talk import REQUEST, Talk
from tests.protocol.tokens import custom, token
from tests.protocol.wires import Wire, serving

LIMITS = Limits(transition_bytes_max=2_000, transition_part_bytes_max=1_000)
NPM, PYTHON = "/api/1.48.0/sync", "/api/sync"
LARGE = "größer 🙂 " * 1_000


@pytest.mark.parametrize(
    ("path", "takes"),
    [
        ("/api/1.28.0/sync", True),
        ("/api/1.48.0/sync", True),
        ("/api/2.0.0/sync/", True),
        ("/api/1.27.3/sync", False),
        ("/api/1.9.0/sync", False),
        ("/api/0.99.0/sync", False),
        ("/api/1.28.0-alpha.1/sync", False),
        ("/api/sync", False),
        ("/api/python/sync", False),
        ("/api/1.48/sync", False),
    ],
)
def test_parts_are_for_clients_of_npm_that_know_them(path: str, takes: bool) -> None:
    assert takes_parts(path) is takes


@given(st.text(min_size=1), st.integers(1, 20))
def test_parts_are_the_text_cut_between_characters(text: str, bytes_max: int) -> None:
    parts = in_parts(text.encode(), bytes_max=bytes_max, transition_id="t")

    said = [json.loads(part) for part in parts]
    chunks = [each.pop("chunk") for each in said]
    assert "".join(chunks) == text
    assert all(0 < len(chunk.encode()) <= max(bytes_max, 4) for chunk in chunks)
    assert said == [
        {
            "type": "TransitionChunk",
            "partNumber": number,
            "totalParts": len(parts),
            "transitionId": "t",
        }
        for number in range(len(parts))
    ]


@pytest.mark.parametrize(
    ("takes", "size", "types"),
    [
        (True, 2_000, {"TransitionChunk"}),
        (True, 100, {"Transition"}),
        (False, 2_000, {"Transition"}),
    ],
    ids=["large", "small", "large for a client that does not take it"],
)
def test_a_large_transition_goes_in_parts_to_who_takes_them(
    takes: bool, size: int, types: set[str]
) -> None:
    talk = Talk.opened(takes_parts=takes, limits={"transition_bytes_max": 2_000})
    talk.modify(talk.add(0))
    plan = talk.protocol.begin()

    result = talk.result("x" * size)
    parts = talk.protocol.finish(plan, START_TS, {plan.asked[0]: result}, request_id=REQUEST)

    assert {json.loads(part)["type"] for part in parts} == types


def show(ctx: Ctx, cell: str = "cell") -> Any:
    return ctx.get(cell)


def put(ctx: Ctx, value: Any) -> None:
    ctx.put("cell", value)


def application() -> Cells:
    return Cells(queries={"m:show": show}, mutations={"m:put": put})


def together(heard: list[dict[str, Any]]) -> dict[str, Any]:
    """The transition that came in these parts."""
    assert [each["partNumber"] for each in heard] == list(range(heard[0]["totalParts"]))
    assert len({each["transitionId"] for each in heard}) == 1
    transition: dict[str, Any] = json.loads("".join(each["chunk"] for each in heard))
    return transition


async def test_a_transition_in_parts_is_one_between_its_neighbours(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells, limits=LIMITS) as house:
        wire = house.open(NPM)
        await wire.connect()
        await wire.add(0, "m:show")
        small = await wire.hear()
        cells.write(cell=LARGE)
        large = together(await wire.hear_all())
        await wire.modify({"type": "Remove", "queryId": 0})
        last = await wire.hear()

    assert large["startVersion"] == small["endVersion"]
    assert large["modifications"][0]["value"] == LARGE
    assert last["startVersion"] == large["endVersion"]


async def test_a_client_that_says_no_version_gets_the_same_whole(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.write(cell=LARGE)
    async with serving(cells, limits=LIMITS) as house:
        wire = house.open(PYTHON)
        await wire.connect()
        await wire.add(0, "m:show")
        [transition] = await wire.hear_all()

    assert transition["modifications"][0]["value"] == LARGE


async def answered_between_parts(wire: Wire) -> list[str]:
    """What is said, in order, when a mutation is answered while parts are on their way."""
    await wire.mutate(0, "m:put", value=1)
    await trio.testing.wait_all_tasks_blocked()
    wire.is_read.set()
    return [each["type"] for each in await wire.hear_all()]


async def test_nothing_comes_between_the_parts(autojump_clock: trio.testing.MockClock) -> None:
    cells = application()
    async with serving(cells, limits=LIMITS) as house:
        wire = house.open(NPM)
        await wire.connect()
        await wire.add(0, "m:show")
        await wire.hear()
        wire.is_read = trio.Event()
        cells.write(cell=LARGE)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(40)

        said = await answered_between_parts(wire)

    parts = said.index("MutationResponse")
    assert parts > 10
    assert said == ["TransitionChunk"] * parts + ["MutationResponse", "Transition"]


async def test_parts_count_as_one_unsent_transition(autojump_clock: trio.testing.MockClock) -> None:
    cells = application()
    async with serving(cells, limits=LIMITS) as house:
        wire = house.open(NPM)
        await wire.connect()
        await wire.add(0, "m:show")
        await wire.hear()
        shown = [await first_letters(cells, wire, text) for text in ("abcdef", "ABCDEF")]

    assert shown == [["a", "b", "f"], ["A", "B", "F"]]


async def first_letters(cells: Cells, wire: Wire, letters: str) -> list[str]:
    """Of the large texts that a client is shown which does not read while they are written."""
    wire.is_read = trio.Event()
    for letter in letters:
        cells.write(cell=letter + LARGE)
        await trio.testing.wait_all_tasks_blocked()
    wire.is_read.set()
    heard = await wire.hear_all()
    shown = []
    while heard:
        count = heard[0]["totalParts"]
        shown.append(together(heard[:count])["modifications"][0]["value"][0])
        del heard[:count]
    return shown


@pytest.mark.parametrize("has_begun", [False, True], ids=["before the first", "after it"])
async def test_a_client_is_told_no_more_than_goodbye_between_parts(
    has_begun: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Parts that nobody is going to read are dropped, and what is not a part is no end of them."""
    cells = application()
    limits = Limits(
        transition_bytes_max=2_000, transition_part_bytes_max=1_000, unsent_bytes_max=20_000
    )
    async with serving(cells, limits=limits, providers=[custom()]) as house:
        wire = house.open(NPM)
        await wire.connect()
        short = token(lifetime_s=5)
        await wire.say(type="Authenticate", baseVersion=0, tokenType="User", value=short)
        await wire.add(0, "m:show")
        await wire.hear_all()
        wire.is_read = trio.Event()
        if not has_begun:
            cells.write(cell="small")
            await trio.testing.wait_all_tasks_blocked()
        cells.write(cell=LARGE)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(10)
        await wire.mutate(0, "m:put", value=1)
        await trio.testing.wait_all_tasks_blocked()
        wire.is_read.set()
        heard = [each["type"] for each in await wire.hear_all()]

    first, farewell = ("TransitionChunk", []) if has_begun else ("Transition", ["AuthError"])
    assert heard == [first, *farewell, "closed"]
