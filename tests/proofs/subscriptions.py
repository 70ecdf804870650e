"""
Follow queries while others write, and ask again, as of its timestamp, for every value that came.

The queries are of every kind: ranges, pages, filters, searches, counts, of who asks, of a
component.  They are followed beside the engine, by its own client over sockets, and on raw sockets
by people: there all queries are on one connection, so that what a transition left out is asked
again as well, for it has to hold at that timestamp too.  What is asked again has an argument of its
own, so that no cache can answer it, and must be the value that was shown.  After each burst of
writes everybody must come to show what is there: so a dropped invalidation is noticed, unless
another write happens to make up for it.
"""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import trio

from engine.host import Engine
from engine.interface import AsyncInterface, Failed
from engine.kernel.trace import trace_to_stderr
from engine.model.json_values import decode_ts, encode_ts
from engine.model.reads import Touched
from engine.server.listener import ListenConfig
from engine.server.server import ServerConfig
from engine.subscriptions.index import ReadIndex
from engine.subscriptions.token import Live
from tests.node.sockets import dialled, exchange, opened, post
from tests.proofs.board import main as board
from tests.proofs.board.app import shelf
from tests.proofs.proof import Plan, Verdict, too_few

PROMISE = (
    "What a subscription shows is what its query gives at that timestamp, up to the last write."
)
ROUNDS = 20

BURSTS = 60
"""In a round; of one to `WRITERS_MAX` writes beside each other."""
WRITERS_MAX = 4
SHOWN_MIN = 20
"""Values of each query, a round."""
WRITES_BEFORE = 40
LEFT_OUT = 2
"""Of what a transition left out, that many values are asked for again."""
SETTLED_S_MAX = 10.0
LOOK_S = 0.002
DROPPED_IN = 1_000
PLANTED_ROUNDS = 60
"""At most: some thousand invalidations each."""
ADMIN_KEY = "proof|0123456789abcdef0123456789abcdef"
APP: Final = Path(__file__).parent / "board"
ISSUER: Final = "https://people.test"
PEOPLE: Final = board.OWNERS[:2]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A query that is shown."""

    path: str
    args: dict[str, Any] = field(default_factory=dict)
    component: str = ""
    again: str = ""
    """What is asked again in its place, if not the same."""

    def asked_again(self, shown: Any, nonce: int) -> tuple[str, dict[str, Any]]:
        """Path and arguments of a call that has to give what is shown."""
        args = {**self.args, "nonce": nonce}
        if "paginationOpts" in args:  # a page that is shown keeps its end
            end = {"endCursor": shown["continueCursor"]}
            args["paginationOpts"] = {**args["paginationOpts"], **end}
        return self.again or self.path, args


FIRST_PAGE: Final = {"numItems": 3, "cursor": None}
QUESTIONS: Final = [
    *(Question(path="main:of_group", args={"group": group}) for group in range(board.GROUPS)),
    *(Question(path="main:page", args={"group": n, "paginationOpts": FIRST_PAGE}) for n in (0, 1)),
    Question(path="main:between", args={"low": 5, "high": 9}),
    Question(path="main:highest", args={"count": 1}),
    Question(path="main:highest", args={"count": 5}),
    Question(path="main:total"),
    Question(path="main:filtered", args={"least": 15}),
    *(
        Question(path="main:search", args={"word": word}, again="main:containing")
        for word in board.WORDS[:2]
    ),
    Question(path="main:mine"),
    Question(path="main:shelved"),
    Question(path="functions:found", component="shelf"),
]


@dataclass(kw_only=True)
class Witness:
    """What was shown, and what contradicts it."""

    shown: Counter[str] = field(default_factory=Counter)
    """Values by the query's path."""
    problems: list[str] = field(default_factory=list)
    last: dict[tuple[str, int], Any] = field(default_factory=dict)
    """By who follows, and the number of the question."""
    nonces: Iterator[int] = field(default_factory=lambda: iter(range(1, 1 << 60)))

    def note(self, problem: str) -> None:
        self.problems.append(problem)


