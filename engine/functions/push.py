"""
A push: from the application that serves to the one that was just loaded.

    prepare    missing tables and indexes are added; indexes are filled in slices,
               each a log record, while the old functions serve (staged ones after the switch)
    check      documents of tables whose schema changed meet the new one, and of two that
               a new unique index forbids there is none, in slices, while the old
               functions serve; then what was written meanwhile, until few rows are left
    switch     the lane is held: the check of these few, then one transaction: indexes
               enabled and dropped, schemas, crons, deployment

What the old functions write during the check meets the old schema, and a document
that does not fit the new one fails the push, not the write; unless it is repaired
before the switch.  A push that fails has changed nothing: what it prepared is undone.
One that was cut off goes on where it was, if it comes again; if another comes, that
one takes back what nobody wants any more.  Staged indexes are filled, and entries of
dropped ones removed, in the background (`index_upkeep.py`).

What is deployed already is taken up by a process that has just opened, without a
commit.  Who only looks takes up code as it is now, if tables and indexes stay.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, TypeAlias

import trio

from engine.app.registry import Application
from engine.app.rules import ANYTHING, implies
from engine.app.schema import Schema
from engine.committer.actor import Committer, RunAgain
from engine.errors import (
    EngineError,
    FunctionAborted,
    FunctionTimeout,
    PushRefused,
    StoreFull,
)
from engine.functions.catalog_changes import (
    NO_SCHEMAS,
    prepare,
    switch,
    take_back,
    to_check_unique,
    to_fill,
)
from engine.functions.crons import sync_crons
from engine.functions.deployment import Deployment
from engine.functions.document_check import DocumentCheck
from engine.functions.guard import Guard
from engine.functions.handles import HANDLES, SECRET_BYTES, Handles
from engine.functions.index_upkeep import IndexUpkeep, Progress
from engine.functions.mounts import MOUNTS, changed_mounts
from engine.functions.pausing import PAUSED, is_paused
from engine.functions.turns import Turns
from engine.functions.unique_check import UniqueCheck
from engine.functions.watchdog import Watchdog
from engine.indexes.catalog import (
    DEPLOYMENT_KEY,
    SCHEMAS,
    SCHEMAS_BY_COMPONENT,
    TableInfo,
)
from engine.indexes.snapshot import SharedSnapshot
from engine.indexes.written import RecentCommits, WrittenRows
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer
from engine.model.commits import Source
from engine.model.ids import row_key_of
from engine.model.limits import Limits
from engine.transaction.transaction import Transaction

trace = tracer(__name__)

CATCH_UP_SLICES_MAX: Final = 200
"""A second, about; whoever writes faster than that waits for the rest of the check."""

Rules: TypeAlias = dict[str, dict[str, Any]]
"""By component and table."""


class Push:
    """
    Args:
        recent: the newest commits, as followers find them.
        switch: called when the new deployment is durable, before anybody reads it.
        is_fresh: whether this process has deployed nothing yet, and answered nobody.
        upkeep: fills and sweeps indexes.
        progress: told how far it has come.
        watchdog: ends predicates of checks that take too long.
    """

    def __init__(
        self,
        application: Application,
        *,
        committer: Committer,
        recent: RecentCommits,
        runtime: Runtime,
        limits: Limits,
        upkeep: IndexUpkeep,
        switch: Callable[[Deployment], None],
        is_fresh: Callable[[], bool],
        progress: Progress,
        watchdog: Watchdog,
    ) -> None:
        self._application = application
        self._committer = committer
        self._recent = recent
        self._runtime = runtime
        self._limits = limits
        self._turns = Turns(committer, runtime=runtime, limits=limits)
        self._upkeep = upkeep
        self._switch = switch
        self._is_fresh = is_fresh
        self._progress = progress
        self._guard = Guard(
            "the check of stored documents", now_ns=runtime.now_ns, limits=limits, watchdog=watchdog
        )
        self._source = Source(path="_system:push", code=application.digest)

    async def run(self) -> list[str]:
        """
        Push the application; it is deployed and durable when this returns.

        Returns:
            What changed in tables, indexes and crons, a line each.

        Raises:
            PushRefused: nothing changed; names the document and the rule in the way.
            StoreFull: there is no room on the disk; the next push goes on from there. An engine
                that has just opened needs none for what is deployed already.
            Exception: whatever else is in the way; what it prepared is taken back.
        """
        try:
            return await self._prepare_and_switch()
        finally:
            self._upkeep.wake()

    async def take_up(self) -> None:
        """
        Serve the application and write nothing, whether or not its code is what is deployed.

        Raises:
            PushRefused: its tables or indexes are not those of what is deployed.
        """
        await self._turns.repeat(self._take_up)

    async def _prepare_and_switch(self) -> list[str]:
        schemas = self._schemas
        await self._turns.write(partial(prepare, schemas), self._source)
        try:
            for row in await self._turns.write(partial(to_fill, schemas)):
                await self._upkeep.fill(row, self._progress)
            return await self._check_and_switch(schemas)
        except StoreFull:  # and for taking back there is no room either
            raise
        except Exception:
            with suppress(EngineError):  # then the next push does it
                await self._turns.write(partial(take_back, NO_SCHEMAS), self._source)
            raise

    @property
    def _parts(self) -> dict[str, Application]:
        return {"": self._application, **self._application.mounts}

    @property
    def _schemas(self) -> dict[str, Schema]:
        parts = self._parts.items()
        return {c: part.schema for c, part in parts if part.schema is not None}

    async def _take_up(self, turn: Transaction) -> None:
        await self._committer.settled(turn.view.begin_ts, turn.view.generation)
        deployed = turn.get(DEPLOYMENT_KEY)
        if deployed is None:
            raise PushRefused(
                "no application was pushed here yet, and to look is no push: `headrace push` first"
            )
        prepare(self._schemas, turn)
        # Checks may be of other code, as all the rest: no document is stored that met these.
        lines = self._change_schemas(turn)
        if turn.finish():
            would = f": a push would have {', '.join(lines)}" if lines else ""
            raise PushRefused(
                f"the schema is not that of the last push{would}. To look changes nothing: "
                "`headrace push` first, or look with the application that was pushed"
            )
        self._switch(self._deployment(deployed.get(HANDLES, b"")))

    # Check

    async def _check_while_serving(self, schemas: dict[str, Schema]) -> DocumentCheck:
        """Look at all documents, except for a few that were written in the end."""
        check = await self._begin_check(schemas)
        while not await self._step(check.walk):
            if progress := check.progress:
                self._progress(*progress)
            if check.is_outrun:
                async with self._nobody_writing():
                    await self._catch_up(check)
        for _ in range(CATCH_UP_SLICES_MAX):
            if check.is_nearly_done or check.is_outrun:
                break
            await self._step(check.catch_up)
        return check

    async def _begin_check(self, schemas: dict[str, Schema]) -> DocumentCheck:
        rules = _rules(schemas)
        tables, ts = await self._turns.write(partial(_tables_to_check, rules))
        return DocumentCheck(
            tables,
            self._deployment().schemas,
            WrittenRows(self._recent, ts),
            guard=self._guard,
            clock=self._runtime.monotonic,
            slice_s_max=self._limits.slice_s_max,
        )

    async def _check_unique(self, schemas: dict[str, Schema]) -> UniqueCheck:
        """Look for documents that have in common what a new index wants to be unique."""
        indexes = await self._turns.write(partial(to_check_unique, schemas))
        ts = await self._turns.write(lambda turn: turn.view.snapshot_ts)
        check = UniqueCheck(indexes, WrittenRows(self._recent, ts))
        while not await self._step(check.walk):
            if progress := check.progress:
                self._progress(*progress)
        return check

    def _refuse_pairs(self, check: UniqueCheck) -> None:
        snapshot = self._committer.pin()
        try:
            check.refuse_pairs(snapshot)
        finally:
            self._committer.unpin(snapshot)

    async def _step(self, part: Callable[[SharedSnapshot], bool]) -> bool:
        """Do a part of the check as of now, and let others have their turn."""
        snapshot = self._committer.pin()
        try:
            is_done = await self._guard.run(partial(part, snapshot))
        except (FunctionTimeout, FunctionAborted) as error:
            raise PushRefused(f"{error}. Nothing was changed.") from error
        finally:
            self._committer.unpin(snapshot)
        await self._runtime.pause("push.checked")
        await trio.lowlevel.checkpoint()
        return is_done

    async def _catch_up(self, check: DocumentCheck | UniqueCheck) -> None:
        while not await self._step(check.catch_up):
            pass

    @asynccontextmanager
    async def _nobody_writing(self) -> AsyncIterator[None]:
        """Hold the lane, and let everything be published that was written before."""
        committer = self._committer
        await committer.lane.enter(self._limits.lane_deadline_s)
        try:
            # What was refused was not written, and nothing is staged above it either.
            with suppress(RunAgain):
                await committer.settled(committer.head.ts, committer.generation)
            yield
        finally:
            committer.lane.leave()

    # Switch

    async def _check_and_switch(self, schemas: dict[str, Schema]) -> list[str]:
        unique = await self._check_unique(schemas)
        check = await self._check_while_serving(schemas)
        for _ in range(CATCH_UP_SLICES_MAX):
            if await self._step(unique.catch_up):
                break
        await self._runtime.pause("push.switch")
        switched = partial(self._switch_over, check, unique)
        return await self._turns.repeat(switched, durable=True)

    async def _switch_over(
        self,
        check: DocumentCheck,
        unique: UniqueCheck,
        turn: Transaction,
    ) -> list[str]:
        await self._committer.settled(turn.view.begin_ts, turn.view.generation)
        await self._catch_up(unique)
        await self._catch_up(check)
        check.refuse_misfits()
        self._refuse_pairs(unique)
        before = turn.get(DEPLOYMENT_KEY)
        mounts = self._application.mounts.keys()
        lines = [*changed_mounts(turn, before, mounts), *await self._change(turn)]
        secret = (before or {}).get(HANDLES) or self._runtime.random_bytes(SECRET_BYTES)
        deployment = self._deployment(secret)
        if self._resumes(before) and not turn.finish():
            self._switch(deployment)
            return []
        # Never as it was, though two pushes come in one millisecond: results go by this row.
        at = turn.now_ms if before is None else max(turn.now_ms, before["at"] + 1)
        deployed = {"digest": self._application.digest, "at": at, PAUSED: is_paused(before)}
        turn.put_row(DEPLOYMENT_KEY, {**deployed, HANDLES: secret, MOUNTS: sorted(mounts)})
        self._turns.stage(turn, self._source, on_publish=lambda: self._switch(deployment))
        return lines

    def _resumes(self, before: Any) -> bool:
        """
        Whether this is the code that is deployed already, and a process that has just opened.

        So a start leaves no commit behind, and an engine that is opened on a full disk can be read.
        Later code of the same digest is a new state nevertheless: results go by it.
        """
        digest = self._application.digest
        is_same = before and HANDLES in before and before["digest"] == digest
        return bool(is_same and digest and self._is_fresh())

    async def _change(self, turn: Transaction) -> list[str]:
        """Make indexes, schemas and crons those of the application; a line for each change."""
        lines = self._change_schemas(turn)
        return lines + await sync_crons(turn, self._parts)

    def _change_schemas(self, turn: Transaction) -> list[str]:
        """As `_change`, without crons."""
        schemas = self._schemas
        stored, rules = _stored_schemas(turn), _rules(schemas)
        lines = [*switch(schemas, turn), *_changed_tables(schemas, rules, stored)]
        _store_schemas(turn, stored, rules)
        return lines

    def _deployment(self, secret: bytes = b"") -> Deployment:
        committer = self._committer

        def table_number(component: str, name: str) -> int | None:
            table = committer.head.catalog.by_name.get((component, name))
            return None if table is None else table.number

        return Deployment(self._application, table_number, Handles(secret))


def _rules(schemas: dict[str, Schema]) -> Rules:
    """What writes have to meet."""
    return {
        component: {name: table.rule() for name, table in schema.tables.items()}
        if schema.validates
        else {}
        for component, schema in schemas.items()
    }


def _stored_schemas(turn: Transaction) -> dict[str, Any]:
    """By component: what all documents of its tables have met."""
    index = SCHEMAS_BY_COMPONENT
    read = turn.read_slice(index, b"", None, reverse=False, rows_max=1_000)
    return {doc["component"]: doc for doc in read.docs}


def _tables_of(stored: Any) -> dict[str, Any]:
    """The rules of a stored schema, by table."""
    tables: dict[str, Any] = json.loads(stored["tables"]) if stored is not None else {}
    return tables


def _changed_tables(
    schemas: dict[str, Schema], rules: Rules, stored: dict[str, Any]
) -> Iterator[str]:
    """A line for each table whose documents are declared otherwise than before."""
    for component, schema in schemas.items():
        for name, before in _tables_of(stored.get(component)).items():
            rule = rules[component].get(name, before)
            label = f"{component}/{name}" if component else name
            if name not in schema.tables:
                yield f"removed table {label} from the schema; its documents stay"
            elif rule != before:
                yield f"changed table {label}"


def _tables_to_check(rules: Rules, turn: Transaction) -> tuple[list[TableInfo], int]:
    """The tables whose documents may not meet the rule to come, and when that was so."""
    stored = _stored_schemas(turn)
    found = []
    for component, tables in rules.items():
        before = _tables_of(stored.get(component))
        for name, rule in tables.items():
            if not implies(before.get(name, ANYTHING), rule):
                table = turn.catalog.table(component, name)
                assert table is not None, "prepared"
                found.append(table)
    return found, turn.view.snapshot_ts


def _store_schemas(turn: Transaction, stored: dict[str, Any], rules: Rules) -> None:
    for component in stored.keys() - rules.keys():
        # Documents are not checked from now on, so a schema that comes back has to be.
        turn.put_row(row_key_of(stored[component]["_id"]), None)
    for component, tables in rules.items():
        _store_schema(turn, stored.get(component), component, tables)


def _store_schema(turn: Transaction, stored: Any, component: str, tables: dict[str, Any]) -> None:
    doc = {"component": component, "tables": json.dumps(tables)}
    if stored is None:
        turn.insert_row(turn.catalog.by_number[SCHEMAS], doc)
    elif stored["tables"] != doc["tables"]:
        turn.put_row(row_key_of(stored["_id"]), {**stored, **doc})
