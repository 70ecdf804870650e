"""
What hostile clients say: conversations by a grammar, and recorded ones that were tampered with.

A conversation is a function of a seed and its number.  Whatever all of its frames but the last ask
for, they keep the connection open, so all that is sent is read; and what becomes of the connection
after the last one is known too, except where a recording was tampered with.
"""

from __future__ import annotations

import base64
import enum
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, Final
from uuid import UUID

from tests.node.sockets import CLOSE, PING, PONG, TEXT, frame
from tests.unit.hostile.mutants import JSON_PIECES, tampered

LENGTH_MAX: Final = 24
"""Frames of a conversation, besides what is said to get there."""
TOKEN: Final = "{token}"
"""In a recording, in place of the one that the client had."""
PROBE: Final[Mapping[str, Any]] = {
    "type": "Mutation",
    "requestId": 4_000_000_000,
    "udfPath": "notes:write",
    "args": [{"n": 1}],
}
"""Its answer shows that what was said before it has been read."""


class End(enum.Enum):
    """What becomes of a connection."""

    OPEN = "it stays open, and everything is answered"
    FATAL = "a FatalError, and closing"
    AUTH = "an AuthError, and closing"
    AHEAD = "closing: this client has seen a later state"
    SHUT = "closing, with whatever code"
    ANY = "any of these"
    LEFT = "the client is gone in the middle of a frame"


@dataclass(kw_only=True)
class Conversation:
    """
    frames: as text, or as the bytes of WebSocket frames.
    hostile: how many of them no official client would send.
    query_set, identity: the versions that it comes to.
    mutations: numbers of those that are answered, in order; `actions` in whatever order.
    hidden: ids of queries that may only fail.
    pings: what is to be said back, in order.
    code: what it is closed with, if that is known.
    is_mallory: whether it shows a token that is good.
    """

    number: int
    frames: list[str | bytes] = field(default_factory=list)
    hostile: int = 0
    end: End = End.OPEN
    query_set: int = 0
    identity: int = 0
    mutations: list[int] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    hidden: set[int] = field(default_factory=set)
    pings: list[bytes] = field(default_factory=list)
    code: int | None = None
    is_mallory: bool = False

    @property
    def needs_socket(self) -> bool:
        return any(isinstance(each, bytes) for each in self.frames)


@dataclass(frozen=True, kw_only=True)
class Loot:
    """
    What a hostile client has come by.

    tokens: that prove nothing; `admin_keys` neither.
    mallory: a good token of its own.
    cursors, journals: of queries of others.
    recordings: what official clients said on one connection each.
    message_bytes_max: what the server takes of one message.
    """

    tokens: Sequence[str]
    admin_keys: Sequence[str]
    mallory: str
    cursors: Sequence[str]
    journals: Sequence[str]
    recordings: Sequence[Sequence[str]]
    message_bytes_max: int


def conversation(seed: int, number: int, loot: Loot) -> Conversation:
    """The conversation of that number."""
    dice = Random(f"{seed}:{number}")
    if dice.random() < 0.35:
        return _tampered(number, dice, loot)
    speaker = _Speaker(number, dice, loot)
    speaker.speak()
    return speaker.done


def _tampered(number: int, dice: Random, loot: Loot) -> Conversation:
    """A recording up to some frame, and that one as it should not be."""
    done = Conversation(number=number, end=End.ANY)
    recording = dice.choice(loot.recordings)
    at = dice.randrange(len(recording))
    token = dice.choice([loot.mallory, *loot.tokens[:2]])
    said = [text.replace(TOKEN, token) for text in recording[: at + 1]]
    last = tampered(said[at].encode(), dice, JSON_PIECES)
    done.is_mallory = token == loot.mallory
    done.frames = [*said[:at], last.decode("utf-8", "replace"), json.dumps(PROBE)]
    done.hostile = 1
    return done