def prove(plan: Plan) -> Verdict:
    """Run the rounds, or, planted, look whether a dropped invalidation is noticed."""
    trace_to_stderr(level="critical")
    if plan.planted:
        return _prove_planted(plan)
    witness = Witness()
    for number in range(plan.rounds):
        trio.run(_round, plan.directory / f"{number}", plan.seed + number, witness)
        if witness.problems:
            break
    least = {question.path: SHOWN_MIN * plan.rounds for question in QUESTIONS}
    idle = too_few(witness.shown, least)
    for text in [*witness.problems[:3], *idle]:
        print(f"  {text}")
    return Verdict(
        held=not witness.problems and not idle,
        figure=f"{plan.rounds} crowds, {witness.shown.total():,} values of {len(witness.shown)} "
        f"kinds of queries asked for again, {len(witness.problems)} wrong",
    )


def _prove_planted(plan: Plan) -> Verdict:
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
    config = ServerConfig(admin_key=ADMIN_KEY)
    dice = random.Random(seed)
    async with (
        Engine.open(directory, app=APP, server=config) as engine,
        engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as urls,
        Engine.connect(urls[0], admin_key=ADMIN_KEY) as far,
        trio.open_nursery() as followers,
    ):
        witness.last.clear()
        for _ in range(WRITES_BEFORE):
            await engine.mutation("main:write", {"seed": dice.getrandbits(32)})
        for name, place in (("here", engine), ("far", far)):
            for number in range(len(QUESTIONS)):
                followers.start_soon(_follow, urls[0], place, name, number, witness)
        for who in PEOPLE:
            followers.start_soon(_watch, urls[0], who, random.Random(dice.random()), witness)
        for _ in range(BURSTS):
            async with trio.open_nursery() as writers:
                for _ in range(dice.randint(1, WRITERS_MAX)):
                    writers.start_soon(_write, engine, dice.getrandbits(32))
            if not witness.problems:
                await _compare_ends(urls[0], witness)
            if witness.problems:
                break
        followers.cancel_scope.cancel()


async def _write(engine: Engine, seed: int) -> None:
    await engine.mutation("main:write", {"seed": seed})


# Those who follow.


async def _follow(
    url: str, place: AsyncInterface, name: str, number: int, witness: Witness
) -> None:
    """Follow one question by an engine's own interface, as nobody in particular."""
    question = QUESTIONS[number]
    function = shelf.functions.found if question.component else question.path
    before = -1
    async with place.subscribe(function, question.args) as results, Asker(url, witness) as asker:
        async for state in results.states():
            if isinstance(state, Failed):
                witness.note(f"{name}: {question.path} failed: {state.error}")
                continue
            if state.ts <= before:
                witness.note(f"{name}: {question.path} went from {before} to {state.ts}")
            before = state.ts
            await asker.compare(name, number, state.value, state.ts)
            witness.last[name, number] = state.value


async def _watch(url: str, who: str, dice: random.Random, witness: Witness) -> None:
    """Follow all questions on one connection, as somebody; each transition is of one timestamp."""
    async with opened(url) as socket, Asker(url, witness) as asker:
        await socket.say(type="Connect", sessionId=str(uuid4()), connectionCount=0)
        somebody = {"tokenType": "Admin", "value": ADMIN_KEY, "impersonating": _identity(who)}
        await socket.say(type="Authenticate", baseVersion=0, **somebody)
        adds = [
            {
                "type": "Add",
                "queryId": number,
                "udfPath": question.path,
                "componentPath": question.component,
                "args": [question.args],
            }
            for number, question in enumerate(QUESTIONS)
        ]
        await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=adds)
        screen: dict[int, Any] = {}
        while (message := await socket.hear()) is not None:
            changed = [change["queryId"] for change in message["modifications"]]
            for change in message["modifications"]:
                if change["type"] != "QueryUpdated":
                    witness.note(f"{who}: {change}")
                screen[change["queryId"]] = change.get("value")
            ts = decode_ts(message["endVersion"]["ts"])
            left_out = [number for number in screen if number not in changed]
            for number in [*changed, *dice.sample(left_out, min(LEFT_OUT, len(left_out)))]:
                await asker.compare(who, number, screen[number], ts)
            for number in changed:
                witness.last[who, number] = screen[number]


