"""Text search: which documents match, in which order, and what a search cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio.testing

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.types import PaginationOptions
from engine.app.validators import v
from engine.errors import (
    IndexNotFound,
    InvalidCursor,
    InvalidRange,
    InvalidValue,
    LimitExceeded,
    Overloaded,
    UsageError,
)
from engine.indexes.text import index as text_index
from engine.indexes.text import parts as text_parts
from engine.indexes.vectors.index import VectorIndex
from engine.model.limits import FILTER_FIELDS_MAX, Limits, limits_of
from engine.model.values import UNDEFINED
from engine.node import Node
from engine.transaction.view import View
from tests.node.nodes import ADMIN, application, ask, mutate, serving

SCHEMA = Schema(
    notes=Table(v.any()).search_index("by_text", search_field="text", filter_fields=["channel"])
)
NOTES = [
    "The quick brown fox",
    "A fox; a fox, a FOX!",
    "brown bread and butter",
    "foxglove in the garden of a friend who is not at home today",
    "nothing of the kind",
]


@mutation
async def add(ctx: MutationCtx, texts: list[str], channel: str | None = None) -> list[int]:
    for text in texts:
        await ctx.db.insert("notes", {"text": text, "channel": channel or UNDEFINED})
    found = ctx.db.query("notes").with_search_index("by_text", lambda s: s.search("text", "fox"))
    return [NOTES.index(doc["text"]) for doc in await found.collect()]


async def found(node: Node, search: Callable[[Any], Any], count: int = 9) -> list[int]:
    """Places in `NOTES` of what a search finds."""

    @query
    async def look(ctx: QueryCtx) -> list[int]:
        matches = ctx.db.query("notes").with_search_index("by_text", search)
        return [NOTES.index(doc["text"]) for doc in await matches.take(count)]

    await node.push(application(add, look, SCHEMA))
    result: list[int] = await ask(node, look)
    return result


async def test_documents_with_a_term_or_a_word_that_begins_as_the_last_are_found_best_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([add, SCHEMA]) as node:
        assert [1, 0, 3] == await mutate(node, add, NOTES), "a mutation finds what it wrote"

        assert [1, 0, 3] == await found(node, lambda s: s.search("text", "fox"))
        assert [1, 0] == await found(node, lambda s: s.search("text", "fox"), count=2)
        assert {0, 1, 2} == set(await found(node, lambda s: s.search("text", "fox brown")))
        assert 0 == (await found(node, lambda s: s.search("text", "Fox BROWN")))[0]
        assert {0, 2} == set(await found(node, lambda s: s.search("text", "bro")))
        assert [] == await found(node, lambda s: s.search("text", "own"))
        assert [] == await found(node, lambda s: s.search("text", "?!"))


async def test_a_search_may_be_narrowed_to_values_of_its_filter_fields(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([add, SCHEMA]) as node:
        await mutate(node, add, NOTES[:1], channel="a")
        await mutate(node, add, NOTES[1:])

        assert [0] == await found(node, lambda s: s.search("text", "fox").eq("channel", "a"))
        assert [1, 3] == await found(
            node, lambda s: s.search("text", "fox").eq("channel", UNDEFINED)
        )
        for a, b, places in (("a", "b", []), ("b", "a", []), ("a", "a", [0])):

            def both(s: Any, a: str = a, b: str = b) -> Any:
                return s.search("text", "fox").eq("channel", a).eq("channel", b)

            assert places == await found(node, both), "all of them hold, also two of one field"


@mutation
async def put_in(ctx: MutationCtx, channel: Any) -> None:
    """Put all notes in a channel, which are otherwise as they were."""
    async for note in ctx.db.query("notes"):
        await ctx.db.patch(note["_id"], {"channel": channel["is"] if channel else UNDEFINED})


async def test_a_filter_field_that_becomes_null_or_goes_is_another_value(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def of_channel(value: Any) -> Any:
        return lambda s: s.search("text", "fox").eq("channel", value)

    async with serving([add, put_in, SCHEMA]) as node:
        await mutate(node, add, NOTES[:1])

        for channel, value, other in (
            ({"is": None}, None, UNDEFINED),
            (None, UNDEFINED, None),
            ({"is": 0}, 0, False),
            ({"is": False}, False, 0),
        ):
            await node.push(application(add, put_in, SCHEMA))
            await mutate(node, put_in, channel)
            assert [0] == await found(node, of_channel(value))
            assert [] == await found(node, of_channel(other))


@pytest.mark.parametrize(
    ("search", "error", "said"),
    [
        (lambda s: s, InvalidRange, "needs search"),
        (lambda s: s.search("text", "a").search("text", "b"), InvalidRange, "one search"),
        (lambda s: s.search("title", "a"), InvalidRange, "searches 'text', not 'title'"),
        (lambda s: s.search("text", "a").eq("stars", 1), InvalidRange, "no filter field"),
        (
            lambda s: [s.search("text", "a"), *[s.eq(f"f{n}", n) for n in range(9)]],
            InvalidRange,
            "at most 8 filters",
        ),
        (lambda s: s.search("text", None), InvalidValue, "the words of a text, not None"),
        (lambda s: s.search("text", "a").gt("stars", 1), InvalidRange, "behind it, as in .filter"),
        ({"text": "a"}, InvalidRange, "by a function, as in lambda s"),
    ],
    ids=range(8),
)
async def test_a_search_that_does_not_fit_its_index_is_refused(
    search: Any, error: type[UsageError], said: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving([add, SCHEMA]) as node:
        with pytest.raises(error, match=said):
            await found(node, search)


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_search_has_no_other_order_wherever_one_is_asked_for(
    is_first: bool, autojump_clock: trio.testing.MockClock
) -> None:
    @query
    async def oldest(ctx: QueryCtx) -> list[Any]:
        notes: Any = ctx.db.query("notes")
        if is_first:
            notes = notes.order("asc")
        notes = notes.with_search_index("by_text", lambda s: s.search("text", "fox"))
        found: list[Any] = await (notes if is_first else notes.order("asc")).take(3)
        return found

    async with serving([add, oldest, SCHEMA]) as node:
        with pytest.raises(InvalidRange, match="best first, and has no other order"):
            await ask(node, oldest)


async def test_a_table_without_a_search_index_is_told_the_line_to_add(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([add]) as node:
        with pytest.raises(IndexNotFound, match=r"\.search_index\('by_text', search_field="):
            await mutate(node, add, NOTES)


@query
async def two_searches(ctx: QueryCtx) -> list[str]:
    """Two reads of one index, each with a filter of its own."""
    found = []
    for channel, text in (("a", "fox"), ("b", "bread toast")):

        def looked_for(s: Any, text: str = text, channel: str = channel) -> Any:
            return s.search("text", text).eq("channel", channel)

        matches = ctx.db.query("notes").with_search_index("by_text", looked_for)
        found += [doc["text"] for doc in await matches.collect()]
    return found


@mutation
async def rewrite(ctx: MutationCtx, old: str, new: str | None, channel: str) -> None:
    async for doc in ctx.db.query("notes"):
        if doc["text"] == old and new is None:
            await ctx.db.delete(doc["_id"])
        elif doc["text"] == old:
            await ctx.db.patch(doc["_id"], {"text": new, "channel": channel})


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize(
    ("old", "new", "channel", "wakes"),
    [
        (None, "a fox", "a", True),
        (None, "a fox", "b", False),
        (None, "toasted", "b", True),
        (None, "breads", "b", False),
        (None, "cheese", "a", False),
        ("fox", None, "a", True),
        ("fox", "cat", "a", True),
        ("fox", "fox", "b", True),
        ("fox", "fox fox", "a", True),
        ("cat", "dog", "a", False),
        ("cat", "fox", "a", True),
        ("cat", None, "a", False),
    ],
)
async def test_a_search_is_asked_again_when_a_document_that_it_finds_comes_changes_or_goes(
    old: str | None,
    new: str | None,
    channel: str,
    wakes: bool,
    is_late: bool,
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[str] = []
    async with serving([write, rewrite, two_searches, SCHEMA]) as node:
        await mutate(node, write, ["fox", "cat"], channel="a")
        await mutate(node, write, ["bread", "cheese"], channel="b")
        path = f"{__name__.replace('.', '/')}:two_searches"
        shown = await node.functions.query(path, {}, caller=ADMIN)
        if not is_late:
            shown.live.watch(lambda: told.append("at once"))
        if old is None:
            await mutate(node, write, [new], channel=channel)
        else:
            await mutate(node, rewrite, old, new, channel)
        await node.functions.processed.wait_reached(node.published.value)
        if is_late:
            shown.live.watch(lambda: told.append("late"))

        assert (["late" if is_late else "at once"] if wakes else []) == told
        assert wakes == (shown.live.invalidated_at is not None)
        shown.live.release()


@query
async def words_of(ctx: QueryCtx, text: str) -> list[str]:
    notes = ctx.db.query("notes").with_search_index("by_text", lambda s: s.search("text", text))
    return [doc["text"] for doc in await notes.collect()]


@mutation
async def write(ctx: MutationCtx, texts: list[str], channel: str | None = None) -> None:
    for text in texts:
        await ctx.db.insert("notes", {"text": text, "channel": channel or UNDEFINED})


@query
async def words_in_a(ctx: QueryCtx, text: str) -> list[str]:
    notes = ctx.db.query("notes").with_search_index(
        "by_text", lambda s: s.search("text", text).eq("channel", "a")
    )
    return [doc["text"] for doc in await notes.collect()]


async def test_how_rare_a_word_is_follows_from_the_whole_table_and_not_from_what_is_let_through(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([words_in_a, write, SCHEMA]) as node:
        await mutate(node, write, ["fox", "bread", "bread"], channel="a")
        assert ["fox", "bread", "bread"] == await ask(node, words_in_a, "fox bread")

        await mutate(node, write, ["fox"] * 5, channel="b")

        assert ["bread", "bread", "fox"] == await ask(node, words_in_a, "fox bread")


async def test_who_shows_a_search_is_not_told_that_its_words_became_rarer_but_who_asks_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([words_in_a, write, SCHEMA]) as node:
        await mutate(node, write, ["fox", "bread", "bread"], channel="a")
        path = f"{__name__.replace('.', '/')}:words_in_a"
        shown = await node.functions.query(path, {"text": "fox bread"}, caller=ADMIN)
        shown.live.watch(lambda: None)
        await mutate(node, write, ["fox"] * 5, channel="b")
        await node.functions.processed.wait_reached(node.published.value)

        assert shown.live.invalidated_at is None
        assert ["bread", "bread", "fox"] == await ask(node, words_in_a, "fox bread")
        shown.live.release()


async def test_what_was_found_in_an_index_that_was_built_anew_is_looked_for_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([words_of, write, SCHEMA]) as node:
        await mutate(node, write, ["fox"])
        before = await ask(node, words_of, "fox")
        (status,) = node.keeper.statuses()
        await node.keeper.rebuild(status.index_id)
        await mutate(node, write, ["fox"])

        assert [["fox"], ["fox", "fox"]] == [before, await ask(node, words_of, "fox")]


@mutation
async def other(ctx: MutationCtx) -> None:
    await ctx.db.insert("others", {})


@query
async def pages_of(ctx: QueryCtx, text: str, opts: PaginationOptions) -> Any:
    notes = ctx.db.query("notes").with_search_index("by_text", lambda s: s.search("text", text))
    return await notes.where(lambda doc: not doc["text"].endswith("!")).paginate(opts)


async def test_a_search_is_paginated_best_first_without_gap_or_overlap(
    autojump_clock: trio.testing.MockClock,
) -> None:
    texts = [f"fox {'x ' * n}{'!' * (n % 3 == 0)}" for n in range(12)]
    async with serving([pages_of, write, SCHEMA]) as node:
        await mutate(node, write, texts)
        cursor, pages = None, []
        while True:
            page = await ask(node, pages_of, "fox", {"numItems": 3, "cursor": cursor})
            pages.append([doc["text"] for doc in page["page"]])
            if page["isDone"]:
                break
            cursor = page["continueCursor"]

        wanted = [text for text in texts if not text.endswith("!")]
        assert [wanted[:3], wanted[3:6], wanted[6:]] == pages
        with pytest.raises(InvalidCursor, match="another query"):
            await ask(node, pages_of, "x", {"numItems": 3, "cursor": cursor})


async def test_a_loop_over_a_search_reads_on_as_it_goes_best_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @query
    async def some(ctx: QueryCtx, count: int, only: str | None) -> list[str]:
        notes = ctx.db.query("notes").with_search_index("by_text", lambda s: s.search("text", "x"))
        if only is not None:
            notes = notes.filter(lambda q: q.eq(q.field("text"), only))
        texts = []
        async for note in notes:
            texts.append(note["text"])
            if len(texts) == count:
                break
        return texts

    texts = [" ".join(["x"] * n + ["y"] * (9 - n)) for n in range(9, 0, -1)]
    async with serving([some, write, SCHEMA], limits=Limits(documents_read_max=7)) as node:
        await mutate(node, write, texts[::2] + texts[1::2])

        assert texts[:4] == await ask(node, some, 4, None), "it has read seven of nine"
        assert texts[2:3] == await ask(node, some, 1, texts[2])
        with pytest.raises(LimitExceeded, match="documents_read_max"):
            await ask(node, some, 8, None)


@pytest.mark.parametrize("answers", [True, False])
async def test_a_loop_over_a_search_meets_what_it_has_changed_and_not_what_it_has_deleted(
    answers: bool, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    @mutation
    async def thin_out(ctx: MutationCtx) -> list[str]:
        notes = ctx.db.query("notes").with_search_index("by_text", lambda s: s.search("text", "x"))
        ids = [note["_id"] for note in await notes.take(6)]
        met = []
        async for note in notes:
            met.append(note["text"])
            if len(met) == 1:
                await ctx.db.delete(ids[3])
                await ctx.db.patch(ids[4], {"text": "changed"})
                await ctx.db.insert("notes", {"text": "x x x x x x x x x x"})
        return met

    texts = [" ".join(["x"] * n + ["y"] * (9 - n)) for n in range(9, 3, -1)]
    async with serving([thin_out, write, SCHEMA]) as node:
        await mutate(node, write, texts)
        if not answers:
            monkeypatch.setattr(View, "live", lambda _view, _index: None)

        assert [*texts[:3], "changed", texts[5]] == await mutate(node, thin_out)


async def test_nobody_looks_at_more_than_the_first_1024_that_are_found(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @query
    async def look(ctx: QueryCtx, text: str, count: int | None, only: str | None) -> int:
        notes = ctx.db.query("notes").with_search_index("by_text", lambda s: s.search("text", text))
        if only is not None:
            notes = notes.filter(lambda q: q.eq(q.field("text"), only))
        return len(await (notes.collect() if count is None else notes.take(count)))

    @query
    async def stream(ctx: QueryCtx, text: str) -> int:
        notes = ctx.db.query("notes").with_search_index("by_text", lambda s: s.search("text", text))
        return len([note async for note in notes])

    async with serving([look, stream, write, SCHEMA]) as node:
        await mutate(node, write, ["fox"] * 1_025 + ["cat"] * 1_024)
        assert 1_024 == await ask(node, stream, "cat")
        with pytest.raises(LimitExceeded, match="SEARCH_CANDIDATES_MAX"):
            await ask(node, stream, "fox")

        assert 1_024 == await ask(node, look, "fox", 1_024, None)
        assert 1_024 == await ask(node, look, "cat", None, None)
        assert 7 == await ask(node, look, "fox", 7, "fox")
        for count, only in ((None, None), (1_025, None), (1, "foxes")):
            with pytest.raises(LimitExceeded, match="SEARCH_CANDIDATES_MAX"):
                await ask(node, look, "fox", count, only)


async def test_terms_after_the_sixteenth_are_not_looked_for_and_a_line_says_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([words_of, write, SCHEMA]) as node:
        await mutate(node, write, ["w015", "w019"])
        words = " ".join(f"w{n:03}" for n in range(20))
        path = f"{__name__.replace('.', '/')}:words_of"
        result = await node.functions.query(path, {"text": words}, caller=ADMIN)
        result.live.release()

        assert ["w015"] == await ask(node, words_of, words)
    assert ["[WARN] search terms: 20 of at most 16 (SEARCH_TERMS_MAX)"] == [
        line.replace("'", "") for line in result.log_lines
    ]


async def test_words_of_thirty_two_bytes_are_left_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([words_of, write, SCHEMA]) as node:
        await mutate(node, write, ["a" * 31, "b" * 32])

        assert ["a" * 31] == await ask(node, words_of, "a" * 31)
        assert [] == await ask(node, words_of, "b" * 32)
        assert [] == await ask(node, words_of, "b")


async def test_who_writes_faster_than_an_index_is_folded_waits_and_is_then_refused(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(index_unfolded_bytes_max=1 << 17, mutation_patience_s=3)
    monkeypatch.setattr(text_index, "TAIL_SLOTS_MAX", 50)
    async with serving([words_of, write, other, SCHEMA], limits=limits) as node:
        with monkeypatch.context() as slow:
            slow.setattr(text_index.TextIndex, "fold", lambda *_: None)
            texts = [f"w{n} " * 3 for n in range(100)]
            with pytest.raises(Overloaded, match=r"'by_text', of which over 131,072 .* for 3 s"):
                for _ in range(20):
                    await mutate(node, write, texts)
            async with trio.open_nursery() as nursery:
                began = trio.current_time()
                nursery.start_soon(mutate, node, write, ["zebra"])
                await mutate(node, other)
                assert trio.current_time() - began < 1, "who writes elsewhere waits for nobody"
                await trio.sleep(1)
                slow.undo()
                node.keeper.wake()

        assert ["zebra"] == await ask(node, words_of, "zebra")


async def test_a_few_texts_of_very_many_words_are_folded_before_there_is_no_room(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_index, "TAIL_BYTES_MAX", 100_000)
    async with serving([write, SCHEMA], limits=Limits(index_unfolded_bytes_max=400_000)) as node:
        for some in range(9):
            await mutate(node, write, [" ".join(f"w{some}x{n}" for n in range(1000))])
        (status,) = node.keeper.statuses()
        assert 9 == status.documents


@mutation
async def draw(ctx: MutationCtx, first: int) -> None:
    for n in range(first, first + 30):
        await ctx.db.insert("notes", {"text": f"w{n}", "direction": [1.0, float(n)] * 32})


BOTH = [
    pytest.param(Table(v.any()).search_index("by_text", search_field="text"), id="text"),
    pytest.param(
        Table(v.any()).vector_index("by_direction", vector_field="direction", dimensions=64),
        id="vector",
    ),
]


@pytest.mark.parametrize("notes", BOTH)
async def test_what_cannot_be_folded_is_bounded_whatever_the_index_is(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, notes: Table
) -> None:
    limits = Limits(index_unfolded_bytes_max=1 << 17)
    async with serving([draw, Schema(notes=notes)], limits=limits) as node:
        for kind in (text_index.TextIndex, VectorIndex):
            monkeypatch.setattr(kind, "fold", lambda *_: None)
        with pytest.raises(Overloaded, match=r"'by_\w+', of which over 131,072 bytes"):
            for first in range(0, 9000, 30):
                await mutate(node, draw, first)


@pytest.mark.parametrize("notes", BOTH)
async def test_a_bound_below_what_is_folded_by_itself_holds_nobody_up(
    autojump_clock: trio.testing.MockClock, notes: Table
) -> None:
    limits = Limits(index_unfolded_bytes_max=1 << 17)
    async with serving([draw, Schema(notes=notes)], limits=limits) as node:
        for first in range(0, 900, 30):
            await mutate(node, draw, first)
        (status,) = node.keeper.statuses()
        assert 900 == status.documents


def test_the_least_bound_is_twice_what_an_empty_index_takes() -> None:
    least = 1 << 17
    limits_of({"index_unfolded_bytes_max": least})

    for fields in range(FILTER_FIELDS_MAX + 1):
        assert text_parts.Tail(fields).size_bytes <= least // 2


def noted(*, staged: bool) -> Schema:
    notes = Table(v.any()).search_index("by_text", search_field="text", staged=staged)
    notes.vector_index("by_direction", vector_field="direction", dimensions=64, staged=staged)
    return Schema(notes=notes)


@query
async def drawn_like(ctx: QueryCtx, number: int) -> list[int]:
    """How many have the word of a number, and point as it does."""
    words = ctx.db.query("notes").with_search_index(
        "by_text", lambda s: s.search("text", f"w{number}")
    )
    vector = [1.0, float(number)] * 32
    near = await ctx.db.vector_search("notes", "by_direction", vector=vector, limit=3)
    return [len(await words.collect()), len(near)]


async def test_a_staged_index_answers_when_it_is_staged_no_more_with_all_that_came_meanwhile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([draw, drawn_like, Schema(notes=Table(v.any()))]) as node:
        await mutate(node, draw, 0)
        await node.push(application(draw, drawn_like, noted(staged=True)))
        await mutate(node, draw, 30)
        with pytest.raises(IndexNotFound, match=r"'by_\w+' of 'notes' is staged.* staged=True"):
            await ask(node, drawn_like, 31)

        await node.push(application(draw, drawn_like, noted(staged=False)))

        assert [[1, 3]] * 2 == [await ask(node, drawn_like, number) for number in (29, 59)]


async def test_a_search_without_an_index_that_answers_says_why_it_reads_so_much(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(documents_read_max=3)
    async with serving([words_of, write, SCHEMA], limits=limits) as node:
        await mutate(node, write, NOTES)
        monkeypatch.setattr(View, "live", lambda _view, _index: None)

        with pytest.raises(
            LimitExceeded, match=r"documents_read_max.*'by_text' does not answer yet"
        ):
            await ask(node, words_of, "fox")