class _Speaker:
    """Makes up one conversation, and keeps account of where it leads."""

    def __init__(self, number: int, dice: Random, loot: Loot) -> None:
        self.done = Conversation(number=number)
        self._dice = dice
        self._loot = loot
        self._uses_frames = dice.random() < 0.3
        self._queries: list[int] = []
        self._requests = 0

    def speak(self) -> None:
        dice = self._dice
        if dice.random() < 0.05:
            self._end_early()
            return
        self._connect()
        for _ in range(dice.randint(1, LENGTH_MAX)):
            dice.choice(_ODD)(self)
            if dice.random() < 0.15:
                self._usual()
        ways = (self._end_open, self._end_fatal, self._end_auth)
        dice.choice((*ways, self._end_fatal, self._end_in_frames) if self._uses_frames else ways)()

    # Saying it.

    def _say(self, message: Mapping[str, Any], *, is_usual: bool = False) -> None:
        if is_usual:
            self.done.frames.append(json.dumps(message))
            return
        self.done.hostile += 1
        text = self._spelled(message)
        if self._uses_frames and self._dice.random() < 0.1:
            self.done.frames.append(self._in_fragments(text))
        else:
            self.done.frames.append(text)

    def _spelled(self, message: Mapping[str, Any]) -> str:
        """The same message, as no client spells it."""
        dice = self._dice
        fields = list(message.items())
        if dice.random() < 0.3:
            dice.shuffle(fields)
        if dice.random() < 0.3:
            fields.insert(dice.randint(0, len(fields)), (dice.choice(_UNKNOWN), self._json(3)))
        if dice.random() < 0.1:
            return json.dumps(dict(fields), indent=dice.randint(0, 9))
        text = json.dumps(dict(fields), ensure_ascii=dice.random() < 0.7)
        if dice.random() < 0.1:
            text = text.replace('"type"', '"t\\u0079p\\u0065"')
        return text.encode("utf-8", "replace").decode()

    def _in_fragments(self, text: str) -> bytes:
        """A message in several frames, with control frames between them."""
        dice, data = self._dice, text.encode()
        cuts = sorted(dice.randint(0, len(data)) for _ in range(dice.randint(1, 5)))
        parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        said = bytearray()
        for at, part in enumerate(parts):
            is_last = at == len(parts) - 1
            mask = dice.randbytes(4)
            said += frame(TEXT if at == 0 else 0, part, is_last=is_last, mask=mask)
            if not is_last:
                said += self._control_frame()
        return bytes(said)

    def _control_frame(self) -> bytes:
        dice = self._dice
        opcode, payload = dice.choice([PING, PONG]), dice.randbytes(dice.choice([0, 1, 125]))
        if opcode == PING:
            self.done.pings.append(payload)
        return frame(opcode, payload, mask=dice.randbytes(4))

    # What keeps a connection open.

    def _connect(self) -> None:
        dice = self._dice
        session = UUID(int=dice.getrandbits(128))
        spelling = dice.choice([str(session), session.hex, session.urn, f"{{{session}}}"])
        self._say(
            {
                "type": "Connect",
                "sessionId": spelling,
                "connectionCount": dice.choice([0, 1, -1, 2**31, 2**53]),
                "lastCloseReason": dice.choice([None, "InitialConnect", "\x00", "x" * 5_000]),
                "maxObservedTimestamp": dice.choice([None, "AAAAAAAAAAA=", "AQAAAAAAAAA="]),
                "clientTs": dice.choice([None, 0, 1e308, -1e308, 0.5, 2**53, -5]),
            },
            is_usual=dice.random() < 0.5,
        )

    def _usual(self) -> None:
        """Something that any client might say."""
        dice = self._dice
        match dice.randrange(3):
            case 0:
                self._modify([self._add("notes:mine", [{}])], is_usual=True)
            case 1:
                self._request("Mutation", "notes:write", [{"n": 1}], is_usual=True)
            case 2:
                self._authenticate("User", value=self._loot.mallory, is_usual=True)
                self.done.is_mallory = True
                self.done.identity += 1

    def _modify(self, changes: list[dict[str, Any]], *, is_usual: bool = False) -> None:
        base = self.done.query_set
        self.done.query_set += 1 if is_usual else self._dice.randint(1, 1000)
        message = {"type": "ModifyQuerySet", "baseVersion": base, "modifications": changes}
        self._say(message | {"newVersion": self.done.query_set}, is_usual=is_usual)

    def _add(self, path: str, args: Any, **fields: Any) -> dict[str, Any]:
        is_hidden = bool(fields.get("componentPath")) or path.endswith(("secret", "look"))
        # An id that was removed comes again, but not for what is hidden, or it would be unclear.
        query_id = self._dice.getrandbits(32) if is_hidden else len(self._queries)
        while query_id in self._queries or query_id in self.done.hidden:
            query_id = self._dice.getrandbits(32)
        self._queries.append(query_id)
        if is_hidden:
            self.done.hidden.add(query_id)
        return {"type": "Add", "queryId": query_id, "udfPath": path, "args": args, **fields}

    def _odd_edit(self) -> None:
        dice = self._dice
        changes = []
        for _ in range(dice.choice([0, 1, 1, 2, 5])):
            if dice.random() < 0.2:
                changes.append(self._remove())
                continue
            component, path = dice.choice(_COMPONENTS), self._path()
            if component == "vault" and dice.random() < 0.5:
                path = "functions:look"
            added = self._add(path, self._args(), componentPath=component)
            if dice.random() < 0.5:
                added["journal"] = dice.choice([*self._loot.journals, *_STRINGS])
            changes.append(added)
        self._modify(changes)

    def _remove(self) -> dict[str, Any]:
        dice = self._dice
        query_id = dice.choice([*self._queries, 0, 2**32 - 1])
        if query_id in self._queries:
            self._queries.remove(query_id)
        return {"type": "Remove", "queryId": query_id}

    def _cursor_of_another(self) -> None:
        dice = self._dice
        cursor = dice.choice([*self._loot.cursors, *_STRINGS])
        opts = {"numItems": dice.choice([1, 0, -1, 1e9, 0.5, None]), "cursor": cursor}
        if dice.random() < 0.3:
            opts["endCursor"] = dice.choice(self._loot.cursors)
        journal = dice.choice([None, *self._loot.journals])
        self._modify([self._add("notes:page", [{"paginationOpts": opts}], journal=journal)])

    def _odd_request(self) -> None:
        dice = self._dice
        kind, component = dice.choice(["Mutation", "Action"]), dice.choice(_COMPONENTS)
        path = self._path()
        if component == "vault" and dice.random() < 0.5:
            path = "functions:change"
        self._request(kind, path, self._args(), componentPath=component)

    def _request(
        self, kind: str, path: str, args: Any, *, is_usual: bool = False, **fields: Any
    ) -> None:
        self._requests += 1
        # A number may be that of another request; nothing of ours is ever recorded.
        number = self._requests if is_usual else self._dice.choice(_NUMBERS)
        answered = self.done.mutations if kind == "Mutation" else self.done.actions
        answered.append(number)
        message = {"type": kind, "requestId": number, "udfPath": path, "args": args, **fields}
        self._say(message, is_usual=is_usual)

    def _sign_out(self) -> None:
        """Also of nobody, and with what belongs to those who sign in."""
        self._authenticate(
            "None", value=self._dice.choice([None, *self._loot.admin_keys]), impersonating=_ADA
        )
        self.done.identity += 1

    def _authenticate(self, kind: str, *, is_usual: bool = False, **fields: Any) -> None:
        base = self.done.identity
        message = {"type": "Authenticate", "baseVersion": base, "tokenType": kind}
        self._say(message | fields, is_usual=is_usual)

    def _event(self) -> None:
        self._say({"type": "Event", "eventType": self._json(0), "event": self._json(4)})

    def _control(self) -> None:
        """Frames that are no message."""
        if not self._uses_frames:
            return
        self.done.hostile += 1
        self.done.frames.append(self._control_frame())

    # How it ends.

    def _end_open(self) -> None:
        self.done.mutations.append(PROBE["requestId"])
        self._say(PROBE, is_usual=True)

    def _end_early(self) -> None:
        """Before there was a Connect."""
        dice = self._dice
        if dice.random() < 0.3:
            self.done.end = End.AHEAD
            future = struct.pack("<Q", dice.randint(2**62, 2**63 - 1))
            self._say(self._example("Connect") | {"maxObservedTimestamp": _base64(future)})
            return
        self.done.end = End.FATAL
        if dice.random() < 0.5:
            self._say(self._example(dice.choice(list(_FIELDS)[1:])))
        else:
            self._say_wrong("Connect")

    def _end_fatal(self) -> None:
        dice = self._dice
        self.done.end = End.FATAL
        base = {"baseVersion": dice.choice([self.done.query_set + 1, 2**32 - 1])}
        match dice.randrange(6):
            case 0:
                self._say_text(dice.choice(_NO_MESSAGES))
            case 1:
                self._say(self._example("Connect"))
            case 2:
                self._say(self._example("ModifyQuerySet") | base)
            case 3:
                version = self.done.identity + dice.randint(1, 9)
                self._say(self._example("Authenticate") | {"baseVersion": version})
            case 4:
                add = self._add("notes:mine", [{}])
                self._modify([add, add])
            case 5:
                self._say_wrong(dice.choice(list(_FIELDS)))

    def _say_text(self, text: str) -> None:
        self.done.hostile += 1
        self.done.frames.append(text)

    def _say_wrong(self, kind: str) -> None:
        """A message with a field that it cannot have, or without one that it has to have."""
        dice = self._dice
        message = self._example(kind)
        name = dice.choice(list(_FIELDS[kind]))
        sort, is_required = _FIELDS[kind][name]
        if is_required and dice.random() < 0.2:
            del message[name]
        else:
            message[name] = dice.choice(_WRONG[sort])
        self._say(message)

    def _example(self, kind: str) -> dict[str, Any]:
        dice = self._dice
        examples: dict[str, dict[str, Any]] = {
            "Connect": {"sessionId": str(UUID(int=dice.getrandbits(128)))},
            "ModifyQuerySet": {
                "baseVersion": self.done.query_set,
                "newVersion": self.done.query_set + 1,
                "modifications": [],
            },
            "Mutation": {"requestId": 1, "udfPath": "notes:write"},
            "Action": {"requestId": 1, "udfPath": "notes:ask"},
            "Authenticate": {"baseVersion": self.done.identity, "tokenType": "None"},
        }
        return {"type": kind, **examples[kind]}

    def _end_auth(self) -> None:
        dice, loot = self._dice, self._loot
        self.done.end = End.AUTH
        attributes = dice.choice([None, _ADA, {}, {"tokenIdentifier": "x|ada", "a": self._json(4)}])
        acting: dict[str, Any] = {dice.choice(["impersonating", "actingAs"]): attributes}
        if dice.random() < 0.5:
            self._authenticate("Admin", value=dice.choice(loot.admin_keys), **acting)
        else:
            self._authenticate("User", value=dice.choice(loot.tokens), **acting)

    def _end_in_frames(self) -> None:
        """With what is no text message at all."""
        dice = self._dice
        frames = _frames_that_end(self._loot.message_bytes_max)
        data, self.done.end, self.done.code = dice.choice(frames)
        self.done.hostile += 1
        self.done.frames.append(data)

    # What it is made of.

    def _path(self) -> str:
        dice = self._dice
        path = dice.choice(_PATHS)
        if dice.random() < 0.1:
            # One that nobody has named before: whatever remembers names would grow.
            return f"{path}{dice.getrandbits(64):x}"
        if dice.random() < 0.2:
            at = dice.randint(0, len(path))
            path = path[:at] + dice.choice(_STRINGS) + path[at:]
        return path

    def _args(self) -> Any:
        dice = self._dice
        return dice.choice(
            [
                *[[{}]] * 3,
                [{"value": self._json(4)}],
                [{"n": self._json(2)}],
                [{"paginationOpts": self._json(3)}],
                [{self._dice.choice(_NAMES): self._json(2)}],
                self._json(4),
            ]
        )

    def _json(self, depth: int) -> Any:
        """Some JSON."""
        dice = self._dice
        if depth == 0 or dice.random() < 0.5:
            return dice.choice(_LEAVES)
        if dice.random() < 0.05:
            return _nested(dice.choice([62, 63, 64, 65, 200]))
        if dice.random() < 0.5:
            return [self._json(depth - 1) for _ in range(dice.randint(0, 4))]
        return {dice.choice(_NAMES): self._json(depth - 1) for _ in range(dice.randint(0, 4))}


