"""
Components try to get at what is another's: the application's, a sibling's, a parent's, a child's.

An application has a component twice, and there is another within it; all have tables, documents,
jobs and crons of the same names.  Each attempt of `isolation_attempts` is made by functions of
each side on others, and has to end with the error that stands beside it, or with nothing.  After
each the proof looks whether anything of anybody else has changed.  Clients try from outside, over
HTTP.  What there is to know of a victim, its ids, cursors and names, everybody is told.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple, cast

import httpx
import trio

from engine import Engine, ListenConfig
from engine.functions.loader import load
from engine.functions.results import Caller
from engine.indexes.catalog import CRONS, SCHEDULED_FUNCTIONS
from engine.indexes.recovery import recover
from engine.kernel.trace import trace_to_stderr
from engine.model.codec import decode
from engine.model.identity import Identity
from engine.model.json_values import encode_ts
from engine.store.interface import Tree
from tests.node.sockets import SESSION, opened
from tests.proofs.isolation_attempts import PENDING, Attempt, Loot, attempts, objects
from tests.proofs.isolation_planted import PLANTED
from tests.proofs.proof import Plan, Verdict, too_few

PROMISE = "A component reaches nothing of others, nor they of it, but by what they are given."
ROUNDS = 3

APP: Final = Path(__file__).parent / "isolation_app"
SIDES: Final = ("", "left", "right", "left/lid")
PAIRS: Final = (
    ("left", ""),
    ("left", "right"),
    ("left", "left/lid"),
    ("left/lid", "left"),
    ("left/lid", ""),
    ("", "left"),
    ("", "left/lid"),
)
"""Who tries, and on whom; a parent may call what is public of its child, and nothing here is."""
PROBLEMS_MAX: Final = 20
LEAST: Final = {"kinds of attempts": 50, "attempts": 500, "attempts of clients": 50}
UNKNOWN: Final = "Could not find public function"
"""What a client is told of what does not exist to it."""
ADA: Final = Identity(issuer="https://x", subject="ada", token_identifier="https://x|ada")

State = Mapping[str, Any]
"""Rows by their key, in the component that they are of."""


class Ended(NamedTuple):
    """How an attempt ended: with an error, or with a value."""

    error: BaseException | None
    value: object


@dataclass(kw_only=True)
class Story:
    """What was tried, and what contradicts the promise."""

    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LEAST, 0))
    problems: list[str] = field(default_factory=list)
    problems_max: int = PROBLEMS_MAX

    @property
    def is_clear(self) -> bool:
        """Whether there is nothing more to find out."""
        return len(self.problems) >= self.problems_max

    @property
    def figure(self) -> str:
        counted = ", ".join(f"{count:,} {name}" for name, count in self.done.items())
        return f"{counted}; pending, as they are not there yet: {', '.join(PENDING)}"


def prove(plan: Plan) -> Verdict:
    trace_to_stderr(level="critical")
    if plan.planted:
        return _prove_planted(plan)
    story = Story()
    for number in range(plan.rounds):
        tell(story, plan.seed + number)
    problems = [*story.problems, *too_few(story.done, LEAST)]
    for problem in problems:
        print(problem)
    return Verdict(held=not problems, figure=f"{story.figure}: {len(problems)} problems")


def _prove_planted(plan: Plan) -> Verdict:
    missed = []
    for name, plant in PLANTED.items():
        story = Story(problems_max=1)
        with plant():
            tell(story, plan.seed)
        print(f"{name}: {story.problems[0] if story.problems else 'NOTHING SEEN'}")
        missed += [] if story.problems else [name]
    figure = (
        f"{len(PLANTED) - len(missed)} of {len(PLANTED)} checks were missed when they were away"
    )
    return Verdict(
        held=not missed, figure=f"{figure}{': not ' if missed else ''}{', '.join(missed)}"
    )


def tell(story: Story, seed: int) -> None:
    """Make all attempts, in an order by the dice."""
    with _variable("ISOLATION_SECRET", "of the process"):
        trio.run(_tell, story, Random(seed))


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


async def _tell(story: Story, dice: Random) -> None:
    application = load(APP)
    for path in SIDES:
        place = application.at(path)
        assert place is not None
        objects[path] = place.functions["functions:secret"]
    async with Engine.open(":memory:", app=application) as engine:
        loot = {path: await _filled(engine, path) for path in SIDES}
        tried = [(one, *pair) for one in attempts() for pair in PAIRS]
        dice.shuffle(tried)
        for one, thief, victim in tried:
            if story.is_clear:
                return
            if not (one.of_components and not thief):
                await _try(engine, story, one, thief, {**loot[victim], "own": loot[thief]})
        story.done["kinds of attempts"] = len({one.name for one, *_ in tried})
        await _try_over_http(engine, story, loot["left"])
        await _try_over_a_socket(engine, story, loot["left"])


async def _filled(engine: Engine, path: str) -> Loot:
    """Have a component make what others are after, and say what there is to know of it."""
    run = engine.node.functions
    return {
        **await _told(run.mutation, "fill", path),
        "found": await _told(run.query, "first_found", path),
        "jobs": await _told(run.query, "first_job", path),
    }


async def _told(call: Callable[..., Awaitable[Any]], name: str, path: str) -> Any:
    result = await call(f"functions:{name}", {}, caller=Caller(admin=True), component=path)
    assert result.failure is None, result.failure
    return result.value


async def _try(engine: Engine, story: Story, one: Attempt, thief: str, loot: Loot) -> None:
    before = _state(engine)
    ended = await _ended(engine, one, thief, loot)
    story.done["attempts"] += 1
    who = f"{one.name}, by {thief or 'the application'} on {loot['path'] or 'the application'}"
    if one.expected is None and (ended.error is not None or ended.value):
        story.problems.append(f"{who}: ended with {ended!r:.300}, and not with nothing")
    elif one.expected is not None and type(ended.error) is not one.expected:
        expected = one.expected.__name__
        story.problems.append(f"{who}: ended with {ended!r:.300}, and not with {expected}")
    changed = [key for key, row in _changes(before, _state(engine)) if _is_of_others(row, thief)]
    if changed:
        story.problems.append(f"{who}: changed {len(changed)} rows of others, such as {changed[0]}")


async def _ended(engine: Engine, one: Attempt, thief: str, loot: Loot) -> Ended:
    """Make an attempt, as a user calls a function of the application that calls the component."""
    way = thief.split("/") if thief else []
    args = {"name": one.name, "loot": loot, "way": way}
    path = "functions:attempt_in_action" if one.is_action else "functions:attempt"
    functions = engine.node.functions
    call = functions.action if one.is_action else functions.mutation
    result = await call(path, args, caller=Caller(identity=ADA))
    if result.failure is not None:
        return Ended(result.failure.error, None)
    return Ended(None, result.value)


def _state(engine: Engine) -> dict[str, Any]:
    """All documents, jobs and crons, with the component that each is of."""
    rows: dict[str, Any] = {}
    with engine.node.store.snapshot() as snapshot:
        catalog = recover(snapshot).catalog
        for key, image in snapshot.range(Tree.ROWS, b"", None):
            number = int.from_bytes(key[:4], "big")
            table = catalog.by_number.get(number)
            if table is None or (table.is_system and number not in (SCHEDULED_FUNCTIONS, CRONS)):
                continue
            doc = decode(image)
            component = doc["component"] if table.is_system else table.component
            rows[key.hex()] = (component, doc)
    return rows


def _changes(before: State, after: State) -> Iterator[tuple[str, Any]]:
    for key in before.keys() | after.keys():
        if before.get(key) != after.get(key):
            yield key, after.get(key) or before[key]


def _is_of_others(row: tuple[str, Any], thief: str) -> bool:
    component, _ = row
    return component != thief


# From outside.


async def _try_over_http(engine: Engine, story: Story, loot: Loot) -> None:
    transport = httpx.ASGITransport(app=cast("Any", engine.asgi))  # its types are wider
    async with httpx.AsyncClient(transport=transport, base_url="http://headrace") as client:
        now = encode_ts(engine.node.published.value)
        for route, document in _from_outside({**loot, "ts": now}):
            before = _state(engine)
            answer = await client.post(f"/api/{route}", json={"args": {}, **document})
            story.done["attempts of clients"] += 1
            if answer.status_code == 200 and answer.json().get("status") == "success":
                story.problems.append(f"a client, {route} {document}: {answer.text:.200}")
            if list(_changes(before, _state(engine))):
                story.problems.append(f"a client, {route} {document}: something has changed")


async def _try_over_a_socket(engine: Engine, story: Story, loot: Loot) -> None:
    """As clients do that show queries; a connection for each, as some mistakes end it."""
    async with engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as (url,):
        for path, component in _calls(loot):
            for kind in ("query", "Mutation", "Action"):
                before = _state(engine)
                answer = await _answer(url, kind, path, component)
                story.done["attempts of clients"] += 1
                if UNKNOWN not in answer.get("errorMessage", answer.get("result", "")):
                    story.problems.append(f"a client, {kind} {path} {component}: {answer!r:.200}")
                if list(_changes(before, _state(engine))):
                    story.problems.append(f"a client, {kind} {path} {component}: what changed")


async def _answer(url: str, kind: str, path: str, component: str | None) -> dict[str, Any]:
    """What a client is told of a query that it would show, or of a call."""
    asked: dict[str, Any] = {"udfPath": path, "componentPath": component, "args": [{}]}
    async with opened(url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        if kind != "query":
            await socket.say(type=kind, requestId=0, **asked)
            return await socket.hear_until(f"{kind}Response")
        added = [{"type": "Add", "queryId": 0, **asked}]
        await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=added)
        found: dict[str, Any] = (await socket.hear_until("Transition"))["modifications"][0]
        return found


def _calls(loot: Loot) -> Iterator[tuple[str, str | None]]:
    """Paths and components."""
    yield from ((f"functions:{name}", "left") for name in ("kept", "fill", "secret", "act"))
    yield from (("functions:kept", component) for component in ("left/lid", "/left", "left/"))
    yield from ((path, None) for path in ("left/functions:kept", "functions:secret"))
    yield from ((loot[handle], None) for handle in ("handle", "given"))


def _from_outside(loot: Loot) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in ("left/functions:fill", "left:functions:fill", "functions:secret", loot["handle"]):
        yield "mutation", {"path": path}
    for component in ("left", "left/", "/left", "left/lid", "left//lid"):
        yield "mutation", {"path": "functions:fill", "componentPath": component}
        yield "query", {"path": "functions:kept", "componentPath": component}
        yield "function", {"path": "functions:fill", "componentPath": component}
        past = {"path": "functions:kept", "componentPath": component, "ts": loot["ts"]}
        yield "query_at_ts", past
    yield "run/left/functions/fill", {}
    yield "run/functions/secret", {}
