"""
Tokens that prove nothing are shown to a served engine, over HTTP and the WebSocket.

A round shows each of `bad_tokens`, and good ones of which something was changed: in a request, and
as a connection's first words or on one on which somebody is already known.  Good tokens
come before, between and after them, and each gets its own results.  One token runs out in
mid-session.  What has got in leaves a note with its name.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import trio

from tests.node.identity_site import Site, site
from tests.node.sockets import TEXT, WebSocket, dialled, exchange, frame, opened, post
from tests.proofs.bad_tokens import CODES, CUSTOM, HEAD, SITE_KEYS, Bad, Mint, bad_tokens, spoiled
from tests.proofs.proof import Plan, Verdict, too_few
from tests.proofs.tokens_subject import ADMIN_KEY, PLANTED
from tests.protocol.tokens import signed

PROMISE = "A token that does not prove who its bearer is lets nobody in, and costs nothing."
ROUNDS = 20

GROWTH_BYTES_MAX = 8_000_000
"""After the first round: less than 10 kB a token."""
ANSWER_CHARS_MAX = 1_000
HEADER_CHARS_MAX = 60_000
PATIENCE_S = 30.0
SPOILED = 100
GOOD_EVERY = 20
LEAST = {"refused over HTTP": 300, "refused over the WebSocket": 300, "let in": 25, "run out": 1}

ADMIN_KEYS = (
    *("", "|", "proof|", "|0123456789abcdef", "0123456789abcdef", "proof", ADMIN_KEY[:-1]),
    *(f"{ADMIN_KEY}0", f"x{ADMIN_KEY}", ADMIN_KEY.upper(), "other|0123456789abcdef"),
    *(f"{ADMIN_KEY}\0", f"{ADMIN_KEY[:-1]}:e30="),
)
"""Such as are not the administrator's."""


@dataclass(kw_only=True)
class Story:
    """What was seen from outside, and what contradicts the promise."""

    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LEAST, 0))
    names: set[str] = field(default_factory=set)
    growth_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    problems_max: int = 20

    @property
    def is_clear(self) -> bool:
        """Whether there is nothing more to find out."""
        return len(self.problems) >= self.problems_max

    @property
    def figure(self) -> str:
        counted = ", ".join(f"{count:,} {name}" for name, count in self.done.items())
        return (
            f"{len(self.names)} kinds of bad tokens; {counted}; "
            f"memory {self.growth_bytes / 1e6:+.1f} MB after the first round"
        )

    def expect(self, expected: object, actual: object, what: str) -> None:
        if expected != actual:
            self.problems.append(f"{what}: {actual!r:.300}, and not {expected!r:.100}")


def prove(plan: Plan) -> Verdict:
    """Show all of them once a round, or look whether each bug is caught."""
    if not plan.planted:
        story = tell(plan.directory, "none", plan.rounds, plan.seed, Story())
        story.problems += too_few(story.done, LEAST)
        for problem in story.problems:
            print(f"  {problem}")
        return Verdict(held=not story.problems, figure=story.figure)
    caught = []
    for bug in PLANTED:
        story = tell(plan.directory / bug, bug, 2, plan.seed, Story(problems_max=1))
        print(f"  {bug}: {story.problems[0] if story.problems else 'NOT CAUGHT'}")
        caught.append(bool(story.problems))
    return Verdict(held=all(caught), figure=f"{sum(caught)} of {len(caught)} planted bugs caught")


def tell(directory: Path, plant: str, rounds: int, seed: int, story: Story) -> Story:
    """Show a server with a bug, or none, what nobody should be let in by."""
    trio.run(_tell, directory, plant, rounds, seed, story)
    return story


async def _tell(directory: Path, plant: str, rounds: int, seed: int, story: Story) -> None:
    async with site(*SITE_KEYS) as provider:
        errors = _prepared(directory, provider)
        with _served(directory, plant, errors) as (subject, url):
            await _rounds(story, Guest(story, url), provider, subject, rounds, Random(seed))
            story.expect(None, subject.poll(), "the server ended")
        story.problems += [f"traced: {line:.200}" for line in _errors_of(errors)]


def _prepared(directory: Path, provider: Site) -> Path:
    """Write down for the server whom it trusts; where its traces go."""
    directory.mkdir(exist_ok=True)
    declared = [dataclasses.asdict(each) for each in (*CUSTOM, provider.oidc())]
    (directory / "providers.json").write_text(json.dumps(declared))
    return directory / "traces"