_ODD: Final[Sequence[Callable[[_Speaker], None]]] = (
    *[_Speaker._odd_edit] * 6,
    *[_Speaker._odd_request] * 6,
    *[_Speaker._cursor_of_another] * 2,
    *[_Speaker._event] * 2,
    _Speaker._sign_out,
    _Speaker._control,
)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


_ADA: Final = {"tokenIdentifier": "https://issuer.test|ada", "issuer": "i", "subject": "ada"}
_NUMBERS: Final = (0, 1, 2, 3, 2**31, 2**32 - 2)
_COMPONENTS: Final = (
    *[None] * 12,
    *[""] * 4,
    *["vault"] * 3,
    *("vault/", "/vault", "vault/..", "..", "vault\x00", "VAULT", "\ud800", "v" * 5_000),
)
_PATHS: Final = (
    *("notes:mine", "notes:page", "notes:echo", "notes:fail", "notes:write", "notes:ask"),
    *("notes:secret", "notes.js:secret", "notes.py:secret", "NOTES:secret", "./notes:secret"),
    *("x/../notes:secret", "notes//notes:secret", "vault:look", "vault/functions:look"),
    *("functions:look", "notes:vault:look", "vault.functions:look", "_system/notes:secret"),
    *("_system/cli/tables", "_system/frontend/listById:default", "notes:mine.__globals__"),
    *("notes:__class__", "notes:_subject", "__main__:main", "os:system", "/etc/passwd", "", ":"),
    *("notes", "notes:", ":mine", "notes:mine:", "function://notes", "notes%3Amine", "\ud800"),
    *("notes:mine\x00", "notes:\uff53ecret", "n" * 20_000, "notes:" + "f" * 20_000, "a/" * 500),
)
_STRINGS: Final = (
    *("", "\x00", "\ud800", "\udc00\ud800", "\u202e", "null", "{}", "AAAAAAAAAAA=", "../"),
    *("j57" * 10, "0", "-1", "x" * 10_000, "'; drop table notes; --", "\x7f\x1b[2J", "\ufeff"),
)
_NAMES: Final = (
    *(
        "value",
        "n",
        "paginationOpts",
        "type",
        "",
        "$",
        "$integer",
        "$float",
        "$bytes",
        "$set",
        "$commitTs",
    ),
    *("__proto__", "constructor", "_id", "\x00", "\ud800", "a b", "\u00e9", "n" * 2_000, "self"),
)
_UNKNOWN: Final = (
    "",
    "$",
    "__proto__",
    "constructor",
    "\x00",
    "a b",
    "\u00e9",
    "u" * 2_000,
    "self",
)
_LEAVES: Final[Sequence[Any]] = (
    *(None, True, False, 0, 1, -1, 0.5, -0.0, 5e-324, 1e308, 2**31, 2**53 + 1, 2**64, -(2**63)),
    *(10**30, 10**400, {}, [], {"$integer": "AAAAAAAAAAA="}, {"$integer": "AA=="}, {"$integer": 1}),
    *({"$float": "AAAAAAAA+H8="}, {"$float": "AAAAAAAA8D8="}, {"$bytes": "A==="}, {"$bytes": 5}),
    *({"$commitTs": None}, {"$undefined": None}, {"$": 1}, {"$integer": "AAAAAAAAAAA=", "a": 1}),
    *_STRINGS,
)

