"""
A backend in memory: named cells, and functions that are written where they are used.

Real timestamps, snapshots of the past, journals and subscriptions; no
validation, no isolation of user code, no disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from engine.app.registered import Kind
from engine.errors import FunctionNotFound, WrongFunctionKind
from engine.functions.results import (
    ActionResult,
    Caller,
    Failure,
    MutationResult,
    PastResult,
    QueryResult,
    failure_of,
    size_of_shown,
)
from engine.kernel.watermark import Watermark
from engine.model.commits import SessionRequest
from engine.model.reads import Content, ReadSet, Touched
from engine.model.values import Value, size_of
from engine.subscriptions.handle import Subscriptions

START_TS = 1_000


@dataclass(frozen=True, slots=True)
class Write:
    """A commit, as subscriptions see it."""

    ts: int
    rows: frozenset[bytes]
    indexes: Collection[bytes] = ()

    def keys(self, _index_prefix: bytes) -> Collection[bytes]:
        return ()

    def contents(self, _index_prefix: bytes) -> Collection[tuple[bytes, Content]]:
        return ()

    def slices(self, _index_prefix: bytes) -> Iterator[None]:
        return iter(())


@dataclass(slots=True)
class Ctx:
    """What a function of these tests is given."""

    cells: dict[str, Value]
    caller: Caller
    journal: str | None = None
    reads: ReadSet = field(default_factory=ReadSet)
    writes: dict[str, Value] = field(default_factory=dict)
    log_lines: list[str] = field(default_factory=list)

    observed_identity: bool = False

    @property
    def subject(self) -> str | None:
        """Who is asking."""
        self.observed_identity = True
        return self.caller.identity.subject if self.caller.identity else None

    def get(self, name: str) -> Value:
        self.reads.add_point(name.encode())
        return self.writes.get(name, self.cells.get(name))

    def put(self, name: str, value: Value) -> None:
        self.writes[name] = value


Function = Callable[..., Any]


class Cells:
    """
    Args:
        queries: by path, each called with a `Ctx` and the arguments as keywords.
        mutations: likewise.
        actions: likewise, but async, and with this backend and the caller instead of a `Ctx`.
    """

    def __init__(
        self,
        queries: Mapping[str, Function] | None = None,
        mutations: Mapping[str, Function] | None = None,
        actions: Mapping[str, Function] | None = None,
    ) -> None:
        self._functions = {
            "Query": queries or {},
            "Mutation": mutations or {},
            "Action": actions or {},
        }
        self._states: list[tuple[int, dict[str, Value]]] = [(START_TS, {})]
        self._commits: list[Write] = []
        self._answered: dict[SessionRequest, MutationResult] = {}
        self.published = Watermark(START_TS)
        self.subscriptions = Subscriptions(self, processed_ts=START_TS)
        self.processed = self.subscriptions.processed
        self.is_comparing = True
        """Turned off, commits are published and compared with nothing until `compare`."""
        self.gates: dict[str, trio.Event] = {}
        """A function whose path is here waits before it runs."""
        self.answer_gates: dict[str, trio.Event] = {}
        """Likewise, before it answers."""
        self.runs: list[str] = []
        self.refused: list[tuple[str, str, str, str]] = []
        """Kind, path, request id and message of calls that could not be made."""
        self.errors: dict[str, list[Exception]] = {}
        """Raised instead of running a path, one at a time."""

    # What subscriptions ask.

    def covers(self, _after: int) -> bool:
        return True

    def between(self, after: int, upto: int) -> Iterable[Touched]:
        return [commit for commit in self._commits if after < commit.ts <= upto]

    # What the server asks.

    @property
    def oldest_fresh_ts(self) -> int:
        return START_TS

    def compared(self, ts: int) -> bool:
        return self.is_comparing and self.subscriptions.compared(ts)

    @contextmanager
    def pin(self) -> Iterator[int]:
        yield self.published.value

    async def query(
        self,
        path: str,
        args: Mapping[str, Value],
        *,
        caller: Caller,
        ts: int | None = None,
        journal: str | None = None,
        component: str = "",
    ) -> QueryResult:
        at = self.published.value if ts is None else ts
        await self._begin(path, component)
        cells = next(cells for then, cells in reversed(self._states) if then <= at)
        ctx = Ctx(dict(cells), caller, journal)
        value, failure = self._run("Query", path, ctx, args)
        size = size_of_shown(size_of(value), failure, ctx.journal)
        return QueryResult(
            ts=at,
            value=value,
            failure=failure,
            log_lines=tuple(ctx.log_lines),
            journal=ctx.journal,
            live=self.subscriptions.subscribe(ctx.reads, at),
            observed_identity=ctx.observed_identity,
            size_bytes=size,
        )

    async def query_at(
        self,
        path: str,
        args: Mapping[str, Value],
        *,
        caller: Caller,
        ts: int,
        component: str = "",
    ) -> PastResult:
        result = await self.query(path, args, caller=caller, ts=ts, component=component)
        result.live.release()
        return PastResult(result.ts, result.value, result.failure, result.log_lines)

    async def mutation(
        self,
        path: str,
        args: Mapping[str, Value],
        *,
        caller: Caller,
        request: SessionRequest | None = None,
        component: str = "",
    ) -> MutationResult:
        await self._begin(path, component)
        if request is not None and request in self._answered:
            return self._answered[request]
        ctx = Ctx(self._states[-1][1], caller)
        value, failure = self._run("Mutation", path, ctx, args)
        lines = tuple(ctx.log_lines)
        if failure is not None:
            return MutationResult(ts=None, value=None, failure=failure, log_lines=lines)
        ts = self.write(**ctx.writes) if ctx.writes else self.published.value
        result = MutationResult(ts=ts, value=value, failure=None, log_lines=lines)
        if request is not None:
            self._answered[request] = result
        if (gate := self.answer_gates.get(path)) is not None:
            await gate.wait()
        return result

    async def action(
        self, path: str, args: Mapping[str, Value], *, caller: Caller, component: str = ""
    ) -> ActionResult:
        await self._begin(path, component)
        try:
            value = await self._find("Action", path)(self, caller, **args)
        except Exception as error:
            return ActionResult(value=None, failure=failure_of(error), log_lines=())
        return ActionResult(value=value, failure=None, log_lines=())

    def kind_of(self, path: str, *, caller: Caller, component: str = "") -> Kind | None:
        del caller, component  # all are public
        found = [kind for kind, functions in self._functions.items() if path in functions]
        return Kind(found[0].lower()) if found else None

    def tell_refused(
        self, kind: str, path: str, failure: Failure, caller: Caller, component: str = ""
    ) -> None:
        place = f"{component}/{path}" if component else path
        self.refused.append((kind, place, caller.request_id, failure.message))

    # What tests ask.

    def write(self, **cells: Value) -> int:
        """Commit new contents of some cells; return the timestamp."""
        ts = self.published.value + 10
        self._states.append((ts, {**self._states[-1][1], **cells}))
        self._commits.append(Write(ts, frozenset(name.encode() for name in cells)))
        self.published.advance(ts)
        if self.is_comparing:
            self.compare()
        return ts

    def compare(self) -> None:
        """Let subscriptions catch up with what is published."""
        upto = self.published.value
        self.subscriptions.advance(self.between(self.processed.value, upto), upto)

    async def _begin(self, path: str, component: str) -> None:
        assert not component, "there are no components here"
        self.runs.append(path)
        await trio.lowlevel.checkpoint()
        if (gate := self.gates.get(path)) is not None:
            await gate.wait()
        if self.errors.get(path):
            raise self.errors[path].pop(0)

    def _run(self, kind: str, path: str, ctx: Ctx, args: Mapping[str, Value]) -> tuple[Any, Any]:
        try:
            return self._find(kind, path)(ctx, **args), None
        except Exception as error:
            return None, failure_of(error)

    def _find(self, kind: str, path: str) -> Function:
        for other, functions in self._functions.items():
            if path in functions:
                if other == kind:
                    return functions[path]
                raise WrongFunctionKind(
                    f"Trying to execute {path} as {kind}, but it is defined as {other}."
                )
        raise FunctionNotFound(f"Could not find public function for '{path}'.")
