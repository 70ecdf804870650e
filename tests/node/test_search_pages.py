"""Pages of a search while others write: none repeats a document, none is lost, and they end."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from hashlib import blake2b
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from engine import Engine
from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.types import PaginationOptions
from engine.app.validators import v
from engine.errors import InvalidCursor, LimitExceeded
from engine.functions.paginator import paginator
from engine.model.codec import decode, encode
from engine.node import Node
from engine.transaction.pagination import Position, encode_cursor
from engine.transaction.view import View
from tests import naive_search
from tests.node.nodes import ask, mutate, serving

SCHEMA = Schema(
    notes=Table(v.any()).search_index("by_text", search_field="text", filter_fields=["kind"])
)
BEST_MAX = 1_024


def matching(db: Any, odd: bool) -> Any:
    found = db.query("notes").with_search_index("by_text", lambda s: s.search("text", "fox"))
    return found.where(lambda note: note["n"] % 2 == 1) if odd else found


@query
async def page(ctx: QueryCtx, opts: PaginationOptions, odd: bool = False) -> Any:
    return await matching(ctx.db, odd).paginate(opts)


@query
async def everything(ctx: QueryCtx) -> Any:
    return await ctx.db.query("notes").collect()


@mutation
async def write(ctx: MutationCtx, texts: list[str], first: int = 0) -> None:
    for n, text in enumerate(texts, first):
        await ctx.db.insert("notes", {"text": text, "n": n})


def some_text(dice: Random) -> str:
    foxes = ["fox", "foxglove"] * dice.choice([0, 0, 1, 1, 2])
    return " ".join([*foxes, *["other"] * dice.randrange(1 + 8 * len(foxes))])


async def disturb_all(ctx: MutationCtx, dice: Random) -> None:
    """Insert some, and change, move and delete some of each that is there."""
    for note in await ctx.db.query("notes").collect():
        match dice.randrange(12):
            case 0:
                await ctx.db.delete(note["_id"])
            case 1:
                await ctx.db.patch(note["_id"], {"text": some_text(dice)})
            case 2:
                await ctx.db.patch(note["_id"], {"n": dice.randrange(9)})
            case 3:
                await ctx.db.patch(note["_id"], {"text": note["text"] + " fox"})
    for _ in range(dice.randrange(6)):
        await ctx.db.insert("notes", {"text": some_text(dice), "n": dice.randrange(9)})


@mutation
async def disturb(ctx: MutationCtx, seed: int) -> None:
    await disturb_all(ctx, Random(seed))


APP = [SCHEMA, page, everything, write, disturb]


async def found_now(node: Node, odd: bool) -> list[str]:
    """What is found of all documents that are there, best first."""
    notes = await ask(node, everything)
    numbers = {note["_id"]: note["n"] for note in notes}
    best = naive_search.search(notes, "text", "fox", {})
    return [one for _, one in best if not odd or numbers[one] % 2 == 1]


def ids(shown: dict[str, Any]) -> list[str]:
    return [note["_id"] for note in shown["page"]]


@pytest.fixture(params=[True, False], ids=["indexed", "read"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the index, and without one that answers."""
    if not request.param:
        monkeypatch.setattr(View, "live", lambda *_: None)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("seed", range(6))