# Each type of message: of its fields which sort they are, and whether they have to be there.
_FIELDS: Final[Mapping[str, Mapping[str, tuple[str, bool]]]] = {
    "Connect": {
        "sessionId": ("uuid", True),
        "connectionCount": ("whole", False),
        "lastCloseReason": ("text or null", False),
        "maxObservedTimestamp": ("timestamp or null", False),
        "clientTs": ("number or null", False),
    },
    "ModifyQuerySet": {
        "baseVersion": ("u32", True),
        "newVersion": ("newer", True),
        "modifications": ("changes", True),
    },
    "Mutation": {
        "requestId": ("request", True),
        "udfPath": ("text", True),
        "componentPath": ("text or null", False),
    },
    "Action": {
        "requestId": ("request", True),
        "udfPath": ("text", True),
        "componentPath": ("text or null", False),
    },
    "Authenticate": {
        "baseVersion": ("u32", True),
        "tokenType": ("kind", True),
        "value": ("text or null", False),
        "impersonating": ("object or null", False),
        "actingAs": ("object or null", False),
    },
}
_NO_TEXT: Final[Sequence[Any]] = (5, 0.5, True, [], {}, ["x"])
_NO_U32: Final[Sequence[Any]] = (-1, 2**32, 2**64, -(2**63), 10**400, 0.5, "1", None, True, [], {})
_CHANGE: Final = {"type": "Add", "queryId": 77, "udfPath": "notes:mine"}
_WRONG: Final[Mapping[str, Sequence[Any]]] = {
    "text": (*_NO_TEXT, None),
    "text or null": _NO_TEXT,
    "uuid": (*_NO_TEXT, None, "", "x", "0" * 31, "0" * 33, "\ud800" * 32, "g" * 32),
    "timestamp or null": (*_NO_TEXT, "", "AAAA", "x" * 12, "//////////8=", "AAAAAAAAAAAA"),
    "whole": ("1", 0.5, None, True, [], {}),
    "number or null": ("1", True, [], {}),
    "u32": _NO_U32,
    "request": (*_NO_U32, 2**32 - 1),
    "newer": (*_NO_U32, 0),
    "kind": (*_NO_TEXT, None, "", "user", "ADMIN", "System", "\x00"),
    "object or null": ("x", 5, True, [], [{}]),
    "changes": (
        *(None, {}, "x", 5, [5], [None], [[]], [{}], [{"type": "Nope"}], [_CHANGE | {"type": 5}]),
        *([_CHANGE | {"queryId": wrong}] for wrong in _NO_U32),
        *([_CHANGE | {"udfPath": wrong}] for wrong in _NO_TEXT),
        *([_CHANGE | {"journal": wrong}] for wrong in _NO_TEXT),
        *([{"type": "Remove", "queryId": wrong}] for wrong in _NO_U32),
    ),
}
_NO_MESSAGES: Final = (
    *(
        "",
        " ",
        "\x00",
        "{",
        "}",
        "[]",
        "{}",
        "null",
        "5",
        '"Connect"',
        "NaN",
        "\ufeff{}",
        "{'a':1}",
    ),
    *('{"type":5}', '{"type":null}', '{"type":"Nope"}', '{"type":"connect"}', '{"type":"Ping"}'),
    *('{"type":"Event"', '{"type":"Event"}x', '{"type":"Event"}{"type":"Event"}', '{"type":Event}'),
    *('{"type":"Event","a":NaN}', '{"type":"Event","a":01}', '{"type":"Event",}', "[" * 50_000),
    *('{"a":' * 20_000, '{"type":"Event","a":' + "[" * 50_000, '{"type":"\\ud800"}', '{"a":"\\x"}'),
    *('{"type":"Transition"}', '{"type":"FatalError","error":"x"}', "[" * 600 + "]" * 600),
)


