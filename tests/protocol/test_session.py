"""One client's connection, task by task, on the autojump clock."""

from __future__ import annotations

import gc
import inspect
import json
from collections import Counter
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from engine.errors import (
    Conflict,
    ConvexError,
    FunctionTimeout,
    OutOfRetention,
    Overloaded,
    Stopped,
    StoreFull,
)
from engine.functions.results import Caller, MutationResult
from engine.kernel.runtime import VirtualRuntime
from engine.model.json_values import decode_ts, encode_ts
from engine.model.limits import Limits
from engine.server.fanout import SUBSCRIBERS_MAX, Fanout
from engine.server.protocol import Plan
from engine.server.server import SHORTCUT, Server, ServerConfig
from engine.server.session import Session
from engine.server.shortcut import Take
from engine.server.who import NOBODY
from tests.protocol.cells import START_TS, Cells, Ctx
from tests.protocol.tokens import custom, token
from tests.protocol.wires import ADMIN_KEY, House, Turns, serving


def show(ctx: Ctx, cell: str = "cell") -> Any:
    return ctx.get(cell)


def put(ctx: Ctx, value: Any, cell: str = "cell") -> Any:
    ctx.put(cell, value)
    return value


def put_and_fail(ctx: Ctx) -> None:
    ctx.put("cell", "never")
    raise ConvexError({"code": "ROLLED_BACK"})


def increment(ctx: Ctx) -> int:
    value: int = (ctx.get("n") or 0) + 1
    ctx.put("n", value)
    return value


def whoami(ctx: Ctx) -> str | None:
    return ctx.subject


def mine(ctx: Ctx) -> Any:
    return [ctx.subject, ctx.get("cell")]


async def put_by_action(cells: Cells, _caller: Caller, value: Any) -> None:
    cells.write(cell=value)


async def add(_cells: Cells, _caller: Caller, a: float, b: float) -> float:
    return a + b


def application() -> Cells:
    return Cells(
        queries={"m:show": show, "m:slow": show, "m:whoami": whoami, "m:mine": mine},
        mutations={"m:put": put, "m:fail": put_and_fail, "m:increment": increment},
        actions={"m:add": add, "m:put_by_action": put_by_action},
    )


def values(transition: dict[str, Any]) -> dict[int, Any]:
    return {each["queryId"]: each.get("value") for each in transition["modifications"]}


