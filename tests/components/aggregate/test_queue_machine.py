"""A queue under any history: refused operations, draining by hand, killed jobs, power cuts."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.model.values import normalize
from tests.components.aggregate.counted import APPLICATION, Numbers, mounts, names_of
from tests.components.aggregate.model import Model
from tests.components.lives import Lives

MONITOR_MS = 60_000
REPAIR_MS = 3_600_000
NAMESPACES: Any = ["", None, 1]
"""`""` is none at all."""
KEYS = st.integers(0, 7) | st.sampled_from(["a", True, None])
ENTRIES = st.builds(
    lambda key, item_id, summand, namespace: {
        "key": key,
        "id": item_id,
        "sumValue": summand,
        **({} if namespace == "" else {"namespace": namespace}),
    },
    KEYS,
    st.sampled_from(["a", "b"]),
    st.integers(-9, 9),
    st.sampled_from(NAMESPACES),
)
OPERATIONS = st.builds(
    lambda sides, tolerant: normalize({**sides, "isTolerant": tolerant}),
    st.one_of(
        st.fixed_dictionaries({"new": ENTRIES}),
        st.fixed_dictionaries({"old": ENTRIES}),
        st.fixed_dictionaries({"old": ENTRIES, "new": ENTRIES}),
    ),
    st.booleans(),
)


class Naive:
    """What there is when operations are done one by one, and which could not be."""

    def __init__(self) -> None:
        self.models = {repr(namespace): Model() for namespace in NAMESPACES}
        self.refused: list[tuple[str, Any]] = []

    def do(self, operation: Any) -> None:
        old, new = operation.get("old"), operation.get("new")
        tolerant = operation["isTolerant"]
        is_there = old is not None and self._of(old).has(old["key"], old["id"])
        if old is not None and not is_there and not tolerant:
            self.refused.append(("DELETE_MISSING_KEY", operation))
            return
        is_itself = is_there and new is not None and _place(old) == _place(new)
        is_taken = new is not None and self._of(new).has(new["key"], new["id"]) and not is_itself
        if is_taken and not tolerant:
            self.refused.append(("KEY_EXISTS", operation))
            return
        if is_there:
            self._of(old).take(old["key"], old["id"])
        if new is not None:
            self._of(new).put(new["key"], new["id"], new["sumValue"])

    def items(self) -> list[str]:
        return [repr(self.models[repr(namespace)].within()) for namespace in NAMESPACES]

    def _of(self, entry: Any) -> Model:
        return self.models[repr(entry.get("namespace", ""))]


def _place(entry: Any) -> str:
    return repr((entry["key"], entry["id"], entry.get("namespace", "")))


def items_of(numbers: Numbers) -> list[str]:
    return [
        repr(numbers.items(stale=True, **({} if namespace == "" else {"namespace": namespace})))
        for namespace in NAMESPACES
    ]


class History(RuleBasedStateMachine):
    """At each moment what is applied is what was queued first, each once, and the rest waits."""

    def __init__(self) -> None:
        super().__init__()
        self.queued: list[Any] = []
        self.done = 0
        self.at_once = 0
        """Of those that are done."""
        self.naive = Naive()
        self.letters: list[tuple[str, Any]] = []
        """Those that there should be, the newest first."""

    @initialize(sizes=st.sampled_from([None, 4]))
    def open(self, sizes: int | None) -> None:
        self.lives = Lives(APPLICATION)
        self.numbers.tell("clear_all", max_node_size=sizes)

    @property
    def numbers(self) -> Numbers:
        return Numbers(self.lives.place)

    def teardown(self) -> None:
        if not hasattr(self, "lives"):
            return
        with self.lives:
            self.lives.t.advance(5 * MONITOR_MS)
            if self.numbers.ask("pending")["queued"]:
                self.lives.t.advance(REPAIR_MS)  # a pass and its monitor were both killed
            self.holds()
            assert len(self.queued) == self.done
            assert [] == self.lives.jobs()
            for namespace in NAMESPACES:
                self.numbers.verify(**({} if namespace == "" else {"namespace": namespace}))
            assert items_of(self._synchronous()) == items_of(self.numbers)

    def _synchronous(self) -> Numbers:
        """The other aggregate, after the same operations without a queue."""
        others = Numbers(self.lives.place, "others")
        for operation in self.queued:
            others.survive("_write", operation)
        return others

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=12))
    def queue(self, operations: list[Any]) -> None:
        self.numbers.tell("_write", *operations, queued=True)
        self.queued += operations

    @rule(keys=st.lists(st.integers(0, 7), min_size=2, max_size=2, unique=True))
    def queue_what_would_take_the_place_of_another(self, keys: list[int]) -> None:
        """It is refused, and what it was to replace stays."""
        one, other = (normalize({"key": key, "id": "a", "sumValue": 1}) for key in keys)
        puts = [{"new": entry, "isTolerant": True} for entry in (one, other)]
        self.queue([*puts, {"old": one, "new": other, "isTolerant": False}])

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=3))
    def queue_in_vain(self, operations: list[Any]) -> None:
        """What is rolled back was never queued."""
        with pytest.raises(LookupError):
            self.numbers.fail_after("_write", *operations, queued=True)

    @rule(operation=OPERATIONS)
    def write_at_once(self, operation: Any) -> None:
        """Nothing overtakes what is queued."""
        if self.numbers.ask("pending")["queued"]:
            assert "PendingOperations" == self.numbers.survive("_write", operation)
            return
        before = len(self.naive.refused)
        self.naive.do(operation)
        is_refused = len(self.naive.refused) > before
        del self.naive.refused[before:]
        assert is_refused == (self.numbers.survive("_write", operation) != "")
        self.queued.append(operation)
        self.done += 1
        self.at_once += 1

    @rule(limit=st.integers(1, 5), times=st.integers(1, 4))
    def drain(self, limit: int, times: int) -> None:
        for _ in range(times):
            self.lives.t.mutation(mounts["numbers"].queue.drain, {"limit": limit})

    @rule()
    def drain_all(self) -> None:
        self.numbers.act("drain")
        assert 0 == self.numbers.ask("pending")["queued"]

    @rule(ms=st.sampled_from([0, 1, 20, 50, 1_000, MONITOR_MS + 1_000]))
    def advance(self, ms: float) -> None:
        self.lives.t.advance(ms)

    @rule()
    def crash(self) -> None:
        self.lives.crash()

    @rule(which=st.integers(0, 9))
    def kill_a_job(self, which: int) -> None:
        jobs = self.lives.jobs()
        if jobs:
            self.lives.kill_job(jobs[which % len(jobs)]["_id"])

    @rule(which=st.integers(0, 99), again=st.booleans())
    def see_to_a_dead_letter(self, which: int, again: bool) -> None:
        found = self.numbers.ask("dead_letters")
        if not found:
            return
        at = which % len(found)
        verb = "retry_dead_letter" if again else "discard_dead_letter"
        assert self.numbers.tell(verb, found[at]["id"])
        del self.letters[at]
        if again:
            self.queued.append(normalize(found[at]["operation"]))

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "lives"):
            return
        pending = self.numbers.ask("pending")
        done = len(self.queued) - int(pending["queued"])
        assert done >= self.done
        before = len(self.naive.refused)
        for operation in self.queued[self.done : done]:
            self.naive.do(operation)
        self.done = done
        self.letters = self.naive.refused[before:][::-1] + self.letters
        found = self.numbers.ask("dead_letters")
        assert self.naive.items() == items_of(self.numbers)
        assert repr(self.letters) == repr([(one["kind"], one["operation"]) for one in found])
        assert len(self.naive.refused) == pending["refused"]
        assert done == pending["refused"] + pending["applied"] + self.at_once


History.TestCase.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
TestHistory = History.TestCase


OPERATIONS_OF_FEW_KEYS: Any = [
    {**side, "isTolerant": False}
    for n in range(90)
    for side in (
        {"new": {"key": n % 10, "id": "a", "sumValue": n}},
        {"old": {"key": (n + 1) % 10, "id": "a"}},
    )
]


@pytest.mark.parametrize("in_flight", [False, True])
def test_whatever_a_power_cut_leaves_is_applied_once_and_in_order(in_flight: bool) -> None:
    naive = Naive()
    for operation in OPERATIONS_OF_FEW_KEYS:
        naive.do(operation)
    for batches in range(8):
        with Lives(APPLICATION) as life:
            Numbers(life.place).tell("_write", *OPERATIONS_OF_FEW_KEYS, queued=True)
            life.cut(batches, in_flight=in_flight)
            life.t.finish_all_scheduled_functions()
            numbers = Numbers(life.place)

            assert naive.items() == items_of(numbers)
            pending = numbers.ask("pending")
            assert len(OPERATIONS_OF_FEW_KEYS) == pending["applied"] + pending["refused"]
            assert len(naive.refused) == pending["refused"] == pending["deadLetters"]


# Bugs, planted in the copy of the module that a mount has.

QUEUE = names_of("queue:run_batch")
remembered: dict[Any, set[str]] = {}
"""What an engine has applied, as long as it lives."""


async def apply_and_remember(ctx: Any, limit: int) -> int:
    """Rows that were applied go with the next batch: a crash applies them again."""
    mine = remembered.setdefault(trio.lowlevel.current_trio_token(), set())
    rows = await ctx.db.query(QUEUE["PendingOperation"]).take(limit + len(mine))
    known = [row for row in rows if row["_id"] in mine]
    for row in known:
        await ctx.db.delete(row["_id"])
        mine.discard(row["_id"])
    new = rows[len(known) :]
    await _carry_out(ctx, new)
    mine |= {row["_id"] for row in new}
    return len(rows)


async def apply_by_key(ctx: Any, limit: int) -> int:
    """The tree likes what is sorted; two operations of a key change places."""
    rows = await ctx.db.query(QUEUE["PendingOperation"]).take(limit)
    rows.sort(key=lambda row: ("new" in row["operation"], row["_creationTime"]))
    await QUEUE["_take_out"](ctx, rows, await _carry_out(ctx, rows))
    return len(rows)


async def keep_nothing(*_: Any) -> None:
    """What is refused is lost."""


async def _carry_out(ctx: Any, rows: list[Any]) -> dict[str, Any]:
    trees, refused = QUEUE["WrittenTrees"](ctx), {}
    for row in rows:
        try:
            await QUEUE["carry_out"](trees, row["operation"])
        except QUEUE["AggregateError"] as error:
            refused[row["_id"]] = error
    await trees.flush()
    return refused


@pytest.mark.parametrize(
    ("name", "planted"),
    [("_apply", apply_and_remember), ("_apply", apply_by_key), ("_keep", keep_nothing)],
)
def test_a_planted_bug_is_found(name: str, planted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(QUEUE, name, planted)

    with pytest.raises(AssertionError):
        test_whatever_a_power_cut_leaves_is_applied_once_and_in_order(in_flight=False)