async def test_what_is_found_all_along_is_on_one_page_whatever_others_write(
    seed: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    dice, odd = Random(seed), seed % 2 == 1
    async with serving(APP) as node:
        await mutate(node, write, [some_text(dice) for _ in range(60)])
        throughout, seen = set(await found_now(node, odd)), []
        cursor, is_done = None, False
        while not is_done:
            items = dice.randrange(1, 6)
            now = [one for one in await found_now(node, odd) if one not in seen]

            shown = await ask(node, page, {"numItems": items, "cursor": cursor}, odd)

            assert now[:items] == ids(shown), "the best of the others"
            cursor, is_done = shown["continueCursor"], shown["isDone"]
            seen += ids(shown)
            if len(seen) < 200:
                await mutate(node, disturb, dice.randrange(1_000_000))
                throughout &= {*await found_now(node, odd), *seen}

        assert len(set(seen)) == len(seen)
        assert throughout <= set(seen)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("seed", range(4))
async def test_pages_that_are_shown_have_each_document_once_and_keep_their_own(
    seed: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A document leaves a page and comes back to it; what is new is on the last, which ended."""
    dice, odd = Random(seed), seed % 2 == 1
    async with serving(APP) as node:
        await mutate(node, write, [some_text(dice) for _ in range(30)])
        cursors: list[Any] = [None]
        own: list[set[str]] = []
        is_done = False
        while not is_done:
            shown = await ask(node, page, {"numItems": 4, "cursor": cursors[-1]}, odd)
            cursors.append(shown["continueCursor"])
            own.append(set(ids(shown)))
            is_done = shown["isDone"]
        for _ in range(8):
            await mutate(node, disturb, dice.randrange(1_000_000))
            now = await found_now(node, odd)
            others = set(now).difference(*own[:-1])
            for (start, end), kept in zip(pairwise(cursors), [*own[:-1], others], strict=True):
                opts = {"numItems": 4, "cursor": start, "endCursor": end}

                shown = await ask(node, page, opts, odd)

                assert [one for one in now if one in kept] == ids(shown)
                assert end == shown["continueCursor"]


async def test_a_subscriber_keeps_the_page_that_it_was_shown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with Engine.open(":memory:", app=APP) as engine:
        await engine.mutation(write, ["fox fox fox", "fox fox", "fox and another"])
        opts: PaginationOptions = {"numItems": 2, "cursor": None}
        async with engine.subscribe(page, opts) as pages:
            first = await anext(pages)
            await engine.mutation(write, ["fox fox fox fox"], 3)
            await engine.mutation(rewrite, 0, "fox and many others")
            with trio.fail_after(5):
                second = await anext(pages)
            await engine.mutation(rewrite, 1, "nothing")
            with trio.fail_after(5):
                third = await anext(pages)

    shown = [[note["n"] for note in one["page"]] for one in (first, second, third)]
    assert [[0, 1], [1, 0], [0]] == shown
    assert first["continueCursor"] == second["continueCursor"] == third["continueCursor"]


@mutation
async def rewrite(ctx: MutationCtx, n: int, text: str) -> None:
    async for note in ctx.db.query("notes"):
        if note["n"] == n:
            await ctx.db.patch(note["_id"], {"text": text})


APP.append(rewrite)


@mutation
async def work(ctx: MutationCtx, seed: int) -> list[list[str]]:
    """Take page after page, and write between them."""
    dice, pages = Random(seed), []
    cursor, is_done = None, False
    while not is_done:
        shown = await matching(paginator(ctx.db), odd=False).paginate(
            {"numItems": 3, "cursor": cursor}
        )
        pages.append(ids(shown))
        cursor, is_done = shown["continueCursor"], shown["isDone"]
        if not is_done and len(pages) < 30:
            await disturb_all(ctx, dice)
    return pages


@pytest.mark.parametrize("seed", range(3))
async def test_a_function_that_writes_between_its_pages_meets_no_document_twice(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving([*APP, work]) as node:
        await mutate(node, write, ["fox " * (1 + n % 3) for n in range(25)])

        pages = await mutate(node, work, seed)

        seen = [one for some in pages for one in some]
        assert len(seen) == len(set(seen))
        assert set(await found_now(node, odd=False)) <= set(seen)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(("odd", "sizes"), [(False, [1_000, 24]), (True, [512])])
async def test_pages_go_to_the_last_that_a_search_may_look_at_and_the_next_says_so(
    odd: bool,
    sizes: list[int],
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        await mutate(node, write, ["fox"] * (BEST_MAX + 1))
        cursor = None
        for size in sizes:
            one = await ask(node, page, {"numItems": 1_000, "cursor": cursor}, odd)
            cursor = one["continueCursor"]

            assert (size, False) == (len(one["page"]), one["isDone"])
        with pytest.raises(LimitExceeded, match=r"1,024 \(SEARCH_CANDIDATES_MAX\)"):
            await ask(node, page, {"numItems": 1, "cursor": cursor}, odd)

        await mutate(node, rewrite, 0, "nothing")

        end = await ask(node, page, {"numItems": 1, "cursor": cursor}, odd)
        assert ([], True) == (end["page"], end["isDone"]), "there are no others now"


async def test_a_page_that_is_shown_keeps_what_over_a_thousand_others_are_better_than(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        await mutate(node, write, ["fox and another", "a foxglove in a garden"])
        one = await ask(node, page, {"numItems": 2, "cursor": None})
        end = one["continueCursor"]

        await mutate(node, write, ["fox"] * (BEST_MAX + 1), 2)

        again = await ask(node, page, {"numItems": 2, "cursor": None, "endCursor": end})
        assert {0, 1} == {note["n"] for note in again["page"]}


async def test_a_last_page_that_outgrows_what_a_search_may_look_at_is_no_longer_the_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        await mutate(node, write, ["fox"])
        end = (await ask(node, page, {"numItems": 2, "cursor": None}))["continueCursor"]

        await mutate(node, write, ["fox"] * BEST_MAX, 1)

        again = await ask(node, page, {"numItems": 2, "cursor": None, "endCursor": end})
        assert (BEST_MAX, False) == (len(again["page"]), again["isDone"])


async def test_a_cursor_that_no_page_of_this_search_has_made_is_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nor one of a version in which it was a score."""
    async with serving(APP) as node:
        await mutate(node, write, ["fox"] * 3)
        spelled = [("text", "fox"), []]
        of_a_score = blake2b(encode(["", "notes", "by_text", spelled, []]), digest_size=8).digest()
        made = (await ask(node, page, {"numItems": 1, "cursor": None}))["continueCursor"]
        own = urlsafe_b64decode(made + "=" * (-len(made) % 4))
        fingerprint = decode(own[:-4])[0]

        for key, owner, why in (
            (bytes(32), of_a_score, "belongs to another query"),
            (bytes(17), fingerprint, "is none of a search"),
            (bytes(16 * (BEST_MAX + 1)), fingerprint, "is none of a search"),
        ):
            for name in ("cursor", "endCursor"):
                opts = {"cursor": None, "numItems": 1, name: encode_cursor(Position(key), owner)}
                with pytest.raises(InvalidCursor, match=why):
                    await ask(node, page, opts)
