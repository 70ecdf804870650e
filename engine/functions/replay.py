"""
A mutation of the past, run again on the state that it found.

A log record says which function it was, with which arguments, dice and clock, and who called if
the function asked; what it wrote follows from these and the state before it.  So the same code
writes the same again, into nothing: what it would have written is compared, and dropped.
"""

from __future__ import annotations

import pdb
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.app.registered import Kind, RegisteredFunction
from engine.errors import FunctionNotFound, NotAllowed, UsageError
from engine.functions.crons import is_tick
from engine.functions.deployment import Deployment
from engine.functions.execute import Executor, Outcome, Request
from engine.functions.queries import PaginationState
from engine.functions.results import Caller, failure_of
from engine.indexes.catalog import SCHEDULED_FUNCTIONS
from engine.model.commits import RowWrite, Source
from engine.model.identity import Identity
from engine.model.limits import USER_TABLE_NUMBER_MIN
from engine.transaction.transaction import Transaction
from engine.transaction.view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A row that was written otherwise than now, `None` being no write of it."""

    key: bytes
    then: RowWrite | None
    now: RowWrite | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What came of running it again."""

    outcome: Outcome
    compared: int
    """Rows that it wrote then."""
    differences: Sequence[Difference]


async def replay(
    executor: Executor,
    view: View,
    source: Source,
    writes: Sequence[RowWrite],
    *,
    ts: int,
    debugs: bool = False,
) -> Replayed:
    """
    Run the mutation of `source` on `view`, the state before it, and compare with `writes`.

    Args:
        ts: of its commit then.
        debugs: stop at its first line in a debugger on this process's terminal.

    Raises:
        FunctionNotFound: the deployed code has no such mutation.
        NotAllowed: it takes secrets, and these are not recorded.
    """
    path, component = source.path, source.component
    _refuse_what_cannot_run(executor.deployment, path, component)
    identity = None if source.identity is None else Identity.of_value(source.identity)
    execution = executor.again(Kind.MUTATION, source)
    transaction = executor.transaction(view, execution)
    transaction.commit_ts = ts
    caller = Caller(admin=True, identity=identity)
    request = Request(Kind.MUTATION, path, source.args or {}, caller, component)
    outcome = await executor.run(
        request, execution, transaction, PaginationState(None), wrap=_debugged if debugs else None
    )
    now = _written(transaction, outcome)
    then = {write.key: write for write in writes}
    mine = [key for key in {**then, **now} if _is_its_own(key, then.get(key))]
    return Replayed(
        outcome=outcome,
        compared=sum(key in then for key in mine),
        differences=[
            Difference(key=key, then=then.get(key), now=now.get(key))
            for key in mine
            if not _is_same(then.get(key), now.get(key))
        ],
    )


def _written(transaction: Transaction, outcome: Outcome) -> dict[bytes, RowWrite]:
    """What it would write by row; nothing where it fails, also in the end."""
    if outcome.failure is not None:
        return {}
    try:
        return {write.key: write for write in transaction.finish()}
    except UsageError as error:
        outcome.value, outcome.failure = None, failure_of(error)
        return {}


def _refuse_what_cannot_run(deployment: Deployment, path: str, component: str) -> None:
    function = deployment.application.find(path, component)
    if function is None or function.kind is not Kind.MUTATION:
        where = f" in {component!r}" if component else ""
        raise FunctionNotFound(f"the code that is deployed now has no mutation {path}{where}")
    if function.signature.has_secrets:
        names = ", ".join(sorted(function.signature.secrets)) or "what it takes besides"
        raise NotAllowed(f"{path} cannot run again as it did: secrets are not recorded ({names})")


def _is_its_own(key: bytes, then: RowWrite | None) -> bool:
    """
    Whether a function wrote the row, and not the engine beside it: sessions, ends of jobs, ticks.
    """
    number = int.from_bytes(key[:4], "big")
    if number == SCHEDULED_FUNCTIONS and then is not None:
        return then.before is None and not is_tick(then.after_doc or {})
    return number == SCHEDULED_FUNCTIONS or number >= USER_TABLE_NUMBER_MIN


def _is_same(then: RowWrite | None, now: RowWrite | None) -> bool:
    if then is None or now is None:
        return then is now
    return then.before == now.before and then.after == now.after


def _debugged(function: RegisteredFunction) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The handler, stopped at its first line."""
    code = function.handler.__code__
    debugger = pdb.Pdb(nosigint=True)
    debugger.rcLines += [f"tbreak {code.co_filename}:{_first_line(code.co_lines())}", "continue"]

    async def stepped(ctx: Any, **arguments: Mapping[str, Any]) -> Any:
        debugger.set_trace()
        result = function.handler(ctx, **arguments)
        return await result if isinstance(result, Coroutine) else result

    return stepped


def _first_line(lines: Iterable[tuple[int, int, int | None]]) -> int:
    """Of the code's body, after the `def`."""
    found = [line for _, _, line in lines if line is not None]
    return next((line for line in found if line != found[0]), found[0])