async def test_a_query_is_shown_and_then_followed(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(application()) as house:
        wire = await house.dial()
        await wire.add(0, "m:show")
        first = await wire.hear()
        house.cells.write(cell="news")
        second = await wire.hear()

    assert (values(first), values(second)) == ({0: None}, {0: "news"})
    assert second["startVersion"] == first["endVersion"]


async def test_what_is_committed_elsewhere_says_nothing_to_whom_it_does_not_concern(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(application()) as house:
        wire = await house.dial()
        await wire.add(0, "m:show")
        await wire.hear()
        house.cells.write(another="x")

        assert await wire.hear_all() == []


async def test_many_queries_are_answered_at_one_timestamp(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.gates["m:show"] = trio.Event()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.modify(*({"type": "Add", "queryId": n, "udfPath": "m:show"} for n in range(50)))
        await trio.testing.wait_all_tasks_blocked()
        cells.write(cell="later")
        cells.gates.pop("m:show").set()
        first = await wire.hear()
        second = await wire.hear()

    assert values(first) == dict.fromkeys(range(50))
    assert first["endVersion"]["ts"] == encode_ts(START_TS)
    assert values(second) == dict.fromkeys(range(50), "later")


async def test_only_so_many_queries_are_evaluated_at_a_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.gates["m:show"] = trio.Event()
    async with serving(cells, limits=Limits(parallel_queries_max=3)) as house:
        wire = await house.dial()
        adds = (
            {"type": "Add", "queryId": n, "udfPath": "m:show", "args": [{"cell": f"c{n}"}]}
            for n in range(10)
        )
        await wire.modify(*adds)
        await trio.testing.wait_all_tasks_blocked()
        begun = len(cells.runs)
        cells.gates.pop("m:show").set()
        await wire.hear()

    assert (begun, len(cells.runs)) == (3, 10)


async def test_what_many_clients_show_is_evaluated_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells) as house:
        wires = [await house.dial() for _ in range(SUBSCRIBERS_MAX)]
        for wire in wires:
            await wire.add(0, "m:show")
        for wire in wires:
            await wire.hear()
        cells.runs.clear()
        cells.write(cell="news")
        told = [values(await wire.hear()) for wire in wires]

    assert told == [{0: "news"}] * SUBSCRIBERS_MAX
    assert cells.runs == ["m:show"]


async def test_a_slow_query_holds_up_only_those_who_show_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells) as house:
        slow, quick = await house.dial(), await house.dial()
        await slow.add(0, "m:slow")
        await quick.add(0, "m:show")
        for wire in (slow, quick):
            await wire.hear()
        cells.gates["m:slow"] = trio.Event()
        for number in range(3):
            cells.write(cell=number)
            assert values(await quick.hear()) == {0: number}
        cells.gates["m:slow"].set()
        last = [values(each) for each in await slow.hear_all()]

    assert last[-1] == {0: 2}


@pytest.mark.parametrize(("size", "at_once"), [(100, 64), (1 << 20, 4), (1 << 23, 1)])
async def test_others_get_their_turn_while_a_crowd_is_told(
    size: int,
    at_once: int,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    turns = 0
    told: Counter[int] = Counter()
    tell = Session.tell

    def noted(session: Session, *args: Any) -> None:
        told[turns] += 1
        tell(session, *args)

    async with serving(application()) as house:
        wires = [await house.dial() for _ in range(130)]
        for wire in wires:
            await wire.add(0, "m:show")
            await wire.hear()
        monkeypatch.setattr(Session, "tell", noted)
        house.cells.write(cell="x" * size)
        while told.total() < len(wires):
            turns += 1
            await trio.lowlevel.checkpoint()

    # Who goes first in a turn is drawn: they may go last in one, and first in the next.
    assert max(told.values()) <= 2 * at_once


async def test_everybody_is_told_what_is_his(autojump_clock: trio.testing.MockClock) -> None:
    cells = application()
    async with serving(cells) as house:
        wires = [await house.dial() for _ in range(4)]
        for wire, name in zip(wires, ["ada", "bob", "ada", None], strict=True):
            if name is not None:
                await wire.act_as(name)
            await wire.add(0, "m:mine")
        told = [[values(each) for each in await wire.hear_all()][-1] for wire in wires]
        cells.runs.clear()
        cells.write(cell=1)
        again = [values(await wire.hear()) for wire in wires]

    assert told == [{0: [name, None]} for name in ("ada", "bob", "ada", None)]
    assert again == [{0: [name, 1]} for name in ("ada", "bob", "ada", None)]
    assert len(cells.runs) == 3


async def test_a_crowd_of_users_is_told_what_is_his_in_one_round(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """None of them is forgotten, whoever turns out to have been asked for whom."""
    cells = application()
    names = [f"user {number % 3}" for number in range(SUBSCRIBERS_MAX)]
    async with serving(cells) as house:
        wires = [await house.dial() for _ in names]
        for wire, name in zip(wires, names, strict=True):
            await wire.act_as(name)
            await wire.hear_until("Transition")
        cells.is_comparing = False
        cells.write(cell=1)
        for number, wire in enumerate(wires):
            await wire.modify(
                {"type": "Add", "queryId": 0, "udfPath": "m:mine"},
                {
                    "type": "Add",
                    "queryId": 1,
                    "udfPath": "m:show",
                    "args": [{"cell": f"c{number % 19}"}],
                },
            )
        await trio.testing.wait_all_tasks_blocked()
        cells.compare()
        told = [values(await wire.hear()) for wire in wires]

    assert told == [{0: [name, 1], 1: None} for name in names]
    assert cells.runs.count("m:mine") < 10


async def test_a_query_that_cannot_run_holds_up_only_those_who_show_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells) as house:
        unlucky, lucky = await house.dial(), await house.dial()
        await unlucky.add(0, "m:slow")
        await lucky.add(0, "m:show")
        for wire in (unlucky, lucky):
            await wire.hear()
        cells.errors["m:slow"] = [RuntimeError("a bug")]
        cells.write(cell=1)
        told, closed = await lucky.hear(), await unlucky.hear_until("closed")

        assert (values(told), closed["code"]) == ({0: 1}, 1011)
        assert cells.subscriptions.statistics().lives == 1


async def test_a_transition_waits_until_every_commit_before_it_was_compared(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.add(0, "m:show")
        await wire.hear()
        cells.is_comparing = False
        cells.write(cell="new")
        await wire.modify()
        silence = await wire.hear_all()
        cells.compare()
        transition = await wire.hear()

    assert silence == []
    assert values(transition) == {0: "new"}


class Told:
    """One who is due, and was told of a state by another than the fan-out."""

    def __init__(self, fanout: Fanout, ts: int) -> None:
        self.fanout = fanout
        self.ts = ts
        self.told: list[int] = []

    def is_ahead_of(self, ts: int) -> bool:
        return self.ts > ts

    def plan(self) -> Plan:
        nothing: tuple[()] = ()
        return Plan(
            query_set=0,
            identity=0,
            who=NOBODY,
            asked=nothing,
            refused=nothing,
            removed=nothing,
            behind=None,
        )

    def tell(self, _plan: Plan, ts: int, _results: object, _request_id: str) -> None:
        self.told.append(ts)
        self.fanout.release(self)

    def give_up(self, error: Exception) -> None:
        raise error


async def test_nobody_is_told_of_a_state_before_the_one_that_he_knows() -> None:
    """A round has waited for its state, and an answer has come along with a later one."""
    cells = application()
    fanout = Fanout(cells, VirtualRuntime(seed=7), Limits())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fanout.run)
        cells.is_comparing = False
        cells.write(cell="new")
        behind = Told(fanout, START_TS)
        fanout.due(behind)
        await trio.testing.wait_all_tasks_blocked()
        newest = cells.write(cell="newer")
        ahead = Told(fanout, newest)
        fanout.due(ahead)
        cells.compare()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert (behind.told, ahead.told) == ([newest - 10], [newest])


# Mutations.


async def test_a_response_comes_before_the_transition_that_shows_its_commit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.add(0, "m:show")
        await wire.hear()
        for number in range(20):
            await wire.mutate(number, "m:put", value=number)
        heard = await wire.hear_all()

    covered = 0
    for message in heard:
        if message["type"] == "MutationResponse":
            assert decode_ts(message["ts"]) > covered
        else:
            covered = decode_ts(message["endVersion"]["ts"])
    responses = [m["result"] for m in heard if m["type"] == "MutationResponse"]
    assert responses == [float(number) for number in range(20)]
    assert covered == cells.published.value
    assert values(heard[-1]) == {0: 19.0}


async def test_a_transition_is_held_for_the_mutation_whose_commit_it_shows(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Here the commit is seen by the subscription long before the mutation answers."""
    cells = application()
    cells.answer_gates["m:put"] = trio.Event()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.add(0, "m:show")
        await wire.hear()
        await wire.mutate(0, "m:put", value="mine")
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.2)
        cells.answer_gates["m:put"].set()
        heard = await wire.hear_all()

    assert [message["type"] for message in heard] == ["MutationResponse", "Transition"]


async def test_a_long_mutation_does_not_keep_the_news_of_others_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.gates["m:put"] = trio.Event()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.add(0, "m:show")
        await wire.hear()
        await wire.mutate(0, "m:put", value="mine")
        await trio.testing.wait_all_tasks_blocked()
        cells.write(cell="theirs")
        began = trio.current_time()
        transition = await wire.hear()
        waited_s = trio.current_time() - began

    assert values(transition) == {0: "theirs"}
    assert waited_s < 0.5


async def test_mutations_run_in_order_and_failures_stop_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells) as house:
        wire = await house.dial()
        for number, path in enumerate(["m:increment", "m:fail", "m:increment", "m:nope"]):
            await wire.mutate(number, path)
        heard = await wire.hear_all()

    responses = [message for message in heard if message["type"] == "MutationResponse"]
    assert [response["requestId"] for response in responses] == [0, 1, 2, 3]
    assert [response["success"] for response in responses] == [True, False, True, False]
    assert [response["result"] for response in responses if response["success"]] == [1.0, 2.0]
    assert "Could not find public function for 'm:nope'" in responses[3]["result"]


@pytest.mark.parametrize("path", ["m:put", "m:fail"])
async def test_a_transition_follows_every_mutation_though_nothing_is_shown(
    path: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(application()) as house:
        wire = await house.dial()
        await wire.mutate(0, path, **({"value": 1} if path == "m:put" else {}))
        heard = await wire.hear_all()

    assert [message["type"] for message in heard] == ["MutationResponse", "Transition"]


async def test_a_mutation_sent_again_on_a_new_connection_runs_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells) as house:
        responses = []
        for _ in range(2):
            wire = await house.dial()
            await wire.mutate(5, "m:increment")
            responses.append(await wire.hear_until("MutationResponse"))
            await wire.hear_until("Transition")
            await wire.hang_up()

    assert responses[0] == responses[1]
    assert responses[0]["result"] == 1.0


async def test_what_is_sent_again_is_answered_before_the_data_that_show_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Otherwise the client would show what it did twice, as data and as its own guess."""
    cells = application()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.mutate(5, "m:put", value="mine")
        await wire.hear_until("MutationResponse")
        await wire.hang_up()
        back = await house.dial(connectionCount=1)
        await back.add(0, "m:show")
        await back.mutate(5, "m:put", value="mine")
        heard = await back.hear_all()

    assert [message["type"] for message in heard] == ["MutationResponse", "Transition"]
    assert values(heard[1]) == {0: "mine"}


NUMBERS = [[1] * 8_000] * 40
"""Each row is more than is read in one step."""


def echo(_ctx: Ctx, value: Any) -> Any:
    return value


@pytest.mark.parametrize("kind", ["Mutation", "Action", "Add"])
async def test_others_get_their_turns_while_large_arguments_are_read(
    kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    turns = Turns()

    async def echo_by_action(_cells: Cells, _caller: Caller, value: Any) -> Any:
        return value

    cells = Cells(
        queries={"m:Add": echo},
        mutations={"m:Mutation": echo},
        actions={"m:Action": echo_by_action},
    )
    async with serving(cells) as house:
        client = await house.dial()
        house.nursery.start_soon(turns.take)
        if kind == "Add":
            await client.add(0, "m:Add", {"value": NUMBERS})
            [shown] = (await client.hear_until("Transition"))["modifications"]
            value = shown["value"]
        else:
            call = {"requestId": 1, "udfPath": f"m:{kind}", "args": [{"value": NUMBERS}]}
            await client.say(type=kind, **call)
            value = (await client.hear_until(f"{kind}Response"))["result"]

    assert value == NUMBERS
    assert turns.count >= len(NUMBERS) // 2


class OneWay:
    """A host's shortcut that takes nothing, and hands on what its client says."""

    is_begun = False

    def __init__(self) -> None:
        self.take: Take | None = None

    def listen(self, take: Take) -> bool:
        self.take = take
        return True

    def begin(self, *_messages: bytes) -> bool:
        return False

    async def finish(self) -> None:
        raise AssertionError("nothing was begun")


async def test_a_client_may_leave_while_its_large_arguments_are_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shortcut = OneWay()
    add = {"type": "Add", "queryId": 0, "udfPath": "m:show", "args": [{"cell": NUMBERS}]}
    edit = {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [add]}
    async with serving(application()) as house:
        wire = house.open(extensions={SHORTCUT: shortcut})
        await wire.connect()
        await trio.testing.wait_all_tasks_blocked()
        assert shortcut.take is not None
        with capture_logs() as traces:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(shortcut.take, json.dumps(edit))
                for _ in range(3):  # so it has begun
                    await trio.lowlevel.checkpoint()
                await wire.hang_up()

    assert [] == [each for each in traces if each["log_level"] == "error"]


@pytest.mark.parametrize("kind", ["Mutation", "Action", "Add"])
async def test_arguments_that_become_too_large_fail_their_call_alone(
    kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    limits = Limits(args_bytes_max=1 << 20)
    async with serving(application(), limits=limits) as house:
        client = await house.dial()
        if kind == "Add":
            await client.add(0, "m:show", {"cell": NUMBERS})
            [shown] = (await client.hear_until("Transition"))["modifications"]
            told = shown["errorMessage"]
        else:
            call = {"requestId": 1, "udfPath": "m:put", "args": [{"value": NUMBERS}]}
            await client.say(type=kind, **call)
            told = (await client.hear_until(f"{kind}Response"))["result"]
        await client.mutate(2, "m:increment")
        answer = await client.hear_until("MutationResponse")

    assert "over 1,048,576 bytes" in told
    assert answer["result"] == 1


async def test_malformed_arguments_fail_their_call_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(application()) as house:
        wire = await house.dial()
        for kind in ("Mutation", "Action"):
            await wire.say(type=kind, requestId=1, udfPath="m:put", args=[{"v": {"$bytes": "*"}}])
            response = await wire.hear_until(f"{kind}Response")

            assert response["success"] is False
            assert "Invalid arguments for m:put" in response["result"]


async def test_a_component_is_hidden_from_calls_of_clients(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(application()) as house:
        wire = await house.dial()
        await wire.say(
            type="Mutation", requestId=0, udfPath="m:put", args=[{"value": 1}], componentPath="c"
        )
        response = await wire.hear_until("MutationResponse")

    assert "Could not find public function for 'm:put' in 'c'." in response["result"]


# Actions.


async def test_actions_run_beside_each_other_and_beside_mutations(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.gates["m:put_by_action"] = trio.Event()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.act(0, "m:put_by_action", value=1)
        await wire.act(1, "m:add", a=2, b=3)
        await wire.mutate(2, "m:increment")
        first = {(await wire.hear_until(kind))["requestId"] for kind in ["ActionResponse"]}
        await wire.hear_until("MutationResponse")
        cells.gates["m:put_by_action"].set()
        last = await wire.hear_until("ActionResponse")

    assert (first, last["requestId"]) == ({1}, 0)


async def test_what_an_action_wrote_is_in_the_transition_after_its_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(application()) as house:
        wire = await house.dial()
        await wire.add(0, "m:show")
        await wire.hear()
        await wire.act(1, "m:put_by_action", value="by action")
        heard = await wire.hear_all()

    shown = [values(each) for each in heard if each["type"] == "Transition"]
    assert {0: "by action"} in shown
    assert heard[-1]["type"] == "Transition"


async def test_an_action_outlives_its_connection(autojump_clock: trio.testing.MockClock) -> None:
    cells = application()
    cells.gates["m:put_by_action"] = trio.Event()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.act(0, "m:put_by_action", value="done")
        await trio.testing.wait_all_tasks_blocked()
        await wire.hang_up()
        await trio.sleep(1)
        gone = house.server.statistics().sessions
        cells.gates["m:put_by_action"].set()
        await trio.testing.wait_all_tasks_blocked()

    assert gone == 0
    assert cells.published.value > START_TS


# Slow and silent clients.


async def test_changes_coalesce_while_a_client_does_not_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.add(0, "m:show")
        await wire.hear()
        wire.is_read = trio.Event()
        for number in range(100):
            cells.write(cell=number)
            await trio.testing.wait_all_tasks_blocked()
        wire.is_read.set()
        heard = await wire.hear_all()

    assert len(heard) <= 3
    assert values(heard[-1]) == {0: 99.0}


async def test_no_mutation_is_begun_for_a_client_that_does_not_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells) as house:
        wire = await house.dial()
        wire.is_read = trio.Event()
        for number in range(10):
            await wire.mutate(number, "m:put", value="x" * 400_000)
        await trio.testing.wait_all_tasks_blocked()
        begun = len(cells.runs)
        wire.is_read.set()
        await wire.hear_all()

    assert begun < 6
    assert cells.runs.count("m:put") == 10


async def test_a_client_with_more_mutations_than_may_wait_is_not_read_meanwhile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It was offline for long, say: sent away it would come back with all of them again."""
    cells = application()
    cells.gates["m:increment"] = trio.Event()
    async with serving(cells, limits=Limits(mutations_queued_max=3)) as house:
        wire = await house.dial()
        for number in range(20):
            await wire.mutate(number, "m:increment")
        await trio.testing.wait_all_tasks_blocked()
        unread = wire.unread_count
        cells.gates["m:increment"].set()
        heard = await wire.hear_all()

    assert unread == 20 - 1 - 3
    answers = [each["result"] for each in heard if each["type"] == "MutationResponse"]
    assert answers == [float(number) for number in range(1, 21)]


async def test_an_action_too_many_fails_alone_and_a_transition_follows(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.gates["m:add"] = trio.Event()
    async with serving(cells, limits=Limits(actions_in_flight_max=1)) as house:
        wire = await house.dial()
        await wire.act(0, "m:add", a=1, b=2)
        await wire.act(1, "m:add", a=1, b=2)
        refused = await wire.hear_all()
        cells.gates["m:add"].set()
        heard = await wire.hear_all()

    assert [each["type"] for each in refused] == ["ActionResponse", "Transition"]
    assert (refused[0]["requestId"], refused[0]["success"]) == (1, False)
    assert (heard[0]["requestId"], heard[0]["success"]) == (0, True)


async def test_a_client_that_never_reads_again_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells, limits=Limits(send_s_max=60)) as house:
        wire = await house.dial()
        await wire.add(0, "m:show")
        await wire.hear()
        wire.is_read = trio.Event()
        cells.write(cell=1)
        await trio.sleep(100)

        assert house.server.statistics().sessions == 0
        assert cells.subscriptions.statistics().lives == 0


async def test_a_client_that_shows_too_much_is_sent_away_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.write(a="x" * 600, b="x" * 600)
    async with serving(cells, limits=Limits(results_bytes_max=1_000)) as house:
        modest, greedy = await house.dial(), await house.dial()
        await modest.add(0, "m:show", {"cell": "a"})
        shown = await modest.hear()
        await greedy.modify(
            *(
                {"type": "Add", "queryId": n, "udfPath": "m:show", "args": [{"cell": cell}]}
                for n, cell in enumerate("ab")
            )
        )
        closed = await greedy.hear_until("closed")
        cells.write(a="news")
        news = await modest.hear()

        assert (values(shown), values(news)) == ({0: "x" * 600}, {0: "news"})
        assert closed["code"] == 1013
        assert closed["reason"].startswith("TooMuchShown: results that one client is to be told")
        assert cells.subscriptions.statistics().lives == 1


async def test_a_client_that_leaves_too_much_unread_is_sent_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    async with serving(cells, limits=Limits(unsent_bytes_max=1000)) as house:
        wire = await house.dial()
        wire.is_read = trio.Event()
        for number in range(30):
            await wire.act(number, "m:add", a=1, b=2)
        await trio.testing.wait_all_tasks_blocked()
        wire.is_read.set()
        closed = await wire.hear_until("closed")

    assert closed["code"] == 1013
    assert "SlowClient" in closed["reason"]


@pytest.mark.parametrize("error", [trio.BusyResourceError("x"), OSError("x"), RuntimeError("x")])
async def test_a_connection_that_breaks_ends_its_session_alone(
    error: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    cells = application()
    async with serving(cells) as house:
        wires = [await house.dial() for _ in range(2)]
        for wire in wires:
            await wire.add(0, "m:show")
            await wire.hear()
        wires[0].broken = error
        cells.write(cell=1)
        other = await wires[1].hear()
        await trio.sleep(1)

        assert values(other) == {0: 1.0}
        assert house.server.statistics().sessions == 1
        assert cells.subscriptions.statistics().lives == 1


async def test_a_ping_breaks_the_silence(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(application()) as house:
        wire = await house.dial()
        began = trio.current_time()
        heard = [(await wire.hear())["type"] for _ in range(3)]
        passed_s = trio.current_time() - began

    assert heard == ["Ping"] * 3
    assert 45 <= passed_s <= 49


async def test_a_connection_without_connect_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(application()) as house:
        wire = house.open()
        heard = [await wire.hear()]
        while heard[-1]["type"] != "closed":
            heard.append(await wire.hear())

    assert {message["type"] for message in heard} == {"Ping", "closed"}
    assert (heard[-1]["code"], heard[-1]["reason"]) == (1000, "InactiveClient")


# Endings.


@pytest.mark.parametrize(
    "text", ["{not json", '{"type":"Dance"}', '{"type":"Mutation","requestId":1,"udfPath":"m:f"}']
)
async def test_a_violation_is_fatal_and_closes(
    text: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(application()) as house:
        wire = house.open()
        await wire.say_text(text)
        heard = [await wire.hear(), await wire.hear()]

    assert [message["type"] for message in heard] == ["FatalError", "closed"]
    assert heard[1]["code"] == 1000


async def test_a_binary_message_is_a_violation(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(application()) as house:
        wire = house.open()
        await wire.say_event(type="websocket.receive", bytes=b"\x00", text=None)

        assert (await wire.hear())["type"] == "FatalError"


async def test_a_client_from_the_future_is_not_served(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Not until there is a commit that nobody can have seen: by then it is known what is lost."""
    cells = application()
    async with serving(cells) as house:
        with capture_logs() as traces:
            wire = await house.dial(maxObservedTimestamp=encode_ts(START_TS + 1))
            closed = await wire.hear()
        cells.write(cell="restored")
        later = await house.dial(maxObservedTimestamp=encode_ts(START_TS + 1))
        await later.add(0, "m:show")
        transition = await later.hear()

    assert closed["code"] == 1011
    assert closed["reason"].startswith("InternalServerError")
    [told] = [each for each in traces if each["event"] == "session.from_the_future"]
    assert (told["observed_ts"], told["published_ts"]) == (START_TS + 1, START_TS)
    assert "the next commit lets them in" in told["todo"]
    assert values(transition) == {0: "restored"}


async def test_a_timestamp_that_no_commit_can_have_had_is_no_error_of_the_data(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(application()) as house:
        with capture_logs() as traces:
            wire = await house.dial(maxObservedTimestamp=encode_ts(1 << 62))
            closed = await wire.hear()

    assert closed["code"] == 1011
    [told] = [each for each in traces if each["event"] == "session.from_the_future"]
    assert ("info", "Nothing: no commit has had it.") == (told["log_level"], told["todo"])


async def test_an_action_that_there_is_no_room_for_fails_and_leaves_the_others_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.gates["m:put_by_action"] = trio.Event()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.act(0, "m:put_by_action", value="done")
        await trio.testing.wait_all_tasks_blocked()
        cells.errors["m:add"] = [Overloaded("the places for actions", 10)]
        await wire.act(1, "m:add", a=1, b=2)
        refused = await wire.hear()
        cells.gates["m:put_by_action"].set()
        heard = await wire.hear_all()

    [answer] = [each for each in heard if each["type"] == "ActionResponse"]
    assert (1, False) == (refused["requestId"], refused["success"])
    assert "Uncaught Overloaded: the places for actions had no room for 10 s" in refused["result"]
    assert (0, True) == (answer["requestId"], answer["success"])


async def test_a_mutation_that_finds_no_room_on_the_disk_fails_and_the_next_one_runs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.errors["m:put"] = [StoreFull("data/store took nothing")]
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.mutate(0, "m:put", value=1)
        await wire.mutate(1, "m:put", value=2)
        heard = await wire.hear_all()

    refused, done = [each for each in heard if each["type"] == "MutationResponse"]
    assert (0, False) == (refused["requestId"], refused["success"])
    assert "Uncaught StoreFull: " in refused["result"]
    assert (1, True) == (done["requestId"], done["success"])


async def test_a_client_that_has_seen_the_newest_state_is_served(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(application()) as house:
        wire = await house.dial(maxObservedTimestamp=encode_ts(START_TS))
        await wire.modify()

        assert (await wire.hear())["type"] == "Transition"


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (Overloaded("the committer", 5), 1013, "TooManyConcurrentRequests: the committer"),
        (FunctionTimeout("a snapshot"), 1013, "SystemTimeoutError: a snapshot"),
        (Conflict("a push"), 1013, "Conflict: a push"),
        (Stopped("the engine"), 1001, "ServerStopped"),
        (RuntimeError("a bug"), 1011, "InternalServerError"),
    ],
)
async def test_what_keeps_a_mutation_from_running_closes_for_the_client_to_try_again(
    error: Exception, code: int, reason: str, autojump_clock: trio.testing.MockClock
) -> None:
    cells = application()
    cells.errors["m:put"] = [error]
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.mutate(0, "m:put", value=1)
        closed = await wire.hear()

    assert closed["type"] == "closed"
    assert closed["code"] == code
    assert closed["reason"].startswith(reason)


async def test_a_query_that_cannot_run_now_is_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.errors["m:show"] = [OutOfRetention("too old"), Overloaded("the engine", 1)]
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.add(0, "m:show")
        transition = await wire.hear()

    assert values(transition) == {0: None}
    assert cells.runs == ["m:show"] * 3


async def test_one_query_that_cannot_run_lets_go_of_what_the_others_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.errors["m:whoami"] = [Overloaded("the engine", 1)] * 10
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.modify(
            {"type": "Add", "queryId": 0, "udfPath": "m:show"},
            {"type": "Add", "queryId": 1, "udfPath": "m:whoami"},
        )
        closed = await wire.hear_until("closed")

        assert closed["code"] == 1013
        assert cells.subscriptions.statistics().lives == 0


async def test_hanging_up_lets_go_of_everything(autojump_clock: trio.testing.MockClock) -> None:
    cells = application()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.add(0, "m:show")
        await wire.hear()
        await wire.hang_up()
        await trio.sleep(1)

        assert house.server.statistics().sessions == 0
        assert cells.subscriptions.statistics().lives == 0


async def test_a_transition_that_is_held_goes_with_its_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.answer_gates["m:put"] = trio.Event()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.add(0, "m:show")
        await wire.hear()
        await wire.mutate(0, "m:put", value="mine")
        await trio.testing.wait_all_tasks_blocked()
        is_held = wire.unheard_count == 0
        await wire.hang_up()
        await trio.testing.wait_all_tasks_blocked()

        assert (is_held, cells.subscriptions.statistics().lives) == (True, 0)


async def test_a_session_keeps_nothing_of_a_mutation_that_it_has_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(application()) as house:
        wire = await house.dial()
        await wire.mutate(0, "m:put", value="x" * 1_000)
        await wire.hear_until("MutationResponse")
        await trio.testing.wait_all_tasks_blocked()
        results = [one for one in gc.get_objects() if isinstance(one, MutationResult)]
        waiting = list(filter(inspect.iscoroutine, gc.get_referrers(*results)))

        assert results, "the backend has it"
        assert not waiting


@pytest.mark.parametrize("is_sending", [False, True])
async def test_a_client_that_is_gone_leaves_no_task_behind(
    is_sending: bool, autojump_clock: trio.testing.MockClock
) -> None:
    cells = application()
    async with serving(cells) as house:
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        wire = await house.dial()
        await wire.add(0, "m:show")
        await wire.hear()
        if is_sending:
            wire.is_read = trio.Event()
            cells.write(cell=1)
            await trio.testing.wait_all_tasks_blocked()
        await wire.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        wire.is_read.set()
        await trio.sleep(1)

        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_draining_answers_what_runs_and_sends_the_client_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    cells.gates["m:put"] = trio.Event()
    async with serving(cells) as house:
        wire = await house.dial()
        await wire.mutate(0, "m:put", value=1)
        await wire.mutate(1, "m:put", value=2)
        await trio.testing.wait_all_tasks_blocked()
        house.server.drain()
        await trio.testing.wait_all_tasks_blocked()
        cells.gates["m:put"].set()
        response = await wire.hear_until("MutationResponse")
        closed = await wire.hear_until("closed")
        late = house.open()
        refused = await late.hear()

    assert response["requestId"] == 0
    assert closed["code"] == 1001
    assert refused["code"] == 1013
    assert cells.runs == ["m:put"]


async def test_more_sessions_than_fit_are_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(application(), limits=Limits(sessions_max=1)) as house:
        await house.dial()
        await trio.testing.wait_all_tasks_blocked()
        second = house.open()

        assert (await second.hear())["code"] == 1013


@pytest.mark.parametrize(
    ("path", "root_path", "is_there"),
    [
        ("/api/sync", "", True),
        ("/api/1.48.0/sync", "", True),
        ("/engine/api/1.48.0/sync", "/engine", True),
        ("/api/1.48.0/sync", "/engine", True),
        ("/sync", "", False),
        ("/api/x/y/sync", "", False),
    ],
)
async def test_the_protocol_is_spoken_below_the_prefix(
    path: str, root_path: str, is_there: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(application()) as house:
        wire = house.open(path, root_path)
        await wire.connect()
        await wire.modify()

        assert (await wire.hear())["type"] == ("Transition" if is_there else "closed")


# Who.


async def test_an_administrator_acts_as_a_user(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(application()) as house:
        wire = await house.dial()
        await wire.act_as("ada")
        await wire.add(0, "m:whoami")
        transition = await wire.hear_until("Transition")
        while 0 not in values(transition):
            transition = await wire.hear_until("Transition")

    assert values(transition) == {0: "ada"}


@pytest.mark.parametrize(
    "fields",
    [
        {"tokenType": "Admin", "value": "wrong|key"},
        {"tokenType": "Admin", "value": ADMIN_KEY, "impersonating": {}},
        {"tokenType": "Admin", "value": ADMIN_KEY, "actingAs": {"issuer": "i"}},
        {"tokenType": "Admin", "value": f"{ADMIN_KEY}:e30="},
        {"tokenType": "Admin"},
        {"tokenType": "User", "value": "no.to.ken"},
        {"tokenType": "User", "value": ADMIN_KEY},
        {"tokenType": "User"},
    ],
)
async def test_a_refused_token_is_told_and_closes(
    fields: dict[str, Any], autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(application()) as house:
        wire = await house.dial()
        await wire.say(type="Authenticate", baseVersion=0, **fields)
        refused = await wire.hear_until("AuthError")
        closed = await wire.hear()

    assert (refused["baseVersion"], refused["authUpdateAttempted"]) == (0, True)
    assert (closed["type"], closed["code"]) == ("closed", 1000)


@pytest.mark.parametrize("what", ["mutation", "action", "commit"])
async def test_nothing_is_done_with_a_token_that_has_run_out(
    what: str, autojump_clock: trio.testing.MockClock
) -> None:
    cells = application()
    async with serving(cells, providers=[custom()]) as house:
        wire = await house.dial()
        short = token(lifetime_s=5)
        await wire.say(type="Authenticate", baseVersion=0, tokenType="User", value=short)
        await wire.add(0, "m:whoami")
        await wire.add(1, "m:show")
        shown = [value for each in await wire.hear_all() for value in values(each).values()]
        await trio.sleep(6)
        cells.runs.clear()
        match what:
            case "mutation":
                await wire.mutate(0, "m:put", value=1)
            case "action":
                await wire.act(0, "m:put_by_action", value=1)
            case "commit":
                cells.write(cell=1)
        refused = await wire.hear_until("AuthError")
        closed = await wire.hear()

    assert "alice" in shown
    assert (refused["baseVersion"], refused["authUpdateAttempted"]) == (1, False)
    assert (closed["type"], cells.runs) == ("closed", [])


async def test_a_new_token_is_confirmed_on_the_same_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(application(), providers=[custom()]) as house:
        wire = await house.dial()
        await wire.add(0, "m:whoami")
        for version, name in enumerate(["ada", "bob"]):
            value = token(sub=name)
            await wire.say(type="Authenticate", baseVersion=version, tokenType="User", value=value)
        await wire.say(type="Authenticate", baseVersion=2, tokenType="None")
        heard = await wire.hear_all()

    assert heard[-1]["endVersion"]["identity"] == 3
    assert [message["type"] for message in heard] == ["Transition"] * len(heard)


async def test_a_provider_that_cannot_be_reached_is_no_refusal(
    autojump_clock: trio.testing.MockClock,
) -> None:
    nowhere = custom(jwks="data:application/json,{}")
    async with serving(application(), providers=[nowhere]) as house:
        wire = await house.dial()
        await wire.say(type="Authenticate", baseVersion=0, tokenType="User", value=token())
        closed = await wire.hear()

    assert (closed["type"], closed["code"]) == ("closed", 1013)
    assert closed["reason"].startswith("Unreachable")


async def test_clients_are_gone_when_the_server_was_stopped_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cells = application()
    server = Server(cells, runtime=VirtualRuntime(seed=7), limits=Limits(), config=ServerConfig())
    async with trio.open_nursery() as hosts:
        async with trio.open_nursery() as life:
            await life.start(server.run)
            wire = await House(server, cells, hosts).dial()
            await wire.add(0, "m:show")
            await wire.hear()
            life.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

        assert 0 == server.statistics().sessions
