"""
Follow queries while others write, and ask again, as of its timestamp, for every value that came.

The queries are followed over real sockets and beside the engine.  What is asked again has an
argument of its own, so that no cache can answer it, and must be the value that was shown.  After
each burst of writes everybody must come to show what is there: so a dropped invalidation is
noticed, unless another write happens to make up for it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.host import Engine
from engine.interface import AsyncInterface, Failed
from engine.model.reads import Touched
from engine.server.listener import ListenConfig
from engine.server.server import ServerConfig
from engine.subscriptions.handle import Subscriptions
from engine.subscriptions.token import Live
from tests.proofs.proof import Plan, Verdict

PROMISE = (
    "What a subscription shows is what its query gives at that timestamp, up to the last write."
)
ROUNDS = 20

GROUPS = 6
BURSTS = 60
"""In a round; of one to `WRITERS_MAX` writes beside each other."""
WRITERS_MAX = 8
SETTLED_S_MAX = 10.0
LOOK_S = 0.002
DROPPED_IN = 1_000
PLANTED_ROUNDS = 60
"""At most: some thousand invalidations each."""
ADMIN_KEY = "proof|0123456789abcdef0123456789abcdef"

schema = Schema(
    items=Table(v.object({"group": v.number(), "n": v.number()}))
    .index("by_group", ["group", "n"])
    .index("by_n", ["n"])
)


@mutation
async def write(ctx: MutationCtx, seed: float) -> None:
    """Insert, move, change or delete an item, or two."""
    dice = random.Random(int(seed))
    for _ in range(dice.randint(1, 2)):
        group = dice.randrange(GROUPS)
        found = await ctx.db.query("items").with_index("by_group", group=group).take(3)
        verb = dice.choice(["insert", "move", "change", "delete"])
        fields = {"group": dice.randrange(GROUPS), "n": dice.randrange(20)}
        if verb == "insert" or not found:
            await ctx.db.insert("items", fields)
        elif verb == "delete":
            await ctx.db.delete(dice.choice(found)["_id"])
        else:
            changed = fields if verb == "move" else {"n": fields["n"]}
            await ctx.db.patch(dice.choice(found)["_id"], changed)


@query
async def of_group(ctx: QueryCtx, group: float, nonce: float = 0) -> list[list[Any]]:
    found = ctx.db.query("items").with_index("by_group", group=group)
    return [[doc["_id"], doc["n"]] async for doc in found]


@query
async def highest(ctx: QueryCtx, count: float, nonce: float = 0) -> list[list[Any]]:
    found = await ctx.db.query("items").with_index("by_n").order("desc").take(int(count))
    return [[doc["group"], doc["n"]] for doc in found]


@query
async def total(ctx: QueryCtx, nonce: float = 0) -> int:
    return await ctx.db.count("items")


Question = tuple[Any, dict[str, Any]]
QUESTIONS: list[Question] = [
    *((of_group, {"group": group}) for group in range(GROUPS)),
    (highest, {"count": 1}),
    (highest, {"count": 5}),
    (total, {}),
]


@dataclass
class Witness:
    """What was shown, and what contradicts it."""

    shown: int = 0
    problems: list[str] = field(default_factory=list)
    last: dict[tuple[str, int], Any] = field(default_factory=dict)
    nonces: Iterator[int] = field(default_factory=lambda: iter(range(1, 1 << 60)))

    def note(self, problem: str) -> None:
        self.problems.append(problem)


def prove(plan: Plan) -> Verdict:
    """Run the rounds, or, planted, look whether a dropped invalidation is noticed."""
    if not plan.planted:
        witness = Witness()
        for number in range(plan.rounds):
            trio.run(_round, plan.directory / f"{number}", plan.seed + number, witness)
            if witness.problems:
                break
        return Verdict(
            held=not witness.problems,
            figure=f"{plan.rounds} crowds, {witness.shown:,} values asked for again, "
            f"{len(witness.problems)} wrong {witness.problems[:2] or ''}".strip(),
        )
    with _dropping(random.Random(plan.seed)) as counted:
        for number in range(PLANTED_ROUNDS):
            witness = Witness()
            trio.run(_round, plan.directory / f"{number}", plan.seed + number, witness)
            if witness.problems:
                print(f"  one invalidation in {DROPPED_IN:,} dropped: {witness.problems[0]}")
                break
    seen = f"{counted['dropped']} of {counted['all']:,} invalidations were dropped"
    return Verdict(held=bool(witness.problems), figure=f"{seen}, {len(witness.problems)} noticed")


async def _round(directory: Path, seed: int, witness: Witness) -> None:
    app = [write, of_group, highest, total, schema]
    config = ServerConfig(admin_key=ADMIN_KEY)
    async with (
        Engine.open(directory, app=app, server=config) as engine,
        engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as urls,
        Engine.connect(urls[0], admin_key=ADMIN_KEY) as near,
        Engine.connect(urls[0], admin_key=ADMIN_KEY) as far,
        trio.open_nursery() as followers,
    ):
        places: dict[str, AsyncInterface] = {"here": engine, "near": near, "far": far}
        witness.last.clear()
        for name, place in places.items():
            for number in range(len(QUESTIONS)):
                followers.start_soon(_follow, engine, place, name, number, witness)
        dice = random.Random(seed)
        for _ in range(BURSTS):
            async with trio.open_nursery() as writers:
                for _ in range(dice.randint(1, WRITERS_MAX)):
                    writers.start_soon(_write, engine, dice.getrandbits(32))
            await _compare_ends(engine, list(places), witness)
            if witness.problems:
                break
        followers.cancel_scope.cancel()


async def _write(engine: Engine, seed: int) -> None:
    await engine.mutation(write, seed=seed)


async def _follow(
    engine: Engine, place: AsyncInterface, name: str, number: int, witness: Witness
) -> None:
    function, args = QUESTIONS[number]
    before = -1
    async with place.subscribe(function.path, args) as results:
        async for state in results.states():
            if isinstance(state, Failed):
                witness.note(f"{name}: {function.path} failed: {state.error}")
                continue
            if state.ts <= before:
                witness.note(f"{name}: {function.path} went from {before} to {state.ts}")
            before = state.ts
            again = {**args, "nonce": next(witness.nonces)}
            expected = await engine.at(state.ts).query(function.path, again)
            witness.shown += 1
            if state.value != expected:
                witness.note(
                    f"{name}: {function.path} {args} showed {state.value} at {state.ts}, "
                    f"and it is {expected}"
                )
            witness.last[name, number] = state.value


async def _compare_ends(engine: Engine, names: list[str], witness: Witness) -> None:
    """Wait until everybody shows what is there; who never does has missed something."""
    ends = [
        await engine.query(function.path, {**args, "nonce": next(witness.nonces)})
        for function, args in QUESTIONS
    ]
    wanted = {(name, number): end for name in names for number, end in enumerate(ends)}
    with trio.move_on_after(SETTLED_S_MAX if not witness.problems else 0):
        while witness.last != wanted:  # noqa: ASYNC110 - those who follow know of nobody who waits
            await trio.sleep(LOOK_S)
    for (name, number), end in wanted.items():
        if witness.last.get((name, number)) != end:
            function, args = QUESTIONS[number]
            witness.note(f"{name}: {function.path} {args} stayed at a value that was not the last")


@contextmanager
def _dropping(dice: random.Random) -> Iterator[Counter[str]]:
    """The planted bug: now and then nobody is told."""
    counted: Counter[str] = Counter()
    original = Subscriptions._invalidate

    def forgetful(self: Subscriptions, commit: Touched) -> Iterator[Live]:
        for live in original(self, commit):
            counted["all"] += 1
            if dice.randrange(DROPPED_IN):
                yield live
                continue
            counted["dropped"] += 1
            live.invalidated_at = None
            self._index.add(live.reads, live)

    setattr(Subscriptions, "_invalidate", forgetful)  # noqa: B010 - a method is not assigned to
    try:
        yield counted
    finally:
        setattr(Subscriptions, "_invalidate", original)  # noqa: B010