# Frames.


@cache
def _frames_that_end(message_bytes_max: int) -> Sequence[tuple[bytes, End, int | None]]:
    """Frames after which there is no going on, and what they are closed with if that is ours."""
    event = b'{"type":"Event"}'
    unmasked = bytes([0x80 | TEXT, len(event)]) + event
    half = frame(TEXT, event)[:-3]
    accented = "é".encode() * (message_bytes_max // 2)
    return (
        (frame(2, event), End.FATAL, 1000),  # binary
        (frame(2, b""), End.FATAL, 1000),
        (frame(TEXT, b""), End.FATAL, 1000),
        (frame(TEXT, b"\xff\xfe"), End.SHUT, 1007),
        (frame(TEXT, b'{"type":"\xed\xa0\x80"}'), End.SHUT, 1007),  # half a surrogate pair
        (_pieces(b"\xc3", b"("), End.SHUT, 1007),
        (frame(TEXT, b" " * (message_bytes_max + 1)), End.SHUT, 1009),
        (frame(TEXT, accented + b"  "), End.SHUT, 1009),  # with fewer characters than may be
        (_pieces(b" " * message_bytes_max, b"  "), End.SHUT, 1009),
        (_pieces(accented, b"  ", frame(PING, b"")), End.SHUT, 1009),
        (frame(TEXT, b"a", is_last=False) + frame(TEXT, event), End.SHUT, 1002),
        (frame(0, event), End.SHUT, 1002),  # goes on with nothing
        (frame(3, event), End.SHUT, 1002),  # no such opcode
        (frame(11, b""), End.SHUT, 1002),
        (bytes([0xF0 | TEXT, *frame(TEXT, event)[1:]]), End.SHUT, 1002),  # reserved bits
        (unmasked, End.SHUT, 1002),
        (frame(PING, b"x" * 126), End.SHUT, 1002),
        (frame(PING, b"x", is_last=False), End.SHUT, 1002),
        (frame(CLOSE, b""), End.SHUT, None),
        (frame(CLOSE, b"\x03"), End.SHUT, 1002),
        (frame(CLOSE, struct.pack(">H", 1005)), End.SHUT, 1002),
        (frame(CLOSE, struct.pack(">H", 1000) + b"\xff"), End.SHUT, 1007),
        (struct.pack(">BBQ", 0x80 | TEXT, 0x80 | 127, 2**63) + b"\0\0\0\0", End.SHUT, 1002),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", End.SHUT, 1002),
        (half, End.LEFT, None),
        (frame(TEXT, event, is_last=False), End.LEFT, None),
        (struct.pack(">BBQ", 0x80 | TEXT, 0x80 | 127, 2**40) + b"\0\0\0\0x", End.LEFT, None),
        (b"\x81", End.LEFT, None),
    )


def _pieces(first: bytes, last: bytes, between: bytes = b"") -> bytes:
    """A text in two frames, and what is said between them."""
    return frame(TEXT, first, is_last=False) + between + frame(0, last)
