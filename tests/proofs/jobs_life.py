"""
The life of one job of each kind, from when it is planned until nothing of it is left to be done.

It goes past places: pause points of the engine, and a few of its own, each to which somebody comes
for so many times.  `PATHS` has them all, and what is durable when one is cut off there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import trio

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Retry
from engine.app.decorators import internal_action, internal_mutation, mutation, query
from engine.app.registry import Application
from engine.functions.job_rows import IN_PROGRESS, PENDING
from engine.functions.loader import load
from engine.indexes.verify import verify
from engine.model.ids import Id
from engine.node import Node
from tests.node.nodes import ask, mutate

PLANNED: Final = "planned"
FOUND: Final = "jobs.found"
FUNCTION: Final = "function"
PERSIST: Final = "committer.persist"
PUBLISHED: Final = "committer.published"
BEGUN: Final = "jobs.begun"
ACTED: Final = "jobs.acted"
CANCELED: Final = "canceled"
ENDED: Final = "jobs.ended"
POINTS: Final = (
    PLANNED, FOUND, FUNCTION, PERSIST, PUBLISHED, BEGUN, ACTED, CANCELED, ENDED,
)  # fmt: skip

Left: TypeAlias = Literal["waits", "begun", "canceled", "over"]
"""What a job is on disk when its engine is gone."""


class Place(NamedTuple):
    """Where somebody comes for the n-th time since the job waits."""

    point: str
    visit: int

    def __str__(self) -> str:
        return f"{self.point} {self.visit}"


def _path(text: str) -> dict[Place, Left]:
    """Points in order, each part of them after what is durable there."""
    found: dict[Place, Left] = {}
    visits: Counter[str] = Counter()
    left: Any = None
    for word in text.split():
        if word.endswith(":"):
            left = word.removesuffix(":")
            continue
        (point,) = (point for point in POINTS if point.rpartition(".")[2] == word)
        visits[point] += 1
        found[Place(point, visits[point])] = left
    return found


PATHS: Final[dict[str, dict[Place, Left]]] = {
    "mutation": _path("waits: planned found function persist over: published ended"),
    "action": _path(
        "waits: planned found persist begun: published begun function persist published acted "
        "persist over: published ended"
    ),
    "retry": _path(
        "waits: planned found persist begun: published begun function acted persist "
        "waits: published ended found persist begun: published begun function acted persist "
        "over: published ended found persist published ended"
    ),
    "cancel": _path("waits: planned found persist canceled: published canceled ended"),
    "cancel of an action": _path("waits: planned found persist canceled: published canceled ended"),
    "cancel of a running action": _path(
        "waits: planned found persist begun: published begun function persist "
        "canceled: published canceled persist published acted ended"
    ),
    "cron": _path("waits: planned found function persist over: published ended"),
    "cron of an action": _path(
        "waits: planned found persist begun: published begun function acted persist "
        "over: published ended"
    ),
}
"""By the kind of the job.  In the end of a retry somebody is told, by one more job."""

CANCELED_AT: Final = {
    "cancel": FOUND,
    "cancel of an action": FOUND,
    "cancel of a running action": FUNCTION,
}
"""Where the job is when it is canceled."""

DELAY_MS: Final = 30.0
QUIET_S: Final = 0.02
"""Until whatever the plan has caused is over."""
ATTEMPTS: Final = 3
BEAT_S: Final = 10
REST_S_MAX: Final = 4 * 86_400.0
UNFINISHED: Final = (PENDING, IN_PROGRESS)


class Course:
    """
    Counts who comes where, from `begin` on, and does something at one place.

    Args:
        place: where.
        act: what; it may raise.
        act_now: the same amid a mutation, which waits for nothing.
        outside: told what nobody takes back.
    """

    def __init__(
        self,
        place: Place | None = None,
        act: Callable[[], Awaitable[None]] | None = None,
        act_now: Callable[[], None] | None = None,
        outside: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.visits: Counter[str] = Counter()
        self.outside = outside
        self.has_come = False
        self._place, self._act, self._act_now = place, act, act_now
        self._is_begun = False
        self._cancels_at = ""
        self._cancel: Callable[[], Awaitable[None]] | None = None

    def begin(self, kind: str, cancel: Callable[[], Awaitable[None]]) -> None:
        self._is_begun = True
        self._cancels_at, self._cancel = CANCELED_AT.get(kind, ""), cancel

    async def come(self, point: str) -> None:
        """Somebody is there."""
        if not self._is_begun:
            return
        if self._is_place(point) and self._act is not None:
            await self._act()
        if point == self._cancels_at and self._cancel is not None:
            cancel, self._cancel = self._cancel, None
            await cancel()
            await self.come(CANCELED)

    def come_now(self, point: str) -> None:
        """A mutation is there."""
        if self._is_begun and self._is_place(point) and self._act_now is not None:
            self._act_now()

    def _is_place(self, point: str) -> bool:
        self.visits[point] += 1
        is_it = self._place == Place(point, self.visits[point])
        self.has_come = self.has_come or is_it
        return is_it


course = Course()
"""Of the job that lives now; functions know of nothing else that is not in the database."""


def take(new: Course) -> Course:
    """Have functions go past the places of another course."""
    global course
    course = new
    return new


# The application.


@mutation
async def plan(ctx: MutationCtx, token: int, kind: str) -> list[Any]:
    """Have something done later; when it is due, and the job."""
    scheduler = ctx.scheduler
    job = None
    match kind:
        case "mutation" | "cancel":
            job = await scheduler.run_after(DELAY_MS, land, token)
        case "action" | "cancel of an action":
            job = await scheduler.run_after(DELAY_MS, act, token)
        case "cancel of a running action":
            job = await scheduler.run_after(DELAY_MS, parent, token)
        case "retry":
            retry = Retry(initial_backoff=20, base=1, max_attempts=ATTEMPTS)
            scheduler = scheduler.with_retry(retry, on_complete=told, context=token)
            job = await scheduler.run_after(DELAY_MS, fragile, token)
        case "cron":
            await ctx.crons.register(f"{token}", tick, {"token": token}, seconds=BEAT_S)
        case _:
            assert kind == "cron of an action", kind
            await ctx.crons.register(f"{token}", act_tick, {"token": token}, seconds=BEAT_S)
    return [ctx.now_ms + (DELAY_MS if job else 0), job]


@mutation
async def cancel(ctx: MutationCtx, job: Id[Any]) -> None:
    await ctx.scheduler.cancel(job)


@mutation
async def forget(ctx: MutationCtx, token: int) -> None:
    await ctx.crons.remove(f"{token}")


@internal_mutation
async def land(ctx: MutationCtx, token: int) -> None:
    await ctx.db.insert("landed", {"token": token, "at": ctx.now_ms})
    course.come_now(FUNCTION)


@internal_mutation
async def leave(ctx: MutationCtx, token: int) -> None:
    """What an action writes, or schedules."""
    await ctx.db.insert("landed", {"token": token, "at": ctx.now_ms})


@internal_action
async def act(ctx: ActionCtx, token: int) -> None:
    course.outside(f"began {token} {ctx.now_ms}")
    await course.come(FUNCTION)
    await ctx.run_mutation(leave, token)


@internal_action
async def parent(ctx: ActionCtx, token: int) -> None:
    course.outside(f"began {token} {ctx.now_ms}")
    await course.come(FUNCTION)
    await ctx.scheduler.run_after(0, leave, token)


@internal_action
async def fragile(ctx: ActionCtx, token: int) -> None:
    """Fail at the first attempt."""
    course.outside(f"began {token} {ctx.now_ms}")
    await course.come(FUNCTION)
    if not await ctx.run_query(was_tried, token):
        raise ValueError("as planned")


@query
async def was_tried(ctx: QueryCtx, token: int) -> bool:
    found = await jobs_of(ctx, token)
    return any(job.get("attempts", 0) > 1 for job in found)


@internal_mutation
async def told(ctx: MutationCtx, job: str, result: dict[str, Any], context: int) -> None:
    await ctx.db.insert("told", {"token": context, "kind": result["kind"]})


@internal_mutation
async def tick(ctx: MutationCtx, token: int) -> None:
    await ctx.db.insert("landed", {"token": token, "at": ctx.now_ms})
    course.come_now(FUNCTION)


@internal_action
async def act_tick(ctx: ActionCtx, token: int) -> None:
    course.outside(f"began {token} {ctx.now_ms}")
    await course.come(FUNCTION)


async def jobs_of(ctx: QueryCtx, token: int) -> list[dict[str, Any]]:
    found = await ctx.db.system.query("_scheduled_functions").collect()
    return [job for job in found if token in job["args"][0].values()]


@query
async def rows(ctx: QueryCtx, token: int) -> dict[str, list[dict[str, Any]]]:
    """All that there is of one plan."""
    tables = {
        name: await ctx.db.query(name).where(lambda row: row["token"] == token).collect()
        for name in ("landed", "told")
    }
    return {**tables, "jobs": await jobs_of(ctx, token)}


def app() -> Application:
    functions = (plan, cancel, forget, land, leave, act, parent, fragile, told, tick, act_tick)
    return load([*functions, was_tried, rows])


# A life, and what is left in the end.


async def live(node: Node, kind: str, token: int) -> None:
    """Plan a job, go along its course, and come to rest."""
    node.scheduler.pause()
    due_ms, job = await mutate(node, plan, token, kind)
    course.outside(f"due {token} {due_ms}")
    await trio.sleep(QUIET_S)
    course.begin(kind, partial(mutate, node, cancel, job))
    await course.come(PLANNED)
    node.scheduler.resume()
    await come_to_rest(node, token)


async def come_to_rest(node: Node, token: int) -> None:
    """Wait until nothing of a plan is left to be done, but the next tick of a cron."""
    with trio.fail_after(REST_S_MAX):
        while True:
            await node.scheduler.wait_resting()
            jobs = (await ask(node, rows, token))["jobs"]
            ticks = [len(cron.get("runs", ())) for cron in await _crons_of(node, token)]
            if all(ticks) and not any(job["state"]["kind"] in UNFINISHED for job in jobs):
                return
            # In virtual time it may be due tomorrow.
            next_ms = node.scheduler.next_due_ms or 0
            await trio.sleep(max(0.01, next_ms / 1000 - node.runtime.now_ns() / 1e9))


async def _crons_of(node: Node, token: int) -> list[dict[str, Any]]:
    return [row for row in await node.scheduler.jobs.crons() if row["cron"] == f"{token}"]


async def left_of(node: Node, token: int) -> dict[str, Any]:
    """What there is of a plan that has come to rest."""
    *_, findings = verify(node.store.snapshot)
    crons = await _crons_of(node, token)
    return {
        **await ask(node, rows, token),
        "problems": findings.problems,
        "now_ms": node.runtime.now_ns() / 1e6,
        "crons": [{**row, "waits": node.scheduler.jobs.row(row["tick"])} for row in crons],
    }
