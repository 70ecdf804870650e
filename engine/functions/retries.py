"""
Actions that are tried again when they fail: what their job's row says of it.

    pending ──▶ inProgress ──▶ success
       ▲            │
       └── later ───┴────────▶ failed, after the last attempt

An attempt is the job again, so that one row tells the outcome, is canceled and is followed.  Who
is told of the outcome is a mutation, scheduled in the transaction that ends the job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from engine.app.crons import Retry, later_ms
from engine.app.registered import Kind, RegisteredFunction
from engine.errors import InvalidValue, LimitExceeded
from engine.functions.deployment import Deployment, Place
from engine.functions.job_rows import FAILED, add_job, pending_again
from engine.functions.targets import call_arguments
from engine.model.limits import (
    BACKOFF_S_MAX,
    CONTEXT_BYTES_MAX,
    DOCUMENT_BYTES_MAX,
    TOLD_BYTES_MAX,
)
from engine.model.values import UNDEFINED, normalize, size_of
from engine.transaction.transaction import Transaction

Doc = dict[str, Any]

JITTER: Final = (0.5, 1.5)
"""Of each wait, within `BACKOFF_S_MAX`: what failed together is not to come back together."""
RETURNED_BYTES_MAX: Final = DOCUMENT_BYTES_MAX // 2
"""Of a result that the row keeps beside its arguments; a larger one only `on_complete` is told."""


def scheduled_arguments(
    fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """
    As `call_arguments`, of what is scheduled.

    Raises:
        InvalidValue: also, there is a `Retry` among them, which is for the scheduler to know.
    """
    if any(isinstance(given, Retry) for given in (*args, *kwargs.values())):
        raise InvalidValue(
            "a Retry is no argument of a function that is scheduled: write "
            "ctx.scheduler.with_retry(Retry(...)).run_after(...)"
        )
    return call_arguments(fn, args, kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """How a job is tried again, and who is told what came of it."""

    retry: Retry
    on_complete: Place | None
    """Where the mutation is that is told."""
    context: Any

    @classmethod
    def of(
        cls, retry: Retry, on_complete: Any, context: Any, component: str, deployment: Deployment
    ) -> Retrying:
        """
        Raises:
            InvalidValue: `on_complete` is no mutation, or `context` no value.
            FunctionNotFound: there is no `on_complete`.
            LimitExceeded: `context` is too large.
        """
        if not isinstance(retry, Retry):
            raise InvalidValue(f"with_retry takes a Retry, not {retry!r}")
        told = None
        if on_complete is not None:
            told, found = deployment.find_named(on_complete, component)
            if found.kind is not Kind.MUTATION:
                raise InvalidValue(f"on_complete is a mutation, and {found!r} is none")
        plain = normalize(context, path="context")
        if (size := size_of(plain)) > CONTEXT_BYTES_MAX:
            advice = "Insert a document and give its id."
            raise LimitExceeded("CONTEXT_BYTES_MAX", size, CONTEXT_BYTES_MAX, "context", advice)
        return cls(retry=retry, on_complete=told, context=plain)

    def refuse_unless_action(self, fn: RegisteredFunction) -> None:
        """
        Raises:
            InvalidValue: `fn` is a mutation, which runs exactly once as it is.
        """
        if fn.kind is not Kind.ACTION:
            raise InvalidValue(
                f"{fn!r} is no action: a mutation runs exactly once, and what it raises it raises "
                "again"
            )

    def fields(self) -> Doc:
        """What a job's row has beside the others'."""
        row: Doc = {
            "retry": {
                "initialBackoff": self.retry.first_ms,
                "base": float(self.retry.base),
                "maxAttempts": float(self.retry.max_attempts),
            },
            "attempts": 0.0,
        }
        if self.on_complete is not None:
            target, path = self.on_complete
            row["onComplete"] = {"target": target, "name": path, "context": self.context}
        return row


def is_tried_again(job: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Whether an action that ended so has attempts left."""
    if "retry" not in job or state["kind"] != FAILED:
        return False
    return bool(job["attempts"] < job["retry"]["maxAttempts"])


def try_again(turn: Transaction, key: bytes, job: Doc, error: str) -> None:
    """Have the job wait for its next attempt."""
    retry = job["retry"]
    wait_ms = later_ms(retry["initialBackoff"], retry["base"], job["attempts"])
    least, most = JITTER
    wait_ms = min(wait_ms * (least + (most - least) * turn.fraction()), BACKOFF_S_MAX * 1000)
    due_ms = turn.now_ms + wait_ms
    turn.put_row(key, {**pending_again(job, due_ms), "lastError": error})


def told_fields(returned: Any) -> Doc:
    """What the row of a job that succeeded keeps of what it returned."""
    if returned is UNDEFINED or size_of(returned) > RETURNED_BYTES_MAX:
        return {}
    return {"returned": returned}


def tell(turn: Transaction, job: Doc, state: Mapping[str, Any], returned: Any) -> None:
    """Schedule what is to be told how a job ended: in the transaction that ends it, so once."""
    told = job.get("onComplete")
    if told is None:
        return
    result = dict(state)
    if returned is not UNDEFINED:
        size = size_of(returned)
        result |= {"value": returned} if size <= TOLD_BYTES_MAX else {"valueBytes": float(size)}
    add_job(
        turn,
        owner=job["component"],
        component=told["target"],
        path=told["name"],
        args={"job": job["_id"], "result": result, "context": told["context"]},
        due_ms=turn.now_ms,
    )
