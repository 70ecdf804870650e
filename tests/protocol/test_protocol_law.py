"""
Whatever a client says and whatever is committed meanwhile, what it shows is one true state.

Its messages, commits of its own and of others, answers, transitions on their way and broken
connections come in any order.  The client here believes what it is told as the official ones do,
and it knows what the data were at each timestamp and as whom it asked.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.functions.results import QueryResult
from engine.model.identity import Identity
from engine.model.json_values import decode_ts
from engine.server.protocol import Call, Plan
from engine.server.query_set import Query
from engine.server.who import NOBODY, Who
from tests.protocol.talk import OOPS, ZERO, Talk, version

CELLS = ("x", "y")
FAILS = 2
"""A query that finds this in its cell fails."""
CELL = st.sampled_from(CELLS)
VALUE = st.integers(0, FAILS)


def who_is(name: str | None) -> Who:
    if name is None:
        return NOBODY
    return Who(identity=Identity(issuer="i", subject=name, token_identifier=f"i|{name}"))


class Conversation(RuleBasedStateMachine):
    """A client that follows the rules, and one cell that each of its queries shows."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk.opened()
        self.history: list[tuple[int, dict[str, int]]] = [
            (self.talk.cells.published.value, dict.fromkeys(CELLS, 0))
        ]
        self.asks: dict[int, str] = {}
        self.shown: dict[int, Any] = {}
        self.journals: dict[int, str | None] = {}
        self.numbers = iter(range(1_000_000))
        self.results: dict[int, int] = {}
        """Timestamps of mutations that committed: what one that is sent again is answered."""
        self.unanswered: list[int] = []
        self.start()

    def start(self) -> None:
        """As on a new connection."""
        self.version: dict[str, Any] = version(0, 0, ZERO)
        self.said = {"querySet": 0, "identity": 0}
        self.names: list[str | None] = [None]
        """Who the client was, by identity version."""
        self.plan: tuple[Plan, int] | None = None
        self.running: Call | None = None
        self.actions: list[Call] = []
        self.edits: dict[int, int] = {}
        """The query set version at which a query was added or, afterwards, removed."""
        self.uncovered: dict[int, int] = {}
        self.unfollowed: set[int] = set()

    # What the client says.

    @rule(cell=CELL)
    def add(self, cell: str) -> None:
        query_id = next(self.numbers)
        self.asks[query_id] = cell
        self.talk.modify(self.talk.add(query_id, cell))
        self.said["querySet"] += 1
        self.edits[query_id] = self.said["querySet"]

    @precondition(lambda self: self.asks)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        query_id = data.draw(st.sampled_from(sorted(self.asks)))
        del self.asks[query_id]
        self.talk.modify({"type": "Remove", "queryId": query_id})
        self.said["querySet"] += 1
        self.edits[query_id] = self.said["querySet"]

    @rule(name=st.sampled_from([None, "ada", "bob"]))
    def authenticate(self, name: str | None) -> None:
        self.talk.authenticate(who_is(name), base=self.said["identity"])
        self.said["identity"] += 1
        self.names.append(name)

    @rule()
    def mutate(self) -> None:
        number = next(self.numbers)
        self.unanswered.append(number)
        self.talk.mutate(number)
        self.begin_mutation()

    @rule()
    def act(self) -> None:
        self.actions.append(self.talk.act(next(self.numbers)))

    @rule(luck=st.integers(0, 3), brings_journals=st.booleans())
    def reconnect(self, luck: int, brings_journals: bool) -> None:
        if luck:
            return
        self.talk.reconnect()
        self.start()
        if not brings_journals:
            self.journals.clear()
        self.shown.clear()
        adds = [
            self.talk.add(query_id, cell, journal=self.journals.get(query_id))
            for query_id, cell in self.asks.items()
        ]
        self.talk.modify(*adds)
        self.said["querySet"] += 1
        self.edits = dict.fromkeys(self.asks, 1)
        for number in self.unanswered:
            self.talk.mutate(number)
        self.begin_mutation()

    # What becomes of it.

    @rule(cell=CELL, value=VALUE)
    def somebody_writes(self, cell: str, value: int) -> None:
        self.commit(cell, value)

    def begin_mutation(self) -> None:
        self.running = self.talk.protocol.next_mutation() or self.running

    @precondition(lambda self: self.running and self.running.number not in self.results)
    @rule(cell=CELL, value=VALUE)
    def mutation_commits(self, cell: str, value: int) -> None:
        assert self.running is not None
        self.results[self.running.number] = self.commit(cell, value)

    @precondition(lambda self: self.running is not None)
    @rule(commits=st.booleans(), cell=CELL, value=VALUE)
    def mutation_is_answered(self, commits: bool, cell: str, value: int) -> None:
        call = self.running
        assert call is not None
        if commits and call.number not in self.results:
            self.mutation_commits(cell, value)
        ts = self.results.get(call.number)
        if ts is None:
            self.talk.mutation_failed(call, OOPS)
        else:
            response = self.talk.mutated(call, ts=ts)
            assert decode_ts(response["ts"]) == ts
            self.uncovered[call.number] = ts
        self.running = None
        self.unanswered.remove(call.number)
        self.unfollowed.add(call.number)
        self.begin_mutation()

    @precondition(lambda self: self.actions)
    @rule(writes=st.booleans(), cell=CELL, value=VALUE)
    def action_is_answered(self, writes: bool, cell: str, value: int) -> None:
        call = self.actions.pop(0)
        ts = self.commit(cell, value) if writes else self.history[-1][0]
        self.talk.acted(call, ts=ts)
        self.uncovered[call.number] = ts
        self.unfollowed.add(call.number)

    @precondition(lambda self: self.plan is None and self.talk.protocol.is_due)
    @rule()
    def begin(self) -> None:
        plan = self.talk.protocol.begin()
        self.plan = (plan, self.talk.cells.published.value)
        assert all(query.journal == self.journals.get(query.query_id) for query in plan.asked)

    @precondition(lambda self: self.plan is not None and not self.is_held())
    @rule()
    def finish(self) -> None:
        assert self.plan is not None
        plan, ts = self.plan
        self.plan = None
        results = {query: self.answer(query, plan.who, ts) for query in plan.asked}
        transition = self.talk.finish(plan, ts, results)
        if transition is not None:
            self.apply(transition)

    def is_held(self) -> bool:
        """Whether the driver waits for a mutation; one that has not committed commits later."""
        assert self.plan is not None
        is_waiting = any(number in self.results for number in self.unanswered)
        return is_waiting and self.talk.protocol.is_behind(self.plan[0])

    # What the client makes of it.

    def apply(self, transition: dict[str, Any]) -> None:
        end = transition["endVersion"]
        assert transition["startVersion"] == self.version
        for name, said in self.said.items():
            assert self.version[name] <= end[name] <= said
        ts = decode_ts(end["ts"])
        assert decode_ts(self.version["ts"]) <= ts
        shows = [n for n in self.unanswered if self.results.get(n, ts + 1) <= ts]
        assert not shows, "their answers have to come first"
        query_ids = [each["queryId"] for each in transition["modifications"]]
        assert len(query_ids) == len(set(query_ids))
        for each in transition["modifications"]:
            self.take(each["queryId"], each)
        self.version = end
        self.uncovered = {n: at for n, at in self.uncovered.items() if at > ts}
        self.unfollowed.clear()

    def take(self, query_id: int, modification: dict[str, Any]) -> None:
        if modification["type"] == "QueryRemoved":
            self.shown.pop(query_id, None)
            return
        value = modification.get("value", modification.get("errorData"))
        assert self.shown.get(query_id) != value, "the client has this already"
        self.shown[query_id] = value
        if modification["journal"] is not None:
            self.journals[query_id] = modification["journal"]

    @invariant()
    def everything_shown_is_of_one_state_and_one_identity(self) -> None:
        then = self.state_at(decode_ts(self.version["ts"]))
        name = self.names[self.version["identity"]]
        for query_id, value in self.shown.items():
            if query_id in self.asks:
                assert value == self.truth(name, then[self.asks[query_id]])

    @invariant()
    def no_version_is_claimed_whose_queries_are_not_shown(self) -> None:
        for query_id, edited in self.edits.items():
            if edited <= self.version["querySet"]:
                assert (query_id in self.shown) is (query_id in self.asks)

    @invariant()
    def silence_means_that_the_client_is_up_to_date(self) -> None:
        if self.plan is None and not self.talk.protocol.is_due:
            now, name = self.history[-1][1], self.names[-1]
            assert self.shown == {
                query_id: self.truth(name, now[cell]) for query_id, cell in self.asks.items()
            }
            assert self.said == {name: self.version[name] for name in self.said}
            assert self.uncovered == {}
            assert self.unfollowed == set()

    # The data.

    def answer(self, query: Query, who: Who, ts: int) -> QueryResult:
        name = None if who.identity is None else who.identity.subject
        found = self.state_at(ts)[query.path]
        if found == FAILS:
            return self.talk.result(error=OOPS, reads=query.path, ts=ts)
        journal = f"{query.query_id} of {name}"
        value = self.truth(name, found)
        return self.talk.result(value, journal=journal, reads=query.path, ts=ts)

    def truth(self, name: str | None, found: int) -> Any:
        """What is shown of a cell, or the data of the error."""
        return OOPS.data if found == FAILS else [name, found]

    def commit(self, cell: str, value: int) -> int:
        ts = self.talk.cells.write(**{cell: value})
        self.history.append((ts, {**self.history[-1][1], cell: value}))
        return ts

    def state_at(self, ts: int) -> dict[str, int]:
        return next((state for at, state in reversed(self.history) if at <= ts), self.history[0][1])


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=300, stateful_step_count=60)
