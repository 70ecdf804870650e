"""
How results and failures are put to clients: spelled once, and no more than they may know.

A production deployment redacts: of a failure, only that there was one and its
request id, by which operators find it (`headrace logs --request`), and no log
lines.  Administrators are told everything.  The data of a `ConvexError` is meant
for clients and always reaches them, and so do `Overloaded` and that the deployment is
paused: they may try again.
"""

from __future__ import annotations

import hashlib
from typing import Final

from msgspec import UNSET, Raw, UnsetType

from engine.errors import Overloaded, Paused, StoreFull
from engine.functions.results import ActionResult, Failure, MutationResult, QueryResult
from engine.model.values import UNDEFINED
from engine.server.messages import (
    ActionResponse,
    MutationResponse,
    QueryFailed,
    encode,
    query_updated,
    updated_tail,
    value_json,
)
from engine.server.who import Who


def request_id_of(session: str, request_id: int) -> str:
    """
    What a client's request is called in errors and logs: 16 hex digits, the same on a replay.

    Args:
        session: its id, as text.
    """
    return hashlib.sha256(f"{session}|{request_id}".encode()).hexdigest()[:16]


class Spelling:
    """
    Turns results into messages.

    Args:
        redact: production: tell clients nothing of the code.
    """

    def __init__(self, *, redact: bool) -> None:
        self.redact: Final = redact
        self.mark: Final = b"redacted: " if redact else b""
        """Before the digest of what was shown: shown without redaction it is something else."""
        self._format: Final = "updated, redacted" if redact else "updated"
        self._whole: Final = Spelling(redact=False) if redact else self

    def toward(self, who: Who) -> Spelling:
        """How it is put to `who`: nothing is kept from an administrator."""
        return self._whole if who.admin else self

    # What may be known.

    def error_message(self, failure: Failure, request_id: str) -> str:
        head = f"[Request ID: {request_id}] Server Error"
        if not self.redact:
            return f"{head}\n{failure.message}"
        match failure.error:
            case Paused():  # whose text is advice for operators
                return f"{head}\nUncaught Paused: the deployment is paused; nothing was done"
            case Overloaded() as error:
                return f"{head}\nUncaught Overloaded: {error}"
            case StoreFull():  # whose text names a directory
                return f"{head}\nUncaught StoreFull: the database has no room; nothing was done"
        return head

    def log_lines(self, lines: tuple[str, ...]) -> tuple[str, ...]:
        return () if self.redact else tuple(lines)

    # Messages.

    def query(self, query_id: int, result: QueryResult, request_id: str) -> Raw:
        """The modification that shows `result`."""
        if result.failure is not None:
            return self.query_failed(
                query_id, result.failure, request_id, result.log_lines, result.journal
            )
        tail = result.encoded.get(self._format)
        if tail is None:
            lines = self.log_lines(result.log_lines)
            tail = result.encoded[self._format] = updated_tail(result.value, lines, result.journal)
        return query_updated(query_id, tail)

    def query_failed(
        self,
        query_id: int,
        failure: Failure,
        request_id: str,
        log_lines: tuple[str, ...] = (),
        journal: str | None = None,
    ) -> Raw:
        failed = QueryFailed(
            query_id=query_id,
            error_message=self.error_message(failure, request_id),
            log_lines=self.log_lines(log_lines),
            journal=journal,
            error_data=error_data(failure),
        )
        return Raw(encode(failed))

    def mutation(self, number: int, result: MutationResult, ts: str, request_id: str) -> bytes:
        """The response to a mutation; `ts` is its commit timestamp, if it succeeded."""
        failure = result.failure
        return encode(
            MutationResponse(
                request_id=number,
                success=failure is None,
                result=self._outcome(result, request_id),
                ts=ts if failure is None else None,
                log_lines=self.log_lines(result.log_lines),
                error_data=error_data(failure),
            )
        )

    def action(self, number: int, result: ActionResult, request_id: str) -> bytes:
        failure = result.failure
        return encode(
            ActionResponse(
                request_id=number,
                success=failure is None,
                result=self._outcome(result, request_id),
                log_lines=self.log_lines(result.log_lines),
                error_data=error_data(failure),
            )
        )

    def _outcome(self, result: MutationResult | ActionResult, request_id: str) -> Raw | str:
        if result.failure is None:
            return value_json(result.value)
        return self.error_message(result.failure, request_id)


def error_data(failure: Failure | None) -> Raw | UnsetType:
    """The JSON of an application error's data, present also when that is null."""
    if failure is None or failure.data is UNDEFINED:
        return UNSET
    return value_json(failure.data)
