"""Text search: which documents match, in which order, and what a search cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio.testing

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import IndexNotFound, InvalidRange, UsageError
from engine.model.values import UNDEFINED
from engine.node import Node
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
    ],
    ids=range(5),
)
async def test_a_search_that_does_not_fit_its_index_is_refused(
    search: Any, error: type[UsageError], said: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving([add, SCHEMA]) as node:
        with pytest.raises(error, match=said):
            await found(node, search)


async def test_a_table_without_a_search_index_is_told_the_line_to_add(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([add]) as node:
        with pytest.raises(IndexNotFound, match=r"\.search_index\('by_text', search_field="):
            await mutate(node, add, NOTES)


async def test_a_search_is_asked_again_when_any_document_of_its_table_changes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @query(name="look")
    async def look(ctx: QueryCtx) -> int:
        matches = ctx.db.query("notes").with_search_index(
            "by_text", lambda s: s.search("text", "fox")
        )
        return len(await matches.collect())

    async with serving([add, look, SCHEMA]) as node:
        await mutate(node, add, NOTES[:2])
        shown = await node.functions.query(look.path or "", {}, caller=ADMIN)
        await mutate(node, add, NOTES[4:])
        await node.functions.processed.wait_reached(node.published.value)

        assert shown.live.invalidated_at is not None
        shown.live.release()
        assert 2 == await ask(node, look)


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
