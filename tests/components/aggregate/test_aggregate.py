"""The aggregate as applications use it: mounted, called, kept in step with a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.aggregate import (
    DirectAggregate,
    ItemTooLarge,
    KeyExists,
    KeyMissing,
    OffsetOutOfBounds,
    SumTooLarge,
    TableAggregate,
    between,
    component,
    eq,
    excl,
    incl,
    prefix,
)
from components.aggregate.growth import item_bytes_max
from components.aggregate.node import size_of
from engine import (
    App,
    ConvexError,
    Document,
    Id,
    Int64,
    MutationCtx,
    QueryCtx,
    Schema,
    Table,
    mutation,
    query,
    trigger,
)
from engine.functions.loader import load
from engine.interface import target_of
from engine.model.values import normalize
from engine.rehearsal.harness import BlockingHarness, open_place
from tests.components.aggregate.counted import APPLICATION, Numbers, mounts, names_of
from tests.components.aggregate.model import IDS, KEYS, SUMMANDS

FEW = settings(max_examples=15)


@pytest.fixture(scope="module")
def shared() -> Iterator[Numbers]:
    """One engine for many examples, each in a namespace of its own."""
    with open_place(APPLICATION) as place:
        yield Numbers(place)


def put(numbers: Numbers, *keys: Any, **more: Any) -> None:
    numbers.tell("insert_batch", [{"key": key, "id": str(n), **more} for n, key in enumerate(keys)])


_namespaces = iter(range(10**9))


def filled(numbers: Numbers, keys: list[Any], size: int = 4, lazy: bool = True) -> dict[str, Any]:
    """A new namespace with these keys."""
    where = {"namespace": next(_namespaces)}
    numbers.tell("clear", max_node_size=size, root_lazy=lazy, **where)
    put(numbers, *keys, **where)
    return where


def test_any_item_may_be_the_one_at_random(numbers: Numbers) -> None:
    put(numbers, *range(8))

    found: Counter[int] = Counter()
    for n in range(100):  # not to be given an answer of before
        found[numbers.ask("random", bounds=between(incl(2 - n / 1000)))["key"]] += 1

    assert set(range(2, 8)) == set(found)
    assert max(found.values()) < 40


# Answers, as the documentation of Convex's has them.


def test_what_is_empty_counts_nothing(numbers: Numbers) -> None:
    assert 0 == numbers.ask("count")
    assert 0 == numbers.ask("sum")
    assert numbers.ask("min") is None
    assert numbers.ask("random") is None
    assert {"page": [], "cursor": "", "isDone": True} == numbers.ask("paginate")
    with pytest.raises(OffsetOutOfBounds):
        numbers.ask("at", 0)


@pytest.mark.parametrize(
    ("bounds", "count"),
    [
        (between(incl(20), incl(30)), 2),
        (between(excl(20), excl(30)), 0),
        (between(incl(20), excl(30)), 1),
        (between(excl(20), incl(30)), 1),
        (between(incl(30), incl(20)), 0),
        (between(), 4),
        (eq(20), 1),
        (eq(25), 0),
    ],
)
def test_ends_are_within_bounds_or_not(numbers: Numbers, bounds: Any, count: int) -> None:
    put(numbers, 10, 20, 30, 40)

    assert count == numbers.ask("count", bounds=bounds)


def test_equal_keys_on_an_end_are_all_in_or_all_out(numbers: Numbers) -> None:
    put(numbers, 20, 20, 30)

    assert 3 == numbers.ask("count", bounds=between(incl(20), incl(30)))
    assert 1 == numbers.ask("count", bounds=between(excl(20), incl(30)))
    assert 1 == numbers.ask("count", bounds=between(excl(20, id="0"), excl(30)))


def test_keys_that_are_arrays_are_found_by_how_they_begin(numbers: Numbers) -> None:
    put(numbers, [10, "a"], [10, "b"], [20, "a"], [20, "c"], [30], 10, sumValue=10)

    counts = [numbers.ask("count", bounds=prefix(*p)) for p in ((10,), (20,), (), (10, "a"))]
    assert [2, 2, 5, 1] == counts
    assert 20 == numbers.ask("sum", bounds=prefix(10))


def test_a_batch_answers_as_its_queries_do(numbers: Numbers) -> None:
    put(numbers, 10, 20, 30, sumValue=5)
    put(numbers, 10, namespace="other", sumValue=7)
    queries = [{"bounds": eq(10)}, {"bounds": between(incl(20))}, {"namespace": "other"}]

    assert [1, 2, 1] == numbers.ask("count_batch", queries)
    assert [5, 10, 7] == numbers.ask("sum_batch", queries)
    places = [{"offset": -1}, {"offset": 0, "namespace": "other"}]
    assert [30, 10] == [item["key"] for item in numbers.ask("at_batch", places)]


def test_bounds_that_say_two_things_are_refused(numbers: Numbers) -> None:
    put(numbers, 1)

    with pytest.raises(ValueError, match="there is either eq, or prefix"):
        numbers.ask("count", bounds={"eq": 1, "prefix": [2]})


def test_a_number_a_truth_and_an_int64_are_three_keys(numbers: Numbers) -> None:
    put(numbers, 1, True, Int64(1))

    found = [item["key"] for item in numbers.items()]
    assert [Int64, int, bool] == [type(key) for key in found]
    assert [1, 1, 1] == [numbers.ask("count", bounds=eq(key)) for key in found]


# Errors.


def test_errors_are_raised_by_class_and_tell_clients_their_kind(numbers: Numbers) -> None:
    put(numbers, 1)
    with pytest.raises(KeyExists) as refused:
        put(numbers, 1)
    with pytest.raises(KeyMissing):
        numbers.tell("delete", key=2, id="0")
    with pytest.raises(OffsetOutOfBounds, match="offset -2: there are 1 items"):
        numbers.ask("at", -2)
    with pytest.raises(KeyMissing):
        numbers.act("delete", key=2, id="0")

    assert isinstance(refused.value, ConvexError)
    assert "KEY_EXISTS" == refused.value.data["kind"]


def test_what_cannot_be_asked_is_refused(numbers: Numbers) -> None:
    with pytest.raises(TypeError, match="takes the ctx of a mutation"):
        numbers.ask("insert", key=1, id="a")
    with pytest.raises(ValueError, match="page_size is 0"):
        numbers.ask("paginate", page_size=0)
    with pytest.raises(ValueError, match="even and at least 4"):
        numbers.tell("clear", max_node_size=5)
    for summand in (float("nan"), float("inf"), "1", True):
        with pytest.raises(ValueError, match="finite number"):
            numbers.tell("insert", key=1, id="a", sum_value=summand)
    assert 0 == numbers.ask("count")


def test_integers_are_exact_up_to_64_bits_and_refused_beyond(numbers: Numbers) -> None:
    numbers.tell("clear", root_lazy=False, max_node_size=4)
    put(numbers, *range(20), sumValue=Int64(2**58))

    assert 20 * 2**58 == numbers.ask("sum")
    put(numbers, *range(20, 40), sumValue=Int64(2**58))
    with pytest.raises(SumTooLarge):
        numbers.ask("sum")
    assert 40 == numbers.ask("count")


@pytest.mark.parametrize("nodes", [4, 16, 64])
def test_the_longest_keys_leave_room_beside_them_and_longer_ones_are_refused(
    numbers: Numbers, nodes: int
) -> None:
    numbers.tell("clear", root_lazy=False, max_node_size=nodes)
    most = item_bytes_max(nodes) - size_of(["", "00000", 0])
    for number in range(nodes + 8):
        numbers.tell("insert", key="k" * most, id=f"{number:05}", sum_value=Int64(2**53))
    numbers.tell("insert", key="l", id="short")

    for key in ("k" * (most + 1), "é" * (most // 2 + 1), ["k" * most], {"k": "k" * most}):
        with pytest.raises(ItemTooLarge, match=f"nodes of {nodes}: take a shorter key"):
            numbers.tell("insert", key=key, id="00000")
    assert nodes + 9 == numbers.ask("count")


def test_what_a_key_that_is_too_long_was_to_replace_stays(numbers: Numbers) -> None:
    put(numbers, 1)

    refused = numbers.survive("replace", {"key": 1, "id": "0"}, {"key": "k" * 100_000})

    assert "ItemTooLarge" == refused
    assert [1, 1] == [numbers.ask("count"), numbers.ask("min")["key"]]


# Transactions.


def test_a_mutation_sees_its_own_writes_and_not_where_it_asks_for_what_is_stale() -> None:
    with open_place(load([two_reads, whole])) as place:
        t = BlockingHarness(place)
        assert [1, 0] == t.mutation(two_reads)
        assert [2, 1] == t.mutation(two_reads)


whole = App()
tallied = DirectAggregate(whole.use(component))


@mutation
async def two_reads(ctx: MutationCtx) -> list[int]:
    count = await tallied.count(ctx)
    await tallied.insert(ctx, key=count, id="a")
    return [await tallied.count(ctx), await tallied.count(ctx, stale=True)]


def test_mounts_know_nothing_of_each_other(numbers: Numbers) -> None:
    others = Numbers(numbers.t._place, "others")
    put(numbers, 1, 2)
    put(others, 1)

    assert [2, 1] == [numbers.ask("count"), others.ask("count")]


def test_in_one_call_none_is_a_namespace_and_leaving_it_out_is_another(numbers: Numbers) -> None:
    put(numbers, 1, namespace=None)
    entries = [{"key": 1, "id": "b"}, {"key": 1, "id": "c", "namespace": None}]
    numbers.tell("insert_batch", [*entries, {"key": 1, "id": "d"}])

    assert [2, 2] == numbers.ask("count_batch", [{}, {"namespace": None}])


def test_an_item_that_is_there_is_given_another_summand(numbers: Numbers) -> None:
    for summand in (5, 7, 7):
        numbers.tell("insert_if_does_not_exist", key=1, id="a", sum_value=summand)

    assert [1, 7] == [numbers.ask("count"), numbers.ask("sum")]


def test_namespaces_are_listed_by_value_and_none_is_one(numbers: Numbers) -> None:
    for namespace in ("b", None, "a", 3):
        put(numbers, 1, namespace=namespace)
    put(numbers, 1)

    first = numbers.ask("paginate_namespaces", page_size=3)
    second = numbers.ask("paginate_namespaces", page_size=3, cursor=first["cursor"])

    assert ["no namespace", None, 3] == first["page"]
    assert (["a", "b"], True) == (second["page"], second["isDone"])


def test_clearing_everything_ends_with_hundreds_of_namespaces(numbers: Numbers) -> None:
    for n in range(250):
        numbers.tell("insert", key=1, id="a", namespace=n)
    numbers.tell("clear_all", root_lazy=False)

    counts = numbers.ask("count_batch", [{"namespace": n} for n in range(250)])
    assert [0] * 250 == counts


def test_what_was_cleared_is_freed_in_the_background(numbers: Numbers) -> None:
    numbers.tell("clear", max_node_size=4)
    put(numbers, *range(900))
    before = nodes_of(numbers)

    numbers.tell("clear")
    put(numbers, 1, 2, 3)
    assert 3 == numbers.ask("count")
    assert before - 200 < nodes_of(numbers) < before
    numbers.t.finish_all_scheduled_functions()

    assert 1 == nodes_of(numbers)
    assert [1, 2, 3] == [item["key"] for item in numbers.items()]


def test_clearing_many_namespaces_frees_only_some_nodes_at_once(numbers: Numbers) -> None:
    numbers.tell("clear_all", max_node_size=4)
    for namespace in range(20):
        put(numbers, *range(60), namespace=namespace)
    before = nodes_of(numbers)

    numbers.tell("clear_all")
    left = nodes_of(numbers)
    numbers.t.finish_all_scheduled_functions()

    assert before > 500
    assert before - 200 <= left
    assert 21 == nodes_of(numbers)


def test_a_tree_is_verified_in_slices_of_one_state_while_it_changes(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(names_of("functions:verify"), "NODES_VERIFIED", 7)
    numbers.tell("clear", max_node_size=4)
    put(numbers, *range(300))
    callee = numbers.t._place.stage.callee(None)
    walk, ts, slices = None, callee.now_ts, 0
    while walk is None or walk["left"]:
        args: Any = {"which": {}} if walk is None else {"which": {}, "walk": walk}
        target = target_of(mounts["numbers"].verify, (args,), {})
        answer = numbers.t._place.wait(partial(callee.query, target, ts))
        assert answer.error is None
        walk = answer.value
        put(numbers, f"meanwhile {slices}")
        slices += 1

    assert 300 == walk["count"]
    assert slices > 10


def nodes_of(numbers: Numbers) -> int:
    count: int = numbers.t.query(mounts["numbers"].size, {})["nodes"]
    return count


def test_what_a_tree_was_built_with_holds_for_namespaces_to_come(numbers: Numbers) -> None:
    numbers.tell("clear_all", max_node_size=4)
    put(numbers, *range(5), namespace="new")

    numbers.verify(namespace="new")
    assert 3 == nodes_of(numbers) - 1


def test_deleting_from_a_namespace_that_is_not_there_makes_none(numbers: Numbers) -> None:
    numbers.tell("delete_if_exists", key=1, id="a", namespace="x")

    assert [] == numbers.ask("paginate_namespaces")["page"]


# Laws, on one engine.


@FEW
@given(
    keys=st.lists(KEYS.map(normalize), max_size=40),
    lazy=st.booleans(),
    size=st.sampled_from([4, 6, 16]),
)
def test_rank_and_place_are_inverse(
    shared: Numbers, keys: list[Any], lazy: bool, size: int
) -> None:
    where = filled(shared, keys, size, lazy)

    items = shared.items(**where)
    for rank, item in enumerate(items):
        here = {"id": item["id"], **where}
        assert rank == shared.ask("index_of", item["key"], **here)
        assert len(items) - 1 - rank == shared.ask("index_of", item["key"], order="desc", **here)
        assert repr(item) == repr(shared.ask("at", rank, **where))


@FEW
@given(keys=st.lists(KEYS.map(normalize), max_size=40), at=KEYS.map(normalize))
def test_a_cut_parts_counts_and_sums(shared: Numbers, keys: list[Any], at: Any) -> None:
    where = filled(shared, keys)
    put(shared, *[["more", key] for key in keys], sumValue=3, **where)

    for what in ("count", "sum"):
        below = shared.ask(what, bounds=between(upper=excl(at)), **where)
        rest = shared.ask(what, bounds=between(lower=incl(at)), **where)
        assert shared.ask(what, **where) == below + rest


@FEW
@given(
    keys=st.lists(KEYS.map(normalize), min_size=1, max_size=40),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    order=st.sampled_from(["asc", "desc"]),
)
def test_pages_of_any_sizes_are_the_whole_also_when_their_last_item_goes(
    shared: Numbers, keys: list[Any], sizes: list[int], order: str
) -> None:
    where = filled(shared, keys)
    everything = shared.items(order=order, **where)

    found: list[Any] = []
    page: Any = {"cursor": None, "isDone": False}
    while not page["isDone"]:
        size = sizes[len(found) % len(sizes)]
        page = shared.ask("paginate", cursor=page["cursor"], page_size=size, order=order, **where)
        found += page["page"]
        last = page["page"][-1]
        shared.tell("delete", key=last["key"], id=last["id"], **where)
        assert page["isDone"] == (len(found) == len(everything))

    assert repr(everything) == repr(found)


@FEW
@given(
    keys=st.lists(KEYS.map(normalize), max_size=30),
    key=KEYS.map(normalize),
    item_id=IDS,
    summand=SUMMANDS,
)
def test_what_comes_and_goes_leaves_every_answer_as_it_was(
    shared: Numbers, keys: list[Any], key: Any, item_id: str, summand: Any
) -> None:
    where = filled(shared, keys)
    before = shared.items(**where), shared.ask("sum", **where)

    shared.tell("insert", key=key, id=f"new {item_id}", sum_value=summand, **where)
    shared.tell("delete", key=key, id=f"new {item_id}", **where)

    assert repr(before) == repr((shared.items(**where), shared.ask("sum", **where)))


@FEW
@given(
    keys=st.lists(KEYS.map(normalize), max_size=60),
    bounds=st.lists(KEYS.map(normalize), min_size=2, max_size=2),
)
def test_trees_of_every_build_give_the_same_answers(
    shared: Numbers, keys: list[Any], bounds: list[Any]
) -> None:
    builds = [(4, True), (4, False), (6, True), (64, False)]
    places = [filled(shared, keys, size, lazy) for size, lazy in builds]
    within = between(incl(bounds[0]), excl(bounds[1]))

    answers = [
        repr((shared.items(bounds=within, **where), shared.ask("count", bounds=within, **where)))
        for where in places
    ]

    assert 1 == len(set(answers))


# Kept in step with a table.


class Score(Document):
    game: str
    points: float


class Seen(Document):
    score: Id[Score]


schema = Schema(scores=Table(Score), seen=Table(Seen))
boards = App()
by_points = TableAggregate[Score](
    boards.use(component, name="by_points"),
    sort_key=lambda doc: doc["points"],
    sum_value=lambda doc: doc["points"],
    namespace=lambda doc: doc["game"],
)
repaired = TableAggregate[Score](
    boards.use(component, name="repaired"), sort_key=lambda doc: [doc["game"], doc["points"]]
)
in_step = trigger(Score)(by_points.trigger())
in_step_again = trigger(Score)(repaired.idempotent_trigger())


@mutation
async def play(ctx: MutationCtx, steps: list[list[Any]]) -> None:
    """Insert, change and delete scores: the step says which of those that are there."""
    for verb, at, game, points in steps:
        docs = await ctx.db.query(Score).collect()
        if verb == "insert" or not docs:
            await ctx.db.insert(Score, {"game": game, "points": points})
        elif verb == "patch":
            await ctx.db.patch(docs[int(at) % len(docs)]["_id"], {"points": points})
        elif verb == "replace":
            await ctx.db.replace(docs[int(at) % len(docs)]["_id"], {"game": game, "points": points})
        else:
            await ctx.db.delete(docs[int(at) % len(docs)]["_id"])


@query
async def standings(ctx: QueryCtx) -> Any:
    docs = await ctx.db.query(Score).collect()
    docs.sort(key=lambda doc: (doc["points"], doc["_id"]))
    for game in ("chess", "go"):
        mine = [doc for doc in docs if doc["game"] == game]
        assert len(mine) == await by_points.count(ctx, namespace=game)
        assert sum(doc["points"] for doc in mine) == await by_points.sum(ctx, namespace=game)
        assert len(mine) == await repaired.count(ctx, bounds=prefix(game))
        ids = [item["id"] async for item in by_points.iter(ctx, namespace=game, page_size=2)]
        assert [doc["_id"] for doc in mine] == ids
        for rank, doc in enumerate(mine):
            assert rank == await by_points.index_of_doc(ctx, doc)
    return len(docs)


@mutation
async def forget(ctx: MutationCtx) -> None:
    await repaired.clear(ctx)


@query
async def best_of_chess(ctx: QueryCtx) -> int:
    return await by_points.count(ctx, namespace="chess")


@mutation
async def play_for_nobody(ctx: MutationCtx, verb: str) -> None:
    await getattr(by_points, verb)(ctx, None)


BOARDS = load(
    [
        *(boards, schema, in_step, in_step_again, play, play_for_nobody, standings, forget),
        best_of_chess,
    ]
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "patch", "replace", "delete"]),
        st.integers(0, 50),
        st.sampled_from(["chess", "go"]),
        st.integers(0, 9),
    ).map(list),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def table() -> Iterator[BlockingHarness]:
    with open_place(BOARDS) as place:
        yield BlockingHarness(place)


@FEW
@given(programs=st.lists(STEPS, min_size=1, max_size=6))
def test_a_table_and_its_aggregates_are_in_step(
    table: BlockingHarness, programs: list[Any]
) -> None:
    for steps in programs:
        table.mutation(play, steps)
        table.query(standings)


@pytest.mark.parametrize("verb", ["insert", "delete", "insert_if_does_not_exist"])
def test_what_is_no_document_has_no_item(table: BlockingHarness, verb: str) -> None:
    with pytest.raises(TypeError, match="has items of documents, and None is none"):
        table.mutation(play_for_nobody, verb)


def test_the_tolerant_trigger_puts_right_what_is_missing() -> None:
    with open_place(BOARDS) as place:
        t = BlockingHarness(place)
        t.mutation(play, [["insert", 0, "chess", 1], ["insert", 0, "chess", 2]])
        t.mutation(forget)
        t.mutation(play, [["patch", 0, "", 5], ["patch", 1, "", 6], ["delete", 0, "", 0]])

        assert 1 == t.query(standings)


def test_a_count_is_live_and_another_namespace_does_not_disturb_it() -> None:
    with open_place(BOARDS) as place:
        t = BlockingHarness(place)
        with t.subscribe(best_of_chess) as counts:
            assert 0 == next(counts)
            t.mutation(play, [["insert", 0, "chess", 1]])
            assert 1 == next(counts)
