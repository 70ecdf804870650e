"""The checker of histories: each anomaly planted by hand, and every small history tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proofs.anomalies import anomalies
from tests.proofs.histories import Append, Fate, History, Operation, Read, Step

X, Y = 1, 2


def a(key: int, value: int) -> Append:
    return Append(key=key, value=value)


def r(key: int, *values: int) -> Read:
    return Read(key=key, values=values)


def story(*transactions: Sequence[Step] | tuple[str, Sequence[Step]]) -> History:
    """Transactions of clients of their own, all at the same time; a word before one is its fate."""
    history = History()
    begun = []
    for number, told in enumerate(transactions):
        fate, steps = told if isinstance(told[0], str) else ("done", told)
        appends = [step for step in steps if isinstance(step, Append)]  # type: ignore[union-attr]
        begun.append((fate, steps, history.begin(f"client {number}", appends)))
    for fate, steps, operation in begun:
        if fate == "done":
            history.done(operation, steps)  # type: ignore[arg-type]
        elif fate == "aborted":
            history.aborted(operation)
    return history


def one_by_one(*transactions: tuple[str, Sequence[Step]]) -> History:
    """Transactions of sessions, each begun when the one before it had ended."""
    history = History()
    for session, steps in transactions:
        operation = history.begin(session, [step for step in steps if isinstance(step, Append)])
        history.done(operation, steps)
    return history


def kinds(history: History) -> set[str]:
    return {anomaly.kind for anomaly in anomalies(history.operations)}


def test_what_happens_one_by_one_has_no_anomaly() -> None:
    history = one_by_one(
        ("ann", [a(X, 1)]),
        ("ben", [r(X, 1), a(X, 2), a(Y, 1), r(X, 1, 2)]),
        ("ann", [r(X, 1, 2), r(Y, 1)]),
    )

    assert set() == kinds(history)


def test_what_was_undone_and_what_nobody_knows_may_be_missing() -> None:
    history = story([a(X, 1)], ("aborted", [a(X, 2)]), ("unknown", [a(X, 3)]), [r(X, 1)])

    assert set() == kinds(history)


def test_what_nobody_knows_may_be_there_and_then_is() -> None:
    history = story([r(X, 1)], ("unknown", [a(X, 1), a(Y, 2)]), [r(X, 1), r(Y)])

    assert {"G-single"} == kinds(history)


@pytest.mark.parametrize(
    ("kind", "history"),
    [
        ("internal", story([a(X, 1), r(X)])),
        ("internal", story([r(X), r(X, 1)], [a(X, 1)])),
        ("internal", story([r(X, 1), a(X, 1)])),
        ("garbage", story([r(X, 7)])),
        ("duplicate", story([a(X, 1)], [r(X, 1, 1)])),
        ("incompatible order", story([a(X, 1)], [a(X, 2)], [r(X, 1, 2)], [r(X, 2)])),
        ("incompatible order", story([a(X, 1), a(X, 2)], [r(X, 2, 1)])),
        ("G1a aborted read", story(("aborted", [a(X, 1)]), [r(X, 1)])),
        ("G1b intermediate read", story([a(X, 1), a(X, 2)], [r(X, 1)], [r(X, 1, 2)])),
        ("G0", story([a(X, 1), a(Y, 1)], [a(X, 2), a(Y, 2)], [r(X, 1, 2)], [r(Y, 2, 1)])),
        ("G1c", story([a(X, 1), r(Y, 1)], [a(Y, 1), r(X, 1)])),
        ("G-single", story([r(X), r(Y, 1)], [a(X, 1), a(Y, 1)], [r(X, 1)])),
        ("G-single", story([r(X), a(X, 1)], [r(X), a(X, 2)], [r(X, 1, 2)])),
        ("G2", story([r(X), a(Y, 1)], [r(Y), a(X, 1)], [r(X, 1), r(Y, 1)])),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_planted_anomaly_is_found_by_its_name(kind: str, history: History) -> None:
    assert kind in kinds(history)


def test_an_append_that_was_answered_and_is_gone_is_lost() -> None:
    history = one_by_one(("ann", [a(X, 1)]), ("ben", [r(X)]))

    assert {"lost append", "G-single real time"} == kinds(history)


def test_a_read_of_the_past_breaks_real_time_alone() -> None:
    history = one_by_one(("ann", [a(X, 1)]), ("ben", [r(X)]), ("cem", [r(X, 1)]))

    assert {"G-single real time"} == kinds(history)


def test_writes_against_the_order_in_which_they_were_answered_break_real_time() -> None:
    history = one_by_one(("ann", [a(X, 1)]), ("ben", [a(X, 2)]), ("cem", [r(X, 2, 1)]))

    assert {"G0 real time"} == kinds(history)


def test_a_session_that_is_shown_the_past_after_the_present() -> None:
    history = one_by_one(("ann", [a(X, 1)]))
    history.shown("screen", [r(X, 1)])
    history.shown("screen", [r(X)])

    assert {"G-single session"} == kinds(history)


def test_what_is_shown_may_be_late() -> None:
    history = one_by_one(("ann", [a(X, 1)]), ("ann", [a(X, 2)]))
    history.shown("screen", [r(X)])
    history.shown("screen", [r(X, 1)])
    history.shown("screen", [r(X, 1, 2)])

    assert set() == kinds(history)


def test_what_was_rolled_back_within_a_transaction_is_never_read() -> None:
    history = History()
    history.done(history.begin("ann", [], undone=[a(X, 1)]), [])
    history.done(history.begin("ben", []), [r(X, 1)])

    assert {"G1a aborted read"} == kinds(history)


def test_two_who_append_the_same_cannot_be_told_apart() -> None:
    with pytest.raises(ValueError, match="T0 and T1 both make"):
        anomalies(story([a(X, 1)], [a(X, 1)]).operations)


def test_a_cycle_is_told_with_its_reasons() -> None:
    [found] = anomalies(story([r(X), r(Y, 1)], [a(X, 1), a(Y, 1)], [r(X, 1)]).operations)

    assert found.text == (
        "T1 -wr-> T0 -rw-> T1; T0 of client 0 (done): 1=[] 2=[1]; T1 of client 1 (done): 1+1 2+1"
    )


# Every small history: an anomaly is found if and only if no order of the operations explains it.


def explained(operations: Sequence[Operation]) -> bool:
    """Whether some order of the operations, one after the other, gives all that was read."""
    sure = [one for one in operations if one.fate is Fate.DONE]
    unsure = [one for one in operations if one.fate is Fate.UNKNOWN]
    return any(
        _is_told(order) and _is_run(order)
        for left_out in _subsets(unsure)
        for order in permutations([*sure, *left_out])
    )


def _subsets(operations: list[Operation]) -> Iterator[list[Operation]]:
    for bits in range(1 << len(operations)):
        yield [one for at, one in enumerate(operations) if bits >> at & 1]


def _is_told(order: Sequence[Operation]) -> bool:
    """Whether nobody comes before who had ended before they began."""
    return not any(
        after.ended is not None and before.begun is not None and after.ended < before.begun
        for at, before in enumerate(order)
        for after in order[at + 1 :]
    )


def _is_run(order: Sequence[Operation]) -> bool:
    lists: dict[int, tuple[int, ...]] = {}
    for operation in order:
        for step in operation.steps:
            if isinstance(step, Append):
                lists[step.key] = (*lists.get(step.key, ()), step.value)
            elif operation.fate is Fate.DONE and lists.get(step.key, ()) != step.values:
                return False
    return True


Plan = list[Step]
Lists = dict[int, tuple[int, ...]]

PLANS = st.lists(
    st.lists(st.tuples(st.booleans(), st.sampled_from([X, Y])), min_size=1, max_size=3),
    min_size=2,
    max_size=4,
)
FATES = st.sampled_from(["done", "done", "done", "unknown", "aborted"])


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Transactions that overlap and read by the dice, or one by one; then a read of everything."""
    plans = _plans(draw(PLANS))
    lists, steps, fates = _one_by_one(plans)
    if _coin(draw):
        lists = _any_lists(draw, plans)
        steps = [_by_the_dice(draw, plan, lists) for plan in plans]
        fates = [draw(FATES) for _ in plans]
    history = History()
    running: list[tuple[str, Operation, Plan]] = []
    for number, (fate, plan) in enumerate(zip(fates, steps, strict=True)):
        appends = [step for step in plan if isinstance(step, Append)]
        running.append((fate, history.begin(f"client {number}", appends), plan))
        while running and _coin(draw):
            at = draw(st.integers(0, len(running) - 1))
            _end(history, running.pop(at))
    for one in running:
        _end(history, one)
    history.done(history.begin("last", []), [r(key, *lists[key]) for key in (X, Y)])
    return history


