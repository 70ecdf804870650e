"""Whatever a client says and whatever is committed meanwhile, what it shows is one true state."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.model.json_values import decode_ts
from engine.server.protocol import Call, Plan
from tests.protocol.talk import OOPS, Talk

CELLS = ("x", "y", "z")


class Conversation(RuleBasedStateMachine):
    """A client that follows the rules, and one cell that each of its queries shows."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk.opened()
        self.history: list[tuple[int, dict[str, Any]]] = [
            (self.talk.cells.published.value, dict.fromkeys(CELLS, 0))
        ]
        self.asks: dict[int, str] = {}
        self.shown: dict[int, Any] = {}
        self.version = {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}
        self.said = {"querySet": 0, "identity": 0}
        self.plan: tuple[Plan, int] | None = None
        self.running: Call | None = None
        self.uncovered: dict[int, int] = {}
        self.numbers = iter(range(1_000_000))

    # What happens.

    @rule(cell=st.sampled_from(CELLS))
    def add(self, cell: str) -> None:
        query_id = next(self.numbers)
        self.asks[query_id] = cell
        self.talk.modify(self.talk.add(query_id, cell))
        self.said["querySet"] += 1

    @precondition(lambda self: self.asks)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        query_id = data.draw(st.sampled_from(sorted(self.asks)))
        del self.asks[query_id]
        self.talk.modify({"type": "Remove", "queryId": query_id})
        self.said["querySet"] += 1

    @rule()
    def authenticate(self) -> None:
        self.talk.authenticate(base=self.said["identity"])
        self.said["identity"] += 1

    @rule(cell=st.sampled_from(CELLS), value=st.integers(0, 2))
    def somebody_writes(self, cell: str, value: int) -> None:
        self.commit(cell, value)

    @rule()
    def mutate(self) -> None:
        self.talk.mutate(next(self.numbers))
        self.running = self.talk.protocol.next_mutation() or self.running

    @precondition(lambda self: self.running)
    @rule(cell=st.sampled_from(CELLS), value=st.integers(0, 2), is_good=st.booleans())
    def mutation_ends(self, cell: str, value: int, is_good: bool) -> None:
        assert self.running is not None
        if is_good:
            ts = self.commit(cell, value)
            self.talk.mutated(self.running, ts=ts)
            self.uncovered[self.running.number] = ts
        else:
            self.talk.mutation_failed(self.running, OOPS)
        self.running = self.talk.protocol.next_mutation()

    @precondition(lambda self: self.plan is None and self.talk.protocol.is_due)
    @rule()
    def begin(self) -> None:
        self.plan = (self.talk.protocol.begin(), self.talk.cells.published.value)

    @precondition(lambda self: self.plan is not None)
    @rule()
    def finish(self) -> None:
        assert self.plan is not None
        plan, ts = self.plan
        self.plan = None
        then = self.state_at(ts)
        results = {
            query: self.talk.result(then[query.path], reads=query.path, ts=ts)
            for query in plan.asked
        }
        transition = self.talk.finish(plan, ts, results)
        if transition is not None:
            self.apply(transition)

    @precondition(lambda self: self.plan is None and self.talk.protocol.is_due)
    @rule()
    def catch_up(self) -> None:
        self.begin()
        self.finish()

    # What the client makes of it.

    def apply(self, transition: dict[str, Any]) -> None:
        assert transition["startVersion"] == self.version
        end = transition["endVersion"]
        for name, said in self.said.items():
            assert self.version[name] <= end[name] <= said
        assert decode_ts(self.version["ts"]) <= decode_ts(end["ts"])
        query_ids = [each["queryId"] for each in transition["modifications"]]
        assert len(query_ids) == len(set(query_ids))
        for each in transition["modifications"]:
            if each["type"] == "QueryRemoved":
                self.shown.pop(each["queryId"], None)
            else:
                assert self.shown.get(each["queryId"]) != each["value"]
                self.shown[each["queryId"]] = each["value"]
        self.version = end
        ts = decode_ts(end["ts"])
        self.uncovered = {n: at for n, at in self.uncovered.items() if at > ts}

    @invariant()
    def everything_shown_is_of_one_state(self) -> None:
        then = self.state_at(decode_ts(self.version["ts"]))
        for query_id, value in self.shown.items():
            if query_id in self.asks:
                assert value == then[self.asks[query_id]]

    @invariant()
    def silence_means_that_the_client_is_up_to_date(self) -> None:
        if self.plan is None and not self.talk.protocol.is_due:
            now = self.history[-1][1]
            assert self.shown == {query_id: now[cell] for query_id, cell in self.asks.items()}
            assert self.said == {name: self.version[name] for name in self.said}
            assert self.uncovered == {}

    # The data.

    def commit(self, cell: str, value: int) -> int:
        ts = self.talk.cells.write(**{cell: value})
        self.history.append((ts, {**self.history[-1][1], cell: value}))
        return ts

    def state_at(self, ts: int) -> dict[str, Any]:
        return next((state for at, state in reversed(self.history) if at <= ts), self.history[0][1])


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=250, stateful_step_count=40)