async def _rounds(
    story: Story,
    guest: Guest,
    provider: Site,
    subject: subprocess.Popen[str],
    rounds: int,
    dice: Random,
) -> None:
    for number in range(rounds):
        mint = Mint(site=provider.url, now_s=int(time.time()))
        good = mint.good()
        await guest.call_all(good)
        if number == 0:
            tasks = await guest.tasks()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guest.run_out, mint)
            await _round(guest, mint, good, dice)
        await guest.call_all(good)
        story.expect(tasks, await guest.tasks(), "tasks")
        story.expect(sorted([*good, "briefly"]), await guest.authors(), "who has left a note")
        if number == 0:
            resting_bytes = _memory_bytes(subject.pid)
        if story.is_clear:
            break
    story.growth_bytes = _memory_bytes(subject.pid) - resting_bytes
    if story.growth_bytes > GROWTH_BYTES_MAX:
        story.problems.append(f"memory grew by {story.growth_bytes / 1e6:.1f} MB")
    asked = len(provider.asked)
    if asked > 2 + rounds * 20:
        story.problems.append(f"the provider was asked {asked} times")


async def _round(guest: Guest, mint: Mint, good: dict[str, str], dice: Random) -> None:
    bad = bad_tokens(mint)
    bad += [spoiled(list(good.values()), dice) for _ in range(SPOILED)]
    dice.shuffle(bad)
    for number, each in enumerate(bad):
        await guest.show(each)
        if dice.random() < 0.5:
            await guest.begin_with(each)
        else:
            await guest.go_on_with(each, *dice.choice(list(good.items())))
        if number % GOOD_EVERY == 0:
            await guest.call(*dice.choice(list(good.items())))
        if guest.story.is_clear:
            return
    for key in ADMIN_KEYS:
        await guest.show_key(key)


class Guest:
    """Comes with tokens, and says what became of them."""

    def __init__(self, story: Story, url: str) -> None:
        self.story = story
        self._url = url

    # Who is to be let in.

    async def call_all(self, good: dict[str, str]) -> None:
        """All of them one after the other, so that each may be taken for the one before."""
        for name, token in good.items():
            await self.call(name, token)
        self.story.expect(None, await self._value("query", "whoami"), "nobody")

    async def call(self, name: str, token: str) -> None:
        bearer = f"Authorization: Bearer {token}\r\n"
        for kind, function in (("query", "whoami"), ("mutation", "note")):
            self.story.expect(name, await self._value(kind, function, bearer), f"{name} by HTTP")
        async with self._connected() as socket:
            await _say(socket, _authenticate(0, token), _subscribe(0))
            self.story.expect(name, await _shown(socket, 1), f"{name} by WebSocket")
        self.story.done["let in"] += 1

    async def tasks(self) -> float:
        """How many tasks the server has; it is given time to be done with those who left."""
        least = await self._value("action", "tasks")
        for _ in range(10):
            await trio.sleep(0.1)
            least = min(least, await self._value("action", "tasks"))
        return float(least)

    async def authors(self) -> Any:
        return await self._value("query", "authors")

    # Who is not.

    async def show(self, bad: Bad) -> None:
        """In a request, if its header can hold it."""
        self.story.names.add(bad.name.partition(", at ")[0])
        if len(bad.text) > HEADER_CHARS_MAX or not re.fullmatch(r"[\x21-\x7e]*", bad.text):
            return
        await self._refused(f"Authorization: Bearer {bad.text}\r\n", bad.name, bad.code)

    async def begin_with(self, bad: Bad) -> None:
        """As the first words of a connection, with all that follows on them."""
        async with self._connected() as socket:
            await self._turned_away(socket, _authenticate(0, bad.text), bad.name)

    async def go_on_with(self, bad: Bad, name: str, token: str) -> None:
        """Instead of one that was good."""
        async with self._connected() as socket:
            await _say(socket, _authenticate(0, token), _subscribe(0))
            self.story.expect(name, await _shown(socket, 1), f"{name}, before {bad.name}")
            await self._turned_away(socket, _authenticate(1, bad.text), bad.name)

    async def show_key(self, key: str) -> None:
        name = f"admin key {key!r}"
        if key.isprintable():
            await self._refused(f"Authorization: Convex {key}\r\n", name, "Unauthenticated")
        async with self._connected() as socket:
            await self._turned_away(socket, _authenticate(0, key, kind="Admin"), name)

    async def run_out(self, mint: Mint) -> None:
        """Be somebody for a second or two, and then nobody."""
        claims = mint.claims(sub="briefly", exp=int(time.time()) + 2)
        token = signed(HEAD, claims)
        async with self._connected() as socket:
            await _say(socket, _authenticate(0, token), _subscribe(0))
            self.story.expect("briefly", await _shown(socket, 1), "one who is there briefly")
            await _say(socket, _note(0))
            await socket.hear_until("MutationResponse")
            await socket.hear_until("Transition")
            await trio.sleep(max(0.0, claims["exp"] - time.time()) + 0.1)
            await _say(socket, _note(1))
            heard = await _last_words(socket)
        told = [(each["type"], each.get("authUpdateAttempted")) for each in heard]
        self.story.expect([("AuthError", False)], told, "a token that has run out")
        await self._refused(f"Authorization: Bearer {token}\r\n", "run out", "Unauthenticated")
        self.story.done["run out"] += 1

    async def _refused(self, header: str, name: str, code: str | None) -> None:
        call = post("/api/mutation", {"path": "main:note", "args": {}}, header)
        status, body = await self._ask(call)
        answer = json.loads(body)
        self.story.expect(401, status, f"{name}: {body!r:.200}")
        self.story.expect({"code", "message"}, set(answer), name)
        if answer.get("code") not in ((code,) if code else CODES):
            self.story.problems.append(f"{name}: {body!r:.200}, and not {code or CODES}")
        if len(body) > ANSWER_CHARS_MAX:
            self.story.problems.append(f"{name}: an answer of {len(body):,} bytes")
        self.story.done["refused over HTTP"] += 1

    async def _turned_away(self, socket: WebSocket, words: dict[str, Any], name: str) -> None:
        """Nothing of what is said after the token is answered."""
        version = words["baseVersion"]
        await _say(socket, words, _subscribe(version), _note(7))
        heard = await _last_words(socket)
        told = [
            (each["type"], each.get("baseVersion"), each.get("authUpdateAttempted"))
            for each in heard
        ]
        self.story.expect([("AuthError", version, True)], told, f"{name}: {heard!r:.200}")
        if len(str(heard)) > ANSWER_CHARS_MAX:
            self.story.problems.append(f"{name}: {len(str(heard)):,} characters")
        self.story.expect(1000, socket.close_code, f"{name}: closed with")
        self.story.done["refused over the WebSocket"] += 1

    # The wires.

    async def _value(self, kind: str, function: str, headers: str = "") -> Any:
        call = {"path": f"main:{function}", "args": {}, "format": "json"}
        status, body = await self._ask(post(f"/api/{kind}", call, headers))
        answer = json.loads(body)
        if status != 200 or "value" not in answer:
            self.story.problems.append(f"{function}: {status} {body!r:.300}")
        return answer.get("value")

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        with trio.fail_after(PATIENCE_S):
            async with await dialled(self._url) as stream:
                return await exchange(stream, request)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[WebSocket]:
        with trio.fail_after(PATIENCE_S):
            async with opened(self._url) as socket:
                await socket.say(type="Connect", sessionId=str(UUID(int=0)), connectionCount=0)
                yield socket


