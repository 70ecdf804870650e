"""An application whose documents are migrated; `switches` say what goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired

import trio

from components.migrations import Migrations, component, run_to_completion
from engine import (
    ActionCtx,
    App,
    ConvexError,
    Document,
    MutationCtx,
    QueryCtx,
    Schema,
    Table,
    Value,
    action,
    internal_mutation,
    mutation,
    query,
)

app = App()
mount = app.use(component, name="migrations")
migrations = Migrations(mount, default_batch_size=4)


class Person(Document):
    n: float
    plan: NotRequired[str]
    theme: NotRequired[str]
    seen: NotRequired[float]
    color: NotRequired[str]


class Switch(Document):
    """While it is there, `what` goes wrong at the person `n`."""

    what: str
    n: float


schema = Schema(
    people=Table(Person).index("by_plan", ["plan"]).index("by_n", ["n"]),
    switches=Table(Switch).index("by_n", ["n"]),
)


async def see(ctx: MutationCtx, person: Person) -> dict[str, Value]:
    """Count each visit, fail where a switch says so, and leave something behind in any case."""
    await ctx.db.patch(person["_id"], {"theme": "light"})
    async for switch in ctx.db.query(Switch).with_index("by_n", n=person["n"]):
        raise LookupError(f"{switch['what']} at {person['n']:g}")
    return {"seen": person.get("seen", 0) + 1}


set_theme = migrations.define(Person)(see)
in_batches_of_two = migrations.define("people", batch_size=2)(see)
in_three_parts = migrations.define(Person, ranges=3)(see)
side_by_side = migrations.define(Person, parallelize=True)(see)


asked_of: list[float] = []


async def refuse_the_first(_: MutationCtx, person: Person) -> None:
    asked_of.append(person["n"])
    if person["n"] == 0:
        raise LookupError("the first one is refused")


together = migrations.define(Person, parallelize=True)(refuse_the_first)
one_by_one = migrations.define(Person)(refuse_the_first)


@migrations.define(Person, custom_range=lambda q: q.with_index("by_plan", plan="free"))
async def only_free(_: MutationCtx, person: Person) -> dict[str, Value]:
    return {"seen": person.get("seen", 0) + 1}


@migrations.define(
    Person,
    custom_range=[
        lambda q: q.with_index("by_n", lambda r: r.lt("n", 5)).order("desc"),
        lambda q: q.with_index("by_n", lambda r: r.gte("n", 7)),
    ],
)
def two_ranges(_: MutationCtx, person: Person) -> dict[str, Value] | None:
    return {"seen": person.get("seen", 0) + 1}


@migrations.define(Person)
async def set_color(_: MutationCtx, person: Person) -> dict[str, Value] | None:
    return None if "color" in person else {"color": "red"}


@migrations.define(Person, batch_size=1000)
async def write_a_lot(ctx: MutationCtx, person: Person) -> None:
    for _ in range(300):
        await ctx.db.insert("written", {"n": person["n"]})


@migrations.define(Person, batch_size=25)
async def write_too_much(ctx: MutationCtx, person: Person) -> None:
    for _ in range(2000):
        await ctx.db.insert("written", {"n": person["n"]})


@migrations.define(Person)
async def end_late(_: MutationCtx, person: Person) -> None:
    while person["n"] > 2:
        pass


@migrations.define(Person, ranges=2, batch_size=1)
async def end_late_once(ctx: MutationCtx, person: Person) -> dict[str, Value]:
    """Where a switch says so it does not end; at the eighth it is repaired and started again."""
    if person["n"] == 7:
        await ctx.scheduler.run_after(0, repair_and_start)
    async for _ in ctx.db.query(Switch).with_index("by_n", n=person["n"]):
        while True:
            pass
    return {"seen": person.get("seen", 0) + 1}


@internal_mutation
async def repair_and_start(ctx: MutationCtx) -> None:
    async for switch in ctx.db.query(Switch):
        await ctx.db.delete(switch["_id"])
    await migrations.run_one(ctx, end_late_once)


@migrations.define(Person)
async def never_end(_: MutationCtx, person: Person) -> None:
    while person:
        pass


both = migrations.runner(set_theme, set_color)
either = migrations.runner()


@internal_mutation
async def no_migration(ctx: MutationCtx) -> None:
    pass


@internal_mutation
async def anything(ctx: MutationCtx, do: dict[str, Any]) -> str:
    return "done"


FUNCTIONS: Mapping[str, Any] = {
    "set_theme": set_theme,
    "in_batches_of_two": in_batches_of_two,
    "in_three_parts": in_three_parts,
    "side_by_side": side_by_side,
    "together": together,
    "one_by_one": one_by_one,
    "only_free": only_free,
    "two_ranges": two_ranges,
    "set_color": set_color,
    "write_a_lot": write_a_lot,
    "write_too_much": write_too_much,
    "end_late": end_late,
    "end_late_once": end_late_once,
    "never_end": never_end,
    "no_migration": no_migration,
    "anything": anything,
}


@mutation
async def start(ctx: MutationCtx, name: str, options: dict[str, Any]) -> Any:
    if "next" in options:
        options["next"] = [FUNCTIONS[each] for each in options["next"]]
    return await migrations.run_one(ctx, FUNCTIONS[name], **options)


@mutation
async def start_and_fail(ctx: MutationCtx, name: str) -> None:
    await migrations.run_one(ctx, FUNCTIONS[name])
    raise LookupError


@mutation
async def serially(ctx: MutationCtx, names: list[str]) -> Any:
    return await migrations.run_serially(ctx, [FUNCTIONS[name] for name in names])


@query
async def status(ctx: QueryCtx, names: list[str] | None = None) -> Any:
    named = None if names is None else [FUNCTIONS[name] for name in names]
    return await migrations.get_status(ctx, migrations=named)


@mutation
async def cancel(ctx: MutationCtx, name: str) -> Any:
    return await migrations.cancel(ctx, FUNCTIONS[name])


@mutation
async def cancel_all(ctx: MutationCtx) -> Any:
    return await migrations.cancel_all(ctx)


@action
async def complete(ctx: ActionCtx, name: str, options: dict[str, Any]) -> Any:
    return await run_to_completion(ctx, mount, FUNCTIONS[name], **options)


@action
async def complete_and_cancel(ctx: ActionCtx, name: str) -> Any:
    """Cancel it as soon as a batch is done, while it is run on."""
    fn = FUNCTIONS[name]

    async def cancel() -> None:
        while (await migrations.get_status(ctx, migrations=[fn]))[0]["processed"] == 0:
            pass
        await migrations.cancel(ctx, fn)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        try:
            return await run_to_completion(ctx, mount, fn, batch_size=1)
        except ConvexError as stopped:
            return stopped.data


@query
async def start_in_a_query(ctx: QueryCtx) -> None:
    await migrations.run_one(ctx, set_theme)  # type: ignore[arg-type]  # what is tried


@mutation
async def add(ctx: MutationCtx, numbers: list[float]) -> None:
    for n in numbers:
        plan = "free" if n % 2 == 0 else "paid"
        await ctx.db.insert(Person, {"n": n, "plan": plan})


@mutation
async def remove(ctx: MutationCtx, number: float) -> None:
    async for person in ctx.db.query(Person).with_index("by_n", n=number):
        await ctx.db.delete(person["_id"])


@mutation
async def switch(ctx: MutationCtx, number: float, on: bool) -> None:
    async for found in ctx.db.query(Switch).with_index("by_n", n=number):
        await ctx.db.delete(found["_id"])
    if on:
        await ctx.db.insert(Switch, {"what": "bad", "n": number})


@query
async def people(ctx: QueryCtx) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in person.items() if not name.startswith("_")}
        async for person in ctx.db.query(Person)
    ]
