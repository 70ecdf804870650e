"""One client's side of a conversation with the state machine, as plain JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from engine.errors import ConvexError
from engine.functions.results import (
    ActionResult,
    MutationResult,
    QueryResult,
    failure_of,
)
from engine.model.limits import Limits
from engine.model.reads import ReadSet
from engine.server.messages import decode
from engine.server.protocol import Answered, Call, Plan, Protocol, Start, Step
from engine.server.query_set import Query
from engine.server.spelling import Spelling
from engine.server.who import NOBODY, Who
from tests.protocol.cells import Cells

SESSION = "9c621b88-c88c-4d93-be5f-3236005019b1"
ZERO = "AAAAAAAAAAA="
REQUEST = "0123456789abcdef"


def json_of(message: bytes | None) -> dict[str, Any]:
    assert message is not None, "nothing was said"
    document: dict[str, Any] = json.loads(message)
    return document


class Talk:
    """
    Args:
        redact: as in production.
        limits: of `Limits`.
        takes_parts: as npm's client.
    """

    def __init__(
        self,
        *,
        redact: bool = False,
        limits: Mapping[str, Any] | None = None,
        takes_parts: bool = False,
    ) -> None:
        self.cells = Cells()
        self.woken = 0
        self._begin = partial(
            Protocol,
            Limits(**limits or {}),
            Spelling(redact=redact),
            self._wake,
            takes_parts=takes_parts,
        )
        self.protocol = self._begin()

    def _wake(self) -> None:
        self.woken += 1

    @classmethod
    def opened(cls, **options: Any) -> Talk:
        """One whose client has connected."""
        talk = cls(**options)
        talk.say(type="Connect", sessionId=SESSION, connectionCount=0)
        return talk

    def reconnect(self) -> None:
        """The connection breaks, and the client is there on another."""
        self.protocol.close()
        self.protocol = self._begin()
        self.say(type="Connect", sessionId=SESSION, connectionCount=1)

    # What the client says.

    def say(self, **message: Any) -> Step:
        return self.protocol.receive(decode(json.dumps(message)))

    def add(self, query_id: int, path: str = "m:list", **fields: Any) -> dict[str, Any]:
        return {"type": "Add", "queryId": query_id, "udfPath": path, "args": [{}], **fields}

    def modify(self, *modifications: dict[str, Any], base: int | None = None) -> Step:
        version = self.protocol.queries.version if base is None else base
        return self.say(
            type="ModifyQuerySet",
            baseVersion=version,
            newVersion=version + 1,
            modifications=list(modifications),
        )

    def mutate(self, number: int, **fields: Any) -> Step:
        return self.say(type="Mutation", requestId=number, udfPath="m:send", args=[{}], **fields)

    def act(self, number: int, **fields: Any) -> Call:
        step = self.say(type="Action", requestId=number, udfPath="m:act", args=[{}], **fields)
        assert isinstance(step, Start)
        return step.call

    def refused(self, **fields: Any) -> dict[str, Any]:
        """The response to an action that there is no room for."""
        step = self.say(type="Action", udfPath="m:act", args=[{}], **fields)
        assert isinstance(step, Answered)
        return json_of(step.response)

    def authenticate(self, who: Who = NOBODY, *, base: int = 0) -> None:
        self.say(type="Authenticate", baseVersion=base, tokenType="None")
        self.protocol.authenticated(who)

    # What functions answer.

    def result(
        self,
        value: Any = None,
        *,
        error: Exception | None = None,
        journal: str | None = None,
        reads: str = "cell",
        ts: int = 0,
        log_lines: tuple[str, ...] = (),
    ) -> QueryResult:
        """A query's answer at `ts`, which holds until the cell `reads` is written."""
        failure = None if error is None else failure_of(error)
        touched = ReadSet()
        touched.add_point(reads.encode())
        at = ts or self.cells.published.value
        return QueryResult(
            ts=at,
            value=value,
            failure=failure,
            log_lines=log_lines,
            journal=journal,
            live=self.cells.subscriptions.subscribe(touched, at),
        )

    def mutated(self, call: Call | None, value: Any = None, *, ts: int = 0) -> dict[str, Any]:
        """The response to a mutation that succeeded."""
        assert call is not None
        result = MutationResult(ts=ts, value=value, failure=None, log_lines=())
        return json_of(self.protocol.mutation_answered(call, result, ts))

    def mutation_failed(self, call: Call | None, error: Exception) -> dict[str, Any]:
        assert call is not None
        result = MutationResult(ts=None, value=None, failure=failure_of(error), log_lines=())
        return json_of(self.protocol.mutation_answered(call, result, self.cells.published.value))

    def acted(self, call: Call, value: Any = None, *, ts: int = 0) -> dict[str, Any]:
        result = ActionResult(value=value, failure=None, log_lines=())
        return json_of(self.protocol.action_answered(call, result, ts))

    # What the server says.

    def finish(
        self, plan: Plan, ts: int, results: Mapping[Query, QueryResult]
    ) -> dict[str, Any] | None:
        parts = self.protocol.finish(plan, ts, results, request_id=REQUEST)
        return json_of(parts[0]) if parts else None

    def transition(self, *values: QueryResult | Any, ts: int = 0) -> dict[str, Any] | None:
        """The transition to `ts`, where the stale queries answer `values` in order of their ids."""
        plan = self.protocol.begin()
        asked = sorted(plan.asked, key=lambda query: query.query_id)
        assert len(asked) == len(values), f"{len(asked)} queries were asked"
        results = {
            query: value if isinstance(value, QueryResult) else self.result(value)
            for query, value in zip(asked, values, strict=True)
        }
        return self.finish(plan, ts or self.cells.published.value, results)


def version(query_set: int, identity: int, ts: str) -> dict[str, Any]:
    return {"querySet": query_set, "identity": identity, "ts": ts}


OOPS = ConvexError({"code": "OOPS"})
