"""What the state machine says and when: one conversation for each promise to clients."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

import pytest

from engine.errors import (
    ConvexError,
    InvalidCursor,
    Overloaded,
    Paused,
    ProtocolViolation,
    StoreFull,
)
from engine.functions.results import MutationResult
from engine.model.identity import Identity
from engine.model.json_values import encode_ts
from engine.model.values import Int64
from engine.server.messages import decode
from engine.server.protocol import PING, Greeted, Nothing, Phase, Refuse, Verify
from engine.server.who import Who
from tests.protocol.cells import START_TS
from tests.protocol.talk import OOPS, SESSION, ZERO, Talk, json_of, version

ALICE = Who(identity=Identity(issuer="i", subject="alice", token_identifier="i|alice"))
NOW = encode_ts(START_TS)
TOKEN = "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"


def changed(transition: dict[str, Any] | None) -> list[tuple[str, int]]:
    """What a transition is about: types and query ids."""
    assert transition is not None
    return [(each["type"], each["queryId"]) for each in transition["modifications"]]


# Connecting.


def test_the_first_transition_starts_at_zero() -> None:
    talk = Talk.opened()
    talk.modify()

    transition = talk.transition()

    assert transition is not None
    assert transition["startVersion"] == version(0, 0, ZERO)
    assert transition["endVersion"] == version(1, 0, NOW)


def test_each_transition_starts_where_the_last_one_ended() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))
    first = talk.transition("a")
    talk.cells.write(cell=1)
    talk.authenticate()

    second = talk.transition("b")

    assert first is not None
    assert second is not None
    assert second["startVersion"] == first["endVersion"]
    assert second["endVersion"] == version(1, 1, encode_ts(START_TS + 10))


def test_connect_is_answered_by_nothing_and_makes_nothing_due() -> None:
    talk = Talk()

    step = talk.say(type="Connect", sessionId=SESSION, maxObservedTimestamp=encode_ts(77))

    assert step == Greeted(max_observed_ts=77)
    assert not talk.protocol.is_due


def test_unknown_fields_are_ignored() -> None:
    talk = Talk()

    step = talk.say(type="Connect", sessionId=SESSION, shoeSize=43)

    assert step == Greeted(max_observed_ts=0)


def test_all_optional_fields_of_connect_may_be_null() -> None:
    talk = Talk()

    step = talk.say(
        type="Connect",
        sessionId=SESSION,
        connectionCount=3,
        lastCloseReason=None,
        maxObservedTimestamp=None,
        clientTs=None,
    )

    assert step == Greeted(max_observed_ts=0)
    assert talk.protocol.session_id == UUID(SESSION)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": []},
        {"type": "Mutation", "requestId": 0, "udfPath": "m:f", "args": [{}]},
        {"type": "Authenticate", "baseVersion": 0, "tokenType": "None"},
    ],
)
def test_nothing_comes_before_connect(message: dict[str, Any]) -> None:
    talk = Talk()

    with pytest.raises(ProtocolViolation, match="before Connect"):
        talk.say(**message)


def test_connect_comes_once() -> None:
    talk = Talk.opened()

    with pytest.raises(ProtocolViolation, match="twice"):
        talk.say(type="Connect", sessionId=SESSION)


@pytest.mark.parametrize(
    "fields",
    [{"sessionId": "me"}, {"sessionId": SESSION, "maxObservedTimestamp": "AAAA"}],
)
def test_a_connect_that_cannot_be_read_is_a_violation(fields: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolation):
        Talk().say(type="Connect", **fields)


@pytest.mark.parametrize(
    "fields",
    [{"sessionId": TOKEN}, {"sessionId": SESSION, "maxObservedTimestamp": TOKEN}],
)
def test_what_stands_in_the_place_of_a_session_is_not_said_back(fields: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolation) as violation:
        Talk().say(type="Connect", **fields)

    assert "is no" in str(violation.value)
    assert TOKEN not in repr(violation.value)


def test_clients_learn_how_far_their_clock_is_off() -> None:
    talk = Talk()
    talk.say(type="Connect", sessionId=SESSION, clientTs=1_795_197_733_591)
    talk.protocol.saw_clock(1_795_197_733_603.4)
    talk.modify()

    transition = talk.transition()

    assert transition is not None
    assert transition["clientClockSkew"] == -12


@pytest.mark.parametrize("client_ts", ["null", "0", "1e308", "-1e999"])
def test_a_client_without_a_clock_is_told_nothing_of_it(client_ts: str) -> None:
    talk = Talk()
    connect = f'{{"type": "Connect", "sessionId": "{SESSION}", "clientTs": {client_ts}}}'
    talk.protocol.receive(decode(connect))
    talk.protocol.saw_clock(1_795_197_733_603.4)
    talk.modify()

    transition = talk.transition()

    assert transition is not None
    assert transition["clientClockSkew"] is None


# The query set.


def test_a_query_appears_in_the_first_transition_that_covers_its_version() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0), talk.add(1))

    transition = talk.transition("a", "b")

    assert changed(transition) == [("QueryUpdated", 0), ("QueryUpdated", 1)]


def test_a_removed_query_appears_as_removed_and_is_not_asked_again() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))
    talk.transition("a")
    talk.modify({"type": "Remove", "queryId": 0})
    talk.cells.write(cell=1)

    transition = talk.transition()

    assert changed(transition) == [("QueryRemoved", 0)]


def test_a_query_that_was_removed_before_it_was_answered_is_not_asked() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))
    talk.modify({"type": "Remove", "queryId": 0})

    transition = talk.transition()

    assert transition is not None
    assert changed(transition) == [("QueryRemoved", 0)]
    assert transition["endVersion"]["querySet"] == 2


def test_a_query_removed_while_it_was_evaluated_is_let_go_and_told_next() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))
    plan = talk.protocol.begin()
    talk.modify({"type": "Remove", "queryId": 0})
    result = talk.result("a")

    first = talk.finish(plan, START_TS, {plan.asked[0]: result})
    second = talk.transition()

    assert first is not None
    assert first["endVersion"]["querySet"] == 1
    assert changed(second) == [("QueryRemoved", 0)]
    assert talk.cells.subscriptions.statistics().lives == 0


def test_several_messages_may_share_a_transition() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))
    talk.modify(talk.add(1))
    talk.authenticate()

    transition = talk.transition("a", "b")

    assert transition is not None
    assert transition["endVersion"] == version(2, 1, NOW)


def test_a_transition_claims_no_version_that_came_after_its_plan() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))
    plan = talk.protocol.begin()
    talk.modify(talk.add(1))
    talk.authenticate()

    transition = talk.finish(plan, START_TS, {plan.asked[0]: talk.result("a")})

    assert transition is not None
    assert transition["endVersion"] == version(1, 0, NOW)
    assert talk.protocol.is_due


@pytest.mark.parametrize(("base", "new"), [(1, 2), (0, 0), (5, 6)])
def test_an_edit_that_does_not_follow_the_last_one_is_a_violation(base: int, new: int) -> None:
    talk = Talk.opened()

    with pytest.raises(ProtocolViolation):
        talk.say(type="ModifyQuerySet", baseVersion=base, newVersion=new, modifications=[])


def test_versions_may_jump() -> None:
    talk = Talk.opened()
    talk.say(type="ModifyQuerySet", baseVersion=0, newVersion=7, modifications=[])
    talk.say(type="ModifyQuerySet", baseVersion=7, newVersion=8, modifications=[])

    transition = talk.transition()

    assert transition is not None
    assert transition["endVersion"]["querySet"] == 8


def test_a_query_id_is_added_once() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))

    with pytest.raises(ProtocolViolation, match="twice"):
        talk.modify(talk.add(0))


def test_removing_what_is_not_there_is_no_matter() -> None:
    talk = Talk.opened()

    step = talk.modify({"type": "Remove", "queryId": 9})

    assert step is Nothing.TO_DO


@pytest.mark.parametrize("args", [None, [], [1], [{}, {}], "x", [{"a": {"$integer": "!"}}]])
def test_arguments_that_are_none_fail_their_query_alone(args: Any) -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0, args=args), talk.add(1))

    transition = talk.transition("fine") if args is not None else talk.transition("a", "b")

    assert transition is not None
    by_id = {each["queryId"]: each["type"] for each in transition["modifications"]}
    assert by_id == {0: "QueryUpdated" if args is None else "QueryFailed", 1: "QueryUpdated"}


def test_a_query_of_a_component_is_hidden_from_all_but_administrators() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0, "m:f", componentPath="inner"))

    hidden = talk.transition()
    talk.authenticate(Who(admin=True))
    shown = talk.transition("a")

    assert hidden is not None
    [failed] = hidden["modifications"]
    assert "Could not find public function for 'm:f' in 'inner'." in failed["errorMessage"]
    assert changed(shown) == [("QueryUpdated", 0)]


def test_a_lone_surrogate_fails_the_call_and_not_the_connection() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0, args=[{"text": "\ud800"}]))

    transition = talk.transition()

    assert changed(transition) == [("QueryFailed", 0)]


def test_more_queries_than_fit_send_the_client_away() -> None:
    talk = Talk.opened(limits={"queries_per_session_max": 2})
    talk.modify(talk.add(0), talk.add(1))

    step = talk.modify(talk.add(2))

    assert isinstance(step, Refuse)
    assert step.code == 1013


def test_removed_queries_that_nobody_was_told_of_cannot_pile_up() -> None:
    talk = Talk.opened(limits={"queries_per_session_max": 2})

    steps = [
        talk.modify(talk.add(number), {"type": "Remove", "queryId": number}) for number in range(5)
    ]

    assert isinstance(steps[-1], Refuse)


def test_large_arguments_send_the_client_away() -> None:
    talk = Talk.opened(limits={"queries_bytes_max": 1000})

    step = talk.modify(talk.add(0, args=[{"text": "x" * 1000}]))

    assert isinstance(step, Refuse)


# Results.


def test_an_updated_query_has_value_log_lines_and_journal() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(3))

    transition = talk.transition(talk.result({"n": 5}, log_lines=("[LOG] 'hi'",)))

    assert transition is not None
    assert transition["modifications"] == [
        {
            "type": "QueryUpdated",
            "queryId": 3,
            "value": {"n": 5.0},
            "logLines": ["[LOG] 'hi'"],
            "journal": None,
        }
    ]


def test_a_failed_query_has_message_log_lines_and_journal_but_no_data() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(3))

    transition = talk.transition(talk.result(error=ValueError("no")))

    assert transition is not None
    [failed] = transition["modifications"]
    assert failed.pop("errorMessage").startswith("[Request ID: 0123456789abcdef] Server Error\n")
    assert failed == {"type": "QueryFailed", "queryId": 3, "logLines": [], "journal": None}


@pytest.mark.parametrize("data", [None, "text", {"code": "X"}])
def test_error_data_is_there_for_a_convex_error_even_when_it_is_null(data: Any) -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))

    transition = talk.transition(talk.result(error=ConvexError(data)))

    assert transition is not None
    assert transition["modifications"][0]["errorData"] == data


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            Overloaded("the engine", 5),
            "Overloaded: the engine had no room for 5 s; nothing was done, try again later",
        ),
        (
            Paused("`headrace resume` lets functions be called again"),
            "Paused: the deployment is paused; nothing was done",
        ),
        (
            StoreFull("/data/of/ann took nothing"),
            "StoreFull: the database has no room; nothing was done",
        ),
    ],
)
def test_production_tells_by_name_that_there_was_no_room(error: Exception, told: str) -> None:
    talk = Talk.opened(redact=True)
    talk.modify(talk.add(0))

    transition = talk.transition(talk.result(error=error))

    assert transition is not None
    assert transition["modifications"][0]["errorMessage"] == (
        f"[Request ID: 0123456789abcdef] Server Error\nUncaught {told}"
    )


def test_production_tells_the_request_id_and_the_data_and_nothing_else() -> None:
    talk = Talk.opened(redact=True)
    talk.modify(talk.add(0))

    transition = talk.transition(talk.result(error=OOPS, log_lines=("[LOG] secret",)))

    assert transition is not None
    assert transition["modifications"] == [
        {
            "type": "QueryFailed",
            "queryId": 0,
            "errorMessage": "[Request ID: 0123456789abcdef] Server Error",
            "logLines": [],
            "journal": None,
            "errorData": {"code": "OOPS"},
        }
    ]


def test_floats_have_a_fraction_and_protocol_integers_have_none() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(4))
    plan = talk.protocol.begin()
    value = [5, 0, -3, 1e15, 2.0**53, Int64(5)]

    [text] = talk.protocol.finish(
        plan, START_TS, {plan.asked[0]: talk.result(value)}, request_id="r", now_ns=5
    )

    numbers = re.search(rb'"value":\[([^{]*),', text)
    assert numbers is not None
    assert all(re.search(rb"[.eE]", number) for number in numbers[1].split(b","))
    assert not re.search(rb'"(querySet|identity|queryId|serverTs)":-?\d+[.eE]', text)


def test_a_result_is_spelled_once_for_all_who_show_it() -> None:
    talks = [Talk.opened(), Talk.opened()]
    result = talks[0].result("same")
    for number, talk in enumerate(talks):
        talk.modify(talk.add(number))

    first = talks[0].transition(result)
    result.value = "never looked at again"
    result.live.retain()
    second = talks[1].transition(result)

    assert first is not None
    assert second is not None
    assert second["modifications"][0] == first["modifications"][0] | {"queryId": 1}


def test_an_unchanged_result_is_not_sent_again() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))
    talk.transition("same")
    talk.cells.write(cell=1)

    assert talk.protocol.is_due
    assert talk.transition("same") is None
    assert not talk.protocol.is_due


def test_an_unchanged_failure_is_not_sent_again() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))
    talk.transition(talk.result(error=OOPS))
    talk.cells.write(cell=1)

    assert talk.transition(talk.result(error=OOPS)) is None


def test_only_touched_queries_are_asked_again() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0), talk.add(1))
    talk.transition(talk.result("a", reads="x"), talk.result("b", reads="y"))
    talk.cells.write(y=1)

    plan = talk.protocol.begin()

    assert [query.query_id for query in plan.asked] == [1]


def test_a_commit_during_the_evaluation_makes_the_query_stale_at_once() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))
    plan = talk.protocol.begin()
    result = talk.result("before")
    talk.cells.write(cell=1)

    talk.finish(plan, START_TS, {plan.asked[0]: result})

    assert talk.protocol.is_due
    assert changed(talk.transition("after")) == [("QueryUpdated", 0)]


def test_timestamps_never_go_back() -> None:
    talk = Talk.opened()
    talk.modify()
    talk.transition(ts=START_TS)
    talk.modify()

    with pytest.raises(AssertionError, match="never go back"):
        talk.transition(ts=START_TS - 1)


# Journals.


def test_a_journal_is_sent_kept_and_used_for_the_next_evaluation() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))

    transition = talk.transition(talk.result("page", journal="end here"))
    talk.cells.write(cell=1)
    [query] = talk.protocol.begin().asked

    assert transition is not None
    assert transition["modifications"][0]["journal"] == "end here"
    assert query.journal == "end here"


@pytest.mark.parametrize("journal", [None, "from an earlier connection"])
def test_a_client_brings_its_journal_along(journal: str | None) -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0, journal=journal))

    [query] = talk.protocol.begin().asked

    assert query.journal == journal


def test_a_page_that_fails_once_keeps_its_end() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0, journal="end here"))
    talk.transition(talk.result(error=OOPS))
    talk.cells.write(cell=1)

    [query] = talk.protocol.begin().asked

    assert query.journal == "end here"


@pytest.mark.parametrize("redact", [False, True])
def test_a_cursor_of_another_query_is_told_so_that_clients_begin_anew(redact: bool) -> None:
    talk = Talk.opened(redact=redact)
    talk.modify(talk.add(0))

    transition = talk.transition(talk.result(error=InvalidCursor("a cursor of another query")))

    assert transition is not None
    [failed] = transition["modifications"]
    assert failed["errorData"] == {"isConvexSystemError": True, "paginationError": "InvalidCursor"}
    assert ("InvalidCursor" in failed["errorMessage"]) is not redact


# Mutations and actions.


def test_mutations_run_one_at_a_time_in_the_order_they_came() -> None:
    talk = Talk.opened()
    for number in (3, 4):
        talk.mutate(number)

    first = talk.protocol.next_mutation()
    meanwhile = talk.protocol.next_mutation()
    talk.mutated(first, ts=START_TS)
    second = talk.protocol.next_mutation()

    assert first is not None
    assert second is not None
    assert (first.number, meanwhile, second.number) == (3, None, 4)


def test_a_failed_mutation_does_not_stop_the_next_one() -> None:
    talk = Talk.opened()
    talk.mutate(0)
    talk.mutate(1)
    talk.mutation_failed(talk.protocol.next_mutation(), OOPS)

    following = talk.protocol.next_mutation()

    assert following is not None
    assert following.number == 1


def test_a_response_has_the_value_and_the_commit_timestamp() -> None:
    talk = Talk.opened()
    talk.mutate(3)

    response = talk.mutated(talk.protocol.next_mutation(), "id", ts=START_TS)

    assert response == {
        "type": "MutationResponse",
        "requestId": 3,
        "success": True,
        "result": "id",
        "ts": NOW,
        "logLines": [],
    }


def test_a_failed_response_has_a_text_no_timestamp_and_maybe_data() -> None:
    talk = Talk.opened()
    talk.mutate(3)

    response = talk.mutation_failed(talk.protocol.next_mutation(), OOPS)

    result = response.pop("result")
    assert result.startswith("[Request ID: ")
    assert response == {
        "type": "MutationResponse",
        "requestId": 3,
        "success": False,
        "ts": None,
        "logLines": [],
        "errorData": {"code": "OOPS"},
    }


def test_a_request_is_called_the_same_when_it_is_sent_again() -> None:
    # SHA-256 of "9c621b88-c88c-4d93-be5f-3236005019b1|3".
    expected = "581f61ad5bc1a020"
    calls = []
    for _ in range(2):
        talk = Talk.opened()
        talk.mutate(3)
        calls.append(talk.protocol.next_mutation())

    assert [call.request_id for call in calls if call] == [expected, expected]


def test_a_transition_follows_a_mutation_though_nothing_is_shown() -> None:
    talk = Talk.opened()
    talk.mutate(0)
    ts = talk.cells.write(cell=1)
    talk.mutated(talk.protocol.next_mutation(), ts=ts)

    assert talk.protocol.is_due
    transition = talk.transition(ts=ts)

    assert transition is not None
    assert transition["modifications"] == []
    assert transition["endVersion"]["ts"] == encode_ts(ts)


def test_a_transition_follows_a_failed_mutation() -> None:
    talk = Talk.opened()
    talk.mutate(0)
    talk.mutation_failed(talk.protocol.next_mutation(), OOPS)

    assert talk.protocol.is_due
    assert talk.transition() is not None


def test_a_transition_that_does_not_reach_the_commit_leaves_another_one_owed() -> None:
    talk = Talk.opened()
    talk.modify()
    talk.mutate(0)
    plan = talk.protocol.begin()
    ts = talk.cells.write(cell=1)
    talk.mutated(talk.protocol.next_mutation(), ts=ts)

    early = talk.finish(plan, START_TS, {})

    assert early is not None
    assert talk.protocol.is_due
    covering = talk.transition(ts=ts)
    assert covering is not None
    assert covering["endVersion"]["ts"] == encode_ts(ts)


def test_a_replayed_mutation_is_answered_with_its_first_timestamp() -> None:
    talk = Talk.opened()
    talk.modify()
    talk.transition(ts=START_TS)
    talk.mutate(0)

    response = talk.mutated(talk.protocol.next_mutation(), "first", ts=START_TS - 500)

    assert response["ts"] == encode_ts(START_TS - 500)
    assert talk.transition(ts=START_TS) is not None


def test_a_plan_waits_for_the_mutation_that_ran_when_it_was_made() -> None:
    talk = Talk.opened()
    talk.modify()
    talk.mutate(0)
    talk.mutate(1)
    first = talk.protocol.next_mutation()

    plan = talk.protocol.begin()
    held = talk.protocol.is_behind(plan)
    talk.mutated(first, ts=START_TS)
    talk.protocol.next_mutation()
    held_by_the_second = talk.protocol.is_behind(plan)

    assert (held, held_by_the_second) == (True, False)


def test_a_plan_that_was_made_while_nothing_ran_waits_for_nothing() -> None:
    talk = Talk.opened()
    talk.modify()
    talk.mutate(0)
    plan = talk.protocol.begin()

    talk.protocol.next_mutation()

    assert not talk.protocol.is_behind(plan)


def test_the_first_plan_for_a_client_that_is_back_waits_for_all_that_it_sent_again() -> None:
    talk = Talk.opened()
    talk.reconnect()
    talk.modify()
    plan = talk.protocol.begin()
    talk.mutate(0)
    talk.mutate(1)

    held = []
    for _ in range(2):
        held.append(talk.protocol.is_behind(plan))
        talk.mutated(talk.protocol.next_mutation(), ts=START_TS)
    talk.finish(plan, START_TS, {})
    talk.mutate(2)
    later = talk.protocol.begin()
    talk.protocol.next_mutation()

    assert (held, talk.protocol.is_behind(later)) == ([True, True], False)


def test_too_many_waiting_mutations_pause_reading_until_one_has_begun() -> None:
    talk = Talk.opened(limits={"mutations_queued_max": 2})
    talk.mutate(0)
    before = talk.protocol.is_reading_paused()
    talk.mutate(1)

    full = talk.protocol.is_reading_paused()
    talk.protocol.next_mutation()

    assert (before, full, talk.protocol.is_reading_paused()) == (False, True, False)


def test_a_full_lane_pauses_reading_until_it_has_room() -> None:
    talk = Talk.opened(limits={"mutations_queued_bytes_max": 500})
    talk.mutate(0, componentPath="x" * 500)

    before = talk.protocol.is_reading_paused()
    talk.protocol.next_mutation()

    assert (before, talk.protocol.is_reading_paused()) == (True, False)


def test_an_action_starts_at_once_and_beside_mutations() -> None:
    talk = Talk.opened()
    talk.mutate(0)
    talk.protocol.next_mutation()

    calls = [talk.act(1), talk.act(2)]

    assert [call.number for call in calls] == [1, 2]


def test_an_action_is_answered_without_a_timestamp_and_followed_by_a_transition() -> None:
    talk = Talk.opened()
    call = talk.act(4)
    ts = talk.cells.write(cell=1)

    response = talk.acted(call, 42, ts=ts)

    assert response == {
        "type": "ActionResponse",
        "requestId": 4,
        "success": True,
        "result": 42.0,
        "logLines": [],
    }
    assert talk.protocol.is_due
    transition = talk.transition(ts=ts)
    assert transition is not None
    assert transition["endVersion"]["ts"] == encode_ts(ts)


def test_what_an_action_wrote_is_in_a_transition_after_its_answer() -> None:
    talk = Talk.opened()
    talk.modify()
    call = talk.act(4)
    plan = talk.protocol.begin()
    ts = talk.cells.write(cell=1)
    talk.acted(call, ts=ts)

    talk.finish(plan, START_TS, {})

    assert talk.protocol.is_due


@pytest.mark.parametrize("number", [0, 1], ids=["the same number", "another number"])
def test_one_action_too_many_fails_and_the_others_run_on(number: int) -> None:
    talk = Talk.opened(limits={"actions_in_flight_max": 1})
    first = talk.act(0)

    refused = talk.refused(requestId=number)
    talk.acted(first)

    assert (refused["requestId"], refused["success"]) == (number, False)
    assert "(actions_in_flight_max) had no room" in refused["result"]
    assert talk.transition() is not None
    assert talk.act(2)


def test_actions_with_too_much_to_hold_fail_and_a_large_one_runs_alone() -> None:
    talk = Talk.opened(limits={"actions_bytes_max": 500})
    large = talk.act(0, componentPath="x" * 500)

    refused = talk.refused(requestId=1)
    talk.acted(large)

    assert "(actions_bytes_max) had no room" in refused["result"]
    assert [talk.act(number).number for number in (2, 3)] == [2, 3]


def test_a_call_is_made_as_whoever_it_was_when_it_came() -> None:
    talk = Talk.opened()
    talk.mutate(0)
    talk.authenticate(ALICE)
    talk.mutate(1)

    first = talk.protocol.next_mutation()
    talk.mutated(first, ts=START_TS)
    second = talk.protocol.next_mutation()

    assert first is not None
    assert second is not None
    assert (first.who.identity, second.who.identity) == (None, ALICE.identity)


# Identity.


def test_an_identity_is_confirmed_though_no_result_changes() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))
    talk.transition("same")

    talk.authenticate(ALICE)
    transition = talk.transition("same")

    assert transition is not None
    assert transition["modifications"] == []
    assert transition["endVersion"]["identity"] == 1


def test_every_query_is_asked_again_with_a_new_identity() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0), talk.add(1))
    talk.transition("a", "b")

    talk.authenticate(ALICE)
    plan = talk.protocol.begin()

    assert sorted(query.query_id for query in plan.asked) == [0, 1]
    assert plan.who == ALICE


def test_an_identity_accepted_during_the_evaluation_asks_everything_again() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0))
    plan = talk.protocol.begin()
    talk.authenticate(ALICE)

    first = talk.finish(plan, START_TS, {plan.asked[0]: talk.result("as nobody")})
    second = talk.transition("as alice")

    assert first is not None
    assert first["endVersion"]["identity"] == 0
    assert changed(second) == [("QueryUpdated", 0)]


def test_a_token_is_verified_before_the_next_message() -> None:
    talk = Talk.opened()

    step = talk.say(type="Authenticate", baseVersion=0, tokenType="User", value="a.b.c")

    assert isinstance(step, Verify)
    assert not talk.protocol.is_due


@pytest.mark.parametrize("base", [1, 7])
def test_an_authenticate_that_does_not_follow_the_last_one_is_a_violation(base: int) -> None:
    talk = Talk.opened()

    with pytest.raises(ProtocolViolation):
        talk.say(type="Authenticate", baseVersion=base, tokenType="None")


@pytest.mark.parametrize("attempted", [True, False])
def test_a_refused_token_names_the_identity_that_stays_in_force(attempted: bool) -> None:
    talk = Talk.opened()
    talk.authenticate(ALICE)

    refused = json_of(talk.protocol.auth_error("expired", update_attempted=attempted))

    assert refused == {
        "type": "AuthError",
        "error": "expired",
        "baseVersion": 1,
        "authUpdateAttempted": attempted,
    }


@pytest.mark.parametrize(("now_s", "is_expired"), [(99.9, False), (100.0, True)])
def test_a_token_is_good_until_it_expires(now_s: float, is_expired: bool) -> None:
    identity = Identity(issuer="i", subject="s", token_identifier="i|s", expires_s=100.0)

    assert Who(identity=identity).is_expired(int(now_s * 1e9)) is is_expired


# Everything else.


def test_telemetry_is_taken_and_forgotten() -> None:
    talk = Talk.opened()

    step = talk.say(type="Event", eventType="ClientConnect", event=[{"name": "x"}])

    assert step is Nothing.TO_DO
    assert not talk.protocol.is_due


def test_a_ping_is_a_message() -> None:
    assert json.loads(PING) == {"type": "Ping"}


def test_a_violation_is_put_to_the_client() -> None:
    talk = Talk.opened()

    fatal = json_of(talk.protocol.fatal(ProtocolViolation("you may not")))

    assert fatal == {"type": "FatalError", "error": "you may not"}


def test_closing_lets_go_of_everything_that_was_shown() -> None:
    talk = Talk.opened()
    talk.modify(talk.add(0), talk.add(1))
    talk.transition("a", "b")

    talk.protocol.close()
    talk.cells.write(cell=1)

    assert talk.protocol.phase is Phase.CLOSED
    assert not talk.protocol.is_due
    assert talk.cells.subscriptions.statistics().lives == 0


def test_answers_that_wrote_nothing_have_a_timestamp_all_the_same() -> None:
    talk = Talk.opened()
    talk.mutate(0)
    call = talk.protocol.next_mutation()
    assert call is not None
    result = MutationResult(ts=None, value=None, failure=None, log_lines=())

    response = json_of(talk.protocol.mutation_answered(call, result, START_TS))

    assert response["ts"] == NOW
