"""Actions on each of the three loops; each does the same in the way of its libraries."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import aiohttp
import httpx
import requests
import trio
import trio.lowlevel

from engine import ActionCtx, BlockingActionCtx, action

from . import messages

log = logging.getLogger(__name__)

ENDED: list[str] = []
"""What was unwound."""
KEPT: list[ActionCtx | BlockingActionCtx] = []
RELEASED = threading.Event()


@action
async def fetch_on_trio(ctx: ActionCtx, url: str) -> int:
    print("fetching", url)
    async with httpx.AsyncClient() as client:
        body = (await client.get(url)).text
    await ctx.run_mutation(messages.send, body)
    log.warning("fetched %d", len(body))
    return len(await ctx.run_query(messages.bodies))


@action
def fetch_in_a_thread(ctx: BlockingActionCtx, url: str) -> int:
    print("fetching", url)
    body = requests.get(url, timeout=10).text
    ctx.run_mutation(messages.send, body)
    log.warning("fetched %d", len(body))
    return len(ctx.run_query(messages.bodies))


@action(loop="asyncio")
async def fetch_on_asyncio(ctx: ActionCtx, url: str) -> int:
    print("fetching", url)
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        body = await response.text()
    await ctx.run_mutation(messages.send, body)
    log.warning("fetched %d", len(body))
    return len(await ctx.run_query(messages.bodies))


@action
async def fail_on_trio(ctx: ActionCtx) -> None:
    await trio.lowlevel.checkpoint()
    raise LookupError("trio")


@action
def fail_in_a_thread(ctx: BlockingActionCtx) -> None:
    raise LookupError("thread")


@action(loop="asyncio")
async def fail_on_asyncio(ctx: ActionCtx) -> None:
    await asyncio.sleep(0)
    raise LookupError("asyncio")


@action
async def exit_on_trio(ctx: ActionCtx) -> None:
    raise SystemExit(3)


@action
def exit_in_a_thread(ctx: BlockingActionCtx) -> None:
    raise SystemExit(3)


@action(loop="asyncio")
async def exit_on_asyncio(ctx: ActionCtx) -> None:
    raise SystemExit(3)


@action
async def sleep_on_trio(ctx: ActionCtx) -> None:
    try:
        await trio.sleep(60)
    finally:
        ENDED.append("trio")


@action
def sleep_in_a_thread(ctx: BlockingActionCtx) -> None:
    try:
        for _ in range(600):
            time.sleep(0.05)
            ctx.run_query(messages.bodies)
    finally:
        ENDED.append("thread")


@action(loop="asyncio")
async def sleep_on_asyncio(ctx: ActionCtx) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        ENDED.append("asyncio")


@action
async def send_late(ctx: ActionCtx, body: str) -> None:
    await trio.sleep(0.2)
    await ctx.run_mutation(messages.send, body)


@action(loop="asyncio")
async def leave_a_task(ctx: ActionCtx) -> None:
    async def linger() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ENDED.append("leftover")

    ENDED.append(asyncio.create_task(linger()).get_name())
    await asyncio.sleep(0)


@action(loop="asyncio")
async def cancel_itself(ctx: ActionCtx) -> None:
    raise asyncio.CancelledError


@action(loop="asyncio")
async def several_on_asyncio(ctx: ActionCtx) -> list[str]:
    await asyncio.gather(*[ctx.run_mutation(messages.send, body) for body in "abc"])
    return sorted(await ctx.run_query(messages.bodies))


@action
async def several_on_trio(ctx: ActionCtx) -> list[str]:
    async with trio.open_nursery() as nursery:
        for body in "abc":
            nursery.start_soon(ctx.run_mutation, messages.send, body)
    return sorted(await ctx.run_query(messages.bodies))


@action
async def forget_to_await(ctx: ActionCtx) -> None:
    ctx.run_mutation(messages.send, "never")  # type: ignore[unused-coroutine]


@action
def who_in_a_thread(ctx: BlockingActionCtx) -> list[object]:
    job = ctx.scheduler.run_after(60_000, messages.send, "late")
    ctx.scheduler.cancel(job)
    return [ctx.auth.get_user_identity(), isinstance(job, str), ctx.now_ms > 0]


@action(loop="asyncio")
async def who_on_asyncio(ctx: ActionCtx) -> list[object]:
    job = await ctx.scheduler.run_after(60_000, messages.send, "late")
    await ctx.scheduler.cancel(job)
    return [await ctx.auth.get_user_identity(), isinstance(job, str), ctx.now_ms > 0]


@action
def call_an_asyncio_action(ctx: BlockingActionCtx) -> list[str]:
    return ctx.run_action(several_on_asyncio)


@action
async def keep_ctx_on_trio(ctx: ActionCtx) -> None:
    KEPT.append(ctx)


@action
def keep_ctx_in_a_thread(ctx: BlockingActionCtx) -> None:
    KEPT.append(ctx)


@action(loop="asyncio")
async def keep_ctx_on_asyncio(ctx: ActionCtx) -> None:
    KEPT.append(ctx)


@action
def block_a_thread(ctx: BlockingActionCtx) -> None:
    RELEASED.wait(10)