def _coin(draw: st.DrawFn) -> bool:
    return draw(st.booleans())


def _plans(drawn: list[list[tuple[bool, int]]]) -> list[Plan]:
    """Each value is appended once; what is read is not known yet."""
    return [
        [a(key, 10 * number + at) if appends else r(key) for at, (appends, key) in enumerate(plan)]
        for number, plan in enumerate(drawn)
    ]


def _one_by_one(plans: list[Plan]) -> tuple[Lists, list[Plan], list[str]]:
    lists: Lists = {X: (), Y: ()}
    done: list[Plan] = []
    for plan in plans:
        done.append([])
        for step in plan:
            if isinstance(step, Append):
                lists[step.key] += (step.value,)
            done[-1].append(step if isinstance(step, Append) else r(step.key, *lists[step.key]))
    return lists, done, ["done"] * len(plans)


def _any_lists(draw: st.DrawFn, plans: list[Plan]) -> Lists:
    """What is there in the end: everything in any order, or only a part of it."""
    appends = [step for plan in plans for step in plan if isinstance(step, Append)]
    lists: Lists = {}
    for key in (X, Y):
        values = draw(st.permutations([one.value for one in appends if one.key == key]))
        length = len(values) if draw(st.booleans()) else draw(st.integers(0, len(values)))
        lists[key] = tuple(values[:length])
    return lists


def _by_the_dice(draw: st.DrawFn, plan: Plan, lists: Lists) -> Plan:
    """Each read is of some beginning of the list, and of what the reader has appended itself."""
    done: Plan = []
    own: Lists = {X: (), Y: ()}
    for step in plan:
        if isinstance(step, Append):
            own[step.key] += (step.value,)
            done.append(step)
        else:
            length = draw(st.integers(0, len(lists[step.key])))
            done.append(r(step.key, *lists[step.key][:length], *own[step.key]))
    return done


def _end(history: History, told: tuple[str, Operation, Plan]) -> None:
    fate, operation, steps = told
    if fate == "done":
        history.done(operation, steps)
    elif fate == "aborted":
        history.aborted(operation)


@given(histories())
def test_an_anomaly_is_found_exactly_where_no_order_explains_the_history(history: History) -> None:
    found = anomalies(history.operations)

    assert explained(history.operations) == (found == [])