def _authenticate(version: int, value: str, *, kind: str = "User") -> dict[str, Any]:
    return {"type": "Authenticate", "baseVersion": version, "tokenType": kind, "value": value}


def _subscribe(version: int) -> dict[str, Any]:
    add = {"type": "Add", "queryId": version, "udfPath": "main:whoami", "args": [{}]}
    modified = {"type": "ModifyQuerySet", "baseVersion": version, "newVersion": version + 1}
    return {**modified, "modifications": [add]}


def _note(number: int) -> dict[str, Any]:
    return {"type": "Mutation", "requestId": number, "udfPath": "main:note", "args": [{}]}


async def _say(socket: WebSocket, *messages: dict[str, Any]) -> None:
    """All at once: after one of them the server may hang up."""
    await socket.stream.send_all(
        b"".join(frame(TEXT, json.dumps(message).encode()) for message in messages)
    )


async def _shown(socket: WebSocket, query_set: int) -> Any:
    """What the first query gives, once both it and the identity are confirmed."""
    value: Any = "nothing was shown"
    while (message := await socket.hear()) is not None:
        if message["type"] != "Transition":
            return message
        for change in message["modifications"]:
            value = change.get("value", change)
        end = message["endVersion"]
        if (end["querySet"], end["identity"]) == (query_set, 1):
            break
    return value


async def _last_words(socket: WebSocket) -> list[dict[str, Any]]:
    """What is said until the server closes, or does what nobody may ask of it."""
    heard = []
    while (message := await socket.hear()) is not None:
        heard.append(message)
        if message["type"] != "AuthError":
            break
    return heard


# The server.


@contextmanager
def _served(
    directory: Path, plant: str, errors: Path
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with errors.open("w") as traces:
        subject = subprocess.Popen(
            [sys.executable, "-m", "tests.proofs.tokens_subject", str(directory), plant],
            stdout=subprocess.PIPE,
            stderr=traces,
            text=True,
            cwd=Path(__file__).parents[2],
        )
    try:
        assert subject.stdout is not None
        for line in subject.stdout:
            if line.startswith("url "):
                yield subject, line.split()[1]
                return
        raise AssertionError("the subject did not serve")
    finally:
        subject.kill()
        subject.communicate()


def _errors_of(traces: Path) -> list[str]:
    """What the server itself calls an error, and what is no trace at all."""
    lines = traces.read_text().splitlines()
    return [line for line in lines if not line.startswith("{") or '"level": "error"' in line]


def _memory_bytes(pid: int) -> int:
    """What the process has allocated and touched; the pages of its database are not in it."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found, "no RssAnon of the server"
    return int(found[1]) * 1024