class Asker:
    """Asks again, by HTTP on a connection that is kept."""

    def __init__(self, url: str, witness: Witness) -> None:
        self._url = url
        self._witness = witness

    async def __aenter__(self) -> Asker:
        self._stream = await dialled(self._url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await trio.aclose_forcefully(self._stream)

    async def compare(self, name: str, number: int, shown: Any, ts: int) -> None:
        """Note it if what `name` is shown at `ts` is not what there is."""
        question = QUESTIONS[number]
        expected = await self.ask(name, number, shown, ts)
        self._witness.shown[question.path] += 1
        if _meant(shown) != _meant(expected):
            self._witness.note(
                f"{name}: {question.path} {question.args} showed {shown} at {ts}, "
                f"and it is {expected}"
            )

    async def ask(self, name: str, number: int, shown: Any, ts: int | None = None) -> Any:
        """What the question comes to as of `ts`, or now, when `name` asks it."""
        question = QUESTIONS[number]
        path, args = question.asked_again(shown, next(self._witness.nonces))
        call = {"path": path, "componentPath": question.component, "args": args}
        key = ADMIN_KEY
        if name in PEOPLE:
            key += f":{b64encode(json.dumps(_identity(name)).encode()).decode()}"
        route = "/api/query"
        if ts is not None:
            route, call["ts"] = "/api/query_at_ts", encode_ts(ts)
        request = post(route, call, f"Authorization: Convex {key}\r\n")
        _, body = await exchange(self._stream, request)
        answer = json.loads(body)
        return answer["value"] if answer.get("status") == "success" else answer


def _meant(value: Any) -> Any:
    """A page that was cut by its size may be split elsewhere; what is on it may not differ."""
    return value["page"] if _is_page(value) else value


def _is_page(value: Any) -> bool:
    return isinstance(value, dict) and "continueCursor" in value


def _identity(who: str) -> dict[str, str]:
    return {"tokenIdentifier": f"{ISSUER}|{who}", "issuer": ISSUER, "subject": who}


# The end of a burst.


async def _compare_ends(url: str, witness: Witness) -> None:
    """Wait until everybody shows what there is, and note who does not come to it."""
    names = ["here", "far", *PEOPLE]
    left = [(name, number) for name in names for number in range(len(QUESTIONS))]
    async with Asker(url, witness) as asker:
        ends = Ends(asker, witness)
        with trio.move_on_after(SETTLED_S_MAX):
            while left:
                left = [each for each in left if not await ends.is_shown(*each)]
                await trio.sleep(LOOK_S)
    for name, number in left:
        question = QUESTIONS[number]
        witness.note(f"{name}: {question.path} {question.args} stayed at what was not the last")


class Ends:
    """What everybody has to come to show: asked once for all who ask the same."""

    def __init__(self, asker: Asker, witness: Witness) -> None:
        self._asker = asker
        self._witness = witness
        self._known: dict[tuple[int, str, str], Any] = {}

    async def is_shown(self, name: str, number: int) -> bool:
        shown = self._witness.last.get((name, number), self)
        if shown is self:
            return False  # nothing yet
        cursor = shown["continueCursor"] if _is_page(shown) else ""
        who = name if QUESTIONS[number].path == "main:mine" else ""
        key = (number, who, cursor)
        if key not in self._known:
            self._known[key] = _meant(await self._asker.ask(name, number, shown))
        return bool(_meant(shown) == self._known[key])


@contextmanager
def _dropping(dice: random.Random) -> Iterator[Counter[str]]:
    """The planted bug: now and then nobody is told."""
    counted: Counter[str] = Counter()
    original = ReadIndex.touched_by

    def forgetful(self: ReadIndex[Live], commit: Touched) -> Iterator[Live]:
        for live in original(self, commit):
            counted["all"] += 1
            if dice.randrange(DROPPED_IN):
                yield live
            else:
                counted["dropped"] += 1

    setattr(ReadIndex, "touched_by", forgetful)  # noqa: B010 - a method is not assigned to
    try:
        yield counted
    finally:
        setattr(ReadIndex, "touched_by", original)  # noqa: B010
