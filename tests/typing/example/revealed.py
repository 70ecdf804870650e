"""What type checkers make of it: no registered function, and no result, is Any."""

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, assert_type

from engine import (
    ActionCtx,
    BlockingActionCtx,
    Committed,
    Engine,
    Id,
    Int64,
    MutationCtx,
    Page,
    PaginationOptions,
    QueryCtx,
    VectorHit,
    paginator,
)

from .backend.messages import edit, list_page, note, post, send, since, version, wait
from .backend.schema import Channel, Message


async def functions_give_what_their_handlers_give(ctx: MutationCtx, channel: Id[Channel]) -> None:
    opts: PaginationOptions = {"numItems": 10, "cursor": None}

    assert_type(await ctx.run_query(list_page, channel, opts), Page[Message])
    assert_type(await ctx.run_query(since, channel=channel, after=0), list[Message])
    assert_type(await ctx.run_query(version), str)
    assert_type(await ctx.run_mutation(send, channel, body="x"), Id[Message])
    assert_type(await ctx.run_query("messages:since", {}), Any)
    assert_type(await send(ctx, channel, "x"), Id[Message])
    await assert_type(version(ctx), Coroutine[Any, Any, str])
    few = ctx.transaction_limits(documents_read=10, documents_written=1)
    assert_type(await few.run_query(version), str)
    assert_type(await few.run_mutation(send, channel, body="x"), Id[Message])
    assert_type(await ctx.run_snapshot_query(since, channel=channel, after=0), list[Message])
    assert_type(await few.run_snapshot_query(version), str)
    assert_type(await ctx.create_function_handle(send), str)
    assert_type(await ctx.run_mutation(await ctx.create_function_handle(send), {}), Any)
    assert_type((await ctx.meta.get_function_metadata(version))["name"], str)
    paged = paginator(ctx.db).query(Message).order("desc")
    assert_type(await paged.paginate(opts), Page[Message])
    assert_type((await ctx.meta.get_transaction_metrics())["bytes_read"]["remaining"], int)
    assert_type(ctx.db.vars.commit_ts, Int64)


async def the_past_has_the_same_types(engine: Engine, channel: Id[Channel]) -> None:
    assert_type(await engine.at(5).query(since, channel=channel, after=0), list[Message])
    assert_type(await engine.at(datetime.now(UTC)).query("messages:since"), Any)
    assert_type(await engine.query("messages:since", {}, as_of=5), Any)
    assert_type(await engine.query("messages:since", as_of=datetime.now(UTC)), Any)


async def documents_have_the_type_of_their_id(ctx: QueryCtx, channel: Id[Channel]) -> None:
    assert_type(await ctx.db.get(channel), Channel | None)
    assert_type(await ctx.db.get(Channel, channel), Channel | None)
    assert_type(await ctx.db.get("channels", channel), Channel | None)
    assert_type(await ctx.db.normalize_id(Channel, "x"), Id[Channel] | None)
    assert_type(await ctx.db.query(Message).collect(), list[Message])
    assert_type(await ctx.db.query("messages").unique(), dict[str, Any] | None)
    async for message in ctx.db.query(Message):
        assert_type(message, Message)


async def actions_give_what_they_were_given(ctx: ActionCtx, channel: Id[Channel]) -> None:
    assert_type(await ctx.run_mutation(post, channel, "ada", "x"), Id[Message])
    assert_type(await ctx.commit(post, channel, "ada", "x"), Committed[Id[Message]])
    assert_type(await ctx.run_action(wait, 1.0), str)


async def vectors_are_searched_alike_with_and_without_a_database(
    query: QueryCtx, act: ActionCtx, thread: BlockingActionCtx
) -> None:
    hits = await query.db.vector_search(
        Message, "by_embedding", vector=[0.5], filter=lambda q: q.eq("channel", "x")
    )
    assert_type(hits, list[VectorHit[Message]])
    assert_type(await query.db.get(hits[0]["_id"]), Message | None)
    assert_type(
        await act.vector_search(Message, "by_embedding", vector=[0.5], limit=3),
        list[VectorHit[Message]],
    )
    both = await query.db.hybrid_search(
        Message,
        search_index="search_body",
        search=lambda s: s.search("body", "x"),
        vector_index="by_embedding",
        vector=[0.5],
    )
    assert_type(both, list[VectorHit[Message]])
    assert_type(
        thread.vector_search("messages", "by_embedding", vector=(1, 2)), list[VectorHit[Any]]
    )


def what_can_be_seen_of_a_function() -> tuple[str | None, bool, frozenset[str]]:
    note.table_name.upper()
    return send.path, edit.record, edit.signature.secrets
