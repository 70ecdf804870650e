"""
The client's side of the sync protocol on one connection: plain code, no socket.

It speaks of queries only.  Each has a number; what the server is told is the
difference between the queries that are wanted and those it was told before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from engine.errors import ProtocolViolation, Unauthenticated
from engine.interface import Target
from engine.model.json_values import Json, decode_ts, encode_ts, from_wire
from engine.model.values import Value
from engine.remote.failures import failure_of, without_request
from engine.server.json_text import parse
from engine.server.messages import (
    Add,
    Authenticate,
    Connect,
    ModifyQuerySet,
    Remove,
    encode,
    value_json,
)

Wanted: TypeAlias = tuple[int, Target, str | None]
"""The number of a query, the query, and the journal of its last result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A new result of one query, or its failure; those with equal fingerprints are the same."""

    number: int
    ts: int
    value: Value = None
    error: Exception | None = None
    journal: str | None
    fingerprint: Json


class Conversation:
    """
    Args:
        max_observed_ts: the newest timestamp heard on earlier connections, 0 if none.
    """

    def __init__(self, admin_key: str | None, *, max_observed_ts: int = 0) -> None:
        self._admin_key = admin_key
        self._max_observed_ts = max_observed_ts
        self._version = 0
        self._told: dict[int, Target] = {}
        self.ts = 0
        self.has_heard = False

    def greeting(self) -> list[str]:
        """What is said first."""
        observed = encode_ts(self._max_observed_ts) if self._max_observed_ts else None
        session = str(UUID(bytes=os.urandom(16), version=4))
        said = [encode(Connect(session_id=session, max_observed_timestamp=observed))]
        if self._admin_key is not None:
            said.append(
                encode(Authenticate(base_version=0, token_type="Admin", value=self._admin_key))
            )
        return [one.decode() for one in said]

    def modification(self, wanted: Sequence[Wanted]) -> str | None:
        """What the server is to be told so that it shows what is wanted; `None` for nothing."""
        targets = {number: target for number, target, _ in wanted}
        removed = [Remove(query_id=number) for number in self._told if number not in targets]
        added = [
            Add(
                query_id=number,
                udf_path=target.path,
                args=value_json([dict(target.args)]),
                journal=journal,
                component_path=target.component or None,
            )
            for number, target, journal in wanted
            if number not in self._told
        ]
        if not removed and not added:
            return None
        self._told = targets
        self._version += 1
        return encode(
            ModifyQuerySet(
                base_version=self._version - 1,
                new_version=self._version,
                modifications=[*added, *removed],
            )
        ).decode()

    def receive(self, text: str) -> list[Shown]:
        """
        Take a message of the server's; return the results that it brings.

        Raises:
            Unauthenticated: the key was refused.
            ProtocolViolation: the server will not go on, or says what cannot be understood.
        """
        try:
            message = parse(text)
            match message["type"]:
                case "Transition":
                    self.has_heard = True
                    return self._transition(message)
                case "AuthError":
                    raise Unauthenticated(str(message["error"]))
                case "FatalError":
                    raise ProtocolViolation(str(message["error"]))
                case _:
                    return []
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolViolation(f"the server sent what is no message: {error!r}") from error

    def _transition(self, message: Json) -> list[Shown]:
        self.ts = decode_ts(message["endVersion"]["ts"])
        return [
            self._shown(one)
            for one in message["modifications"]
            if one["type"] != "QueryRemoved" and one["queryId"] in self._told
        ]

    def _shown(self, one: Json) -> Shown:
        number: int = one["queryId"]
        if one["type"] == "QueryUpdated":
            value = one["value"]
            return Shown(
                number=number,
                ts=self.ts,
                value=from_wire(value),
                journal=one.get("journal"),
                fingerprint=["ok", value],
            )
        text = without_request(str(one["errorMessage"]))
        return Shown(
            number=number,
            ts=self.ts,
            error=failure_of(self._told[number].path, one),
            journal=one.get("journal"),
            fingerprint=["failed", text, one.get("errorData")],
        )
