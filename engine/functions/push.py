"""
A push: from the application that serves to the one that was just loaded.

    prepare    missing tables and indexes are added; indexes are filled in slices,
               each a log record, while the old functions serve
    check      documents of tables whose schema changed meet the new one, and of two that
               a new unique index forbids there is none, in slices, while the old
               functions serve; then what was written meanwhile, until few rows are left
    switch     the lane is held: the check of these few, then one transaction: indexes
               enabled and dropped, schemas, crons, deployment
    sweep      entries of dropped indexes are removed, in slices

What the old functions write during the check meets the old schema, and a document
that does not fit the new one fails the push, not the write; unless it is repaired
before the switch.  A push that fails has changed nothing: what it prepared is undone.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import trio

from engine.app.registry import Application
from engine.app.schema import Schema
from engine.committer.actor import Committer, RunAgain
from engine.errors import PushRefused, SchemaViolation, StoreFull
from engine.functions.crons import sync_crons
from engine.functions.deployment import Deployment
from engine.functions.document_check import DocumentCheck
from engine.functions.turns import Turns
from engine.functions.unique_check import UniqueCheck
from engine.indexes.catalog import (
    DEPLOYMENT_KEY,
    INDEXES,
    SCHEMAS,
    SCHEMAS_BY_COMPONENT,
    IndexInfo,
    IndexKind,
    IndexState,
    TableInfo,
)
from engine.indexes.entries import Change, entry_key
from engine.indexes.snapshot import SharedSnapshot
from engine.indexes.written import RecentCommits, WrittenRows
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer
from engine.model.codec import decode
from engine.model.commits import Kind, Source
from engine.model.ids import row_key_of
from engine.model.limits import Limits
from engine.transaction.transaction import Transaction
from engine.transaction.view import View

trace = tracer(__name__)

SLICE_ROWS: Final = 500
"""Rows of one backfill slice: a few milliseconds of the lane, and one record."""
CATCH_UP_SLICES_MAX: Final = 200
"""A second, about; whoever writes faster than that waits for the rest of the check."""

Progress = Callable[[str, int, int | None], None]
"""What is being done, how much of it is done, and how much there is, if known."""


class Push:
    """
    Args:
        recent: the newest commits, as followers find them.
        switch: called when the new deployment is durable, before anybody reads it.
        progress: told how far it has come.
    """

    def __init__(
        self,
        application: Application,
        *,
        committer: Committer,
        recent: RecentCommits,
        runtime: Runtime,
        limits: Limits,
        switch: Callable[[Deployment], None],
        progress: Progress,
    ) -> None:
        self._application = application
        self._committer = committer
        self._recent = recent
        self._runtime = runtime
        self._limits = limits
        self._turns = Turns(committer, runtime=runtime, limits=limits)
        self._switch = switch
        self._progress = progress
        self._source = Source(path="_system:push", code=application.digest)

    async def run(self) -> list[str]:
        """
        Push the application; it is deployed and durable when this returns.

        Returns:
            What changed in tables, indexes and crons, a line each.

        Raises:
            PushRefused: nothing changed; names the document and the rule in the way.
            StoreFull: there is no room on the disk; the next push goes on from there. If the
                same is deployed already it serves, and nobody is told.
        """
        parts = {"": self._application, **self._application.mounts}
        schemas = {c: part.schema for c, part in parts.items() if part.schema is not None}
        added, lines = await self._turns.write(partial(_add_missing, schemas), self._source)
        try:
            for _, index in self._indexes(IndexState.BACKFILLING):
                await self._backfill(index)
            lines += await self._check_and_switch(parts, schemas)
        except (PushRefused, SchemaViolation):
            await self._undo(added)
            raise
        await self.sweep()
        return lines

    async def sweep(self) -> None:
        """Remove the entries of dropped indexes, also those that an earlier run left."""
        for row, index in self._indexes(IndexState.DROPPING):
            lower: bytes | None = b"" if index.kind is IndexKind.RANGE else None
            while lower is not None:
                lower = await self._turns.write(partial(self._drop_slice, index, lower))
            await self._turns.write(partial(_remove_row, row), self._source)

    def _drop_slice(self, index: IndexInfo, lower: bytes, turn: Transaction) -> bytes | None:
        """Stage the removal of the next entries; returns where to go on, or None at the end."""
        changes = _removals(turn.view, index, lower)
        if not changes:
            return None
        after = changes[-1][1] + b"\0"
        self._turns.stage_slice(Kind.DROP, [index.index_id, after], changes, self._source)
        return after

    # Prepare

    def _indexes(self, state: IndexState) -> list[tuple[bytes, IndexInfo]]:
        tables = self._committer.head.catalog.by_number.values()
        return [
            (index.row, index)
            for table in tables
            for index in table.indexes.values()
            if index.state is state and index.row is not None
        ]

    async def _backfill(self, index: IndexInfo) -> None:
        if index.kind is not IndexKind.RANGE:
            return
        after, done = b"", 0
        while rows := await self._turns.write(partial(self._fill_slice, index, after)):
            after, done = rows[-1] + b"\0", done + len(rows)
            self._progress(f"index {index.name}", done, None)

    def _fill_slice(self, index: IndexInfo, after: bytes, turn: Transaction) -> list[bytes]:
        """Stage the entries of the next rows; returns these rows."""
        rows, changes = _additions(turn.view, index, after)
        if rows:
            covered = [index.index_id, after, rows[-1]]
            self._turns.stage_slice(Kind.BACKFILL, covered, changes, self._source)
        return rows

    # Check

    async def _check_while_serving(self, schemas: dict[str, Schema]) -> DocumentCheck:
        """Look at all documents, except for a few that were written in the end."""
        check = await self._begin_check(schemas)
        while not await self._step(check.walk):
            if progress := check.progress:
                name, done = progress
                self._progress(f"documents of {name}", done, None)
            if check.is_outrun:
                async with self._nobody_writing():
                    await self._catch_up(check)
        for _ in range(CATCH_UP_SLICES_MAX):
            if check.is_nearly_done or check.is_outrun:
                break
            await self._step(check.catch_up)
        return check

    async def _begin_check(self, schemas: dict[str, Schema]) -> DocumentCheck:
        tables, ts = await self._turns.write(partial(_tables_to_check, schemas))
        return DocumentCheck(
            tables,
            self._deployment().schemas,
            WrittenRows(self._recent, ts),
            clock=self._runtime.monotonic,
            slice_s_max=self._limits.slice_s_max,
        )

    async def _check_unique(self) -> UniqueCheck:
        """Look for documents that have in common what a new index wants to be unique."""
        added = [*self._indexes(IndexState.BACKFILLING), *self._indexes(IndexState.STAGED)]
        ts = await self._turns.write(lambda turn: turn.view.snapshot_ts)
        check = UniqueCheck(
            (index for _, index in added if index.unique), WrittenRows(self._recent, ts)
        )
        while not await self._step(check.walk):
            if progress := check.progress:
                name, done = progress
                self._progress(f"unique index {name}", done, None)
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
            is_done = part(snapshot)
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

    async def _check_and_switch(
        self, parts: dict[str, Application], schemas: dict[str, Schema]
    ) -> list[str]:
        unique = await self._check_unique()
        check = await self._check_while_serving(schemas)
        for _ in range(CATCH_UP_SLICES_MAX):
            if await self._step(unique.catch_up):
                break
        await self._runtime.pause("push.switch")
        switched = partial(self._switch_over, parts, schemas, check, unique)
        try:
            return await self._turns.repeat(switched, durable=True)
        except StoreFull:
            if await self._turns.repeat(partial(self._take_up, parts, schemas)):
                return []
            raise

    async def _take_up(
        self, parts: dict[str, Application], schemas: dict[str, Schema], turn: Transaction
    ) -> bool:
        """
        Serve what is deployed already, without writing that it is; whether it is just that.

        So an engine that is opened on a full disk can be read.
        """
        await self._committer.settled(turn.view.begin_ts, turn.view.generation)
        self._change(parts, schemas, turn)
        deployed = turn.get(DEPLOYMENT_KEY)
        is_same = deployed is not None and deployed["digest"] == self._application.digest
        if turn.finish() or not is_same:
            return False
        self._switch(self._deployment())
        return True

    async def _switch_over(
        self,
        parts: dict[str, Application],
        schemas: dict[str, Schema],
        check: DocumentCheck,
        unique: UniqueCheck,
        turn: Transaction,
    ) -> list[str]:
        await self._committer.settled(turn.view.begin_ts, turn.view.generation)
        await self._catch_up(unique)
        await self._catch_up(check)
        check.refuse_misfits()
        self._refuse_pairs(unique)
        lines = self._change(parts, schemas, turn)
        deployed = {"digest": self._application.digest, "at": turn.now_ms}
        turn.put_row(DEPLOYMENT_KEY, deployed)
        deployment = self._deployment()
        self._turns.stage(turn, self._source, on_publish=lambda: self._switch(deployment))
        return lines

    def _change(
        self, parts: dict[str, Application], schemas: dict[str, Schema], turn: Transaction
    ) -> list[str]:
        """Make indexes, schemas and crons those of the application; a line for each change."""
        stored = _stored_schemas(turn)
        lines = [*_changed_tables(schemas, stored), *_enable_and_drop(turn, schemas)]
        _store_schemas(turn, stored, schemas)
        return lines + sync_crons(turn, parts)

    def _deployment(self) -> Deployment:
        committer = self._committer

        def table_number(component: str, name: str) -> int | None:
            table = committer.head.catalog.by_name.get((component, name))
            return None if table is None else table.number

        return Deployment(self._application, table_number)

    # Undo

    async def _undo(self, added: list[TableInfo]) -> None:
        """Take back the tables and indexes that were added for a push which failed."""
        await self._turns.write(partial(self._remove_added, added), self._source)
        await self.sweep()

    def _remove_added(self, tables: list[TableInfo], turn: Transaction) -> None:
        for row, _ in self._indexes(IndexState.BACKFILLING):
            _set_state(turn, row, IndexState.DROPPING)
        for table in tables:
            _remove_if_empty(turn, table)


def declared_indexes(declared: Any, table: TableInfo) -> Iterator[IndexInfo]:
    """The indexes of a table's declaration, as the catalog would have them."""
    for spec in declared.indexes:
        paths = tuple(tuple(name.split(".")) for name in spec.fields)
        yield IndexInfo(
            index_id=0,
            name=spec.name,
            table_number=table.number,
            fields=(*paths, ("_creationTime",)),
            unique=spec.unique,
            state=IndexState.STAGED if spec.staged else IndexState.ENABLED,
        )
    for spec in declared.search_indexes:
        yield IndexInfo(
            index_id=0,
            name=spec.name,
            table_number=table.number,
            fields=(),
            kind=IndexKind.SEARCH,
            options={
                "search_field": spec.search_field,
                "filter_fields": list(spec.filter_fields),
            },
        )


def _add_missing(
    schemas: dict[str, Schema], turn: Transaction
) -> tuple[list[TableInfo], list[str]]:
    """Add the tables and indexes that are not there; these tables, and a line for each of both."""
    added: list[TableInfo] = []
    lines: list[str] = []
    for component, schema in schemas.items():
        for name, declared in schema.tables.items():
            table = turn.catalog.table(component, name)
            if table is None:
                table = turn.create_table(component, name)
                added.append(table)
                lines.append(f"added table {name}")
            for wanted in declared_indexes(declared, table):
                line = _add_index(turn, table, wanted)
                lines += [line] if line else []
    return added, lines


def _same_definition(a: IndexInfo, b: IndexInfo) -> bool:
    return (a.kind, a.fields, a.unique, dict(a.options)) == (
        b.kind,
        b.fields,
        b.unique,
        dict(b.options),
    )


def _add_index(turn: Transaction, table: TableInfo, wanted: IndexInfo) -> str | None:
    current = turn.catalog.by_number[table.number].indexes
    for index in current.values():
        is_same = index.name == wanted.name and _same_definition(index, wanted)
        if is_same and index.state is not IndexState.DROPPING:
            return None
    replaces = wanted.name in current
    turn.insert_row(
        turn.catalog.by_number[INDEXES],
        {
            "indexId": turn.catalog.next_index_id,
            "name": wanted.name,
            "table": table.number,
            "fields": wanted.field_names,
            "kind": wanted.kind.value,
            "state": IndexState.BACKFILLING.value,
            "unique": wanted.unique,
            "options": dict(wanted.options),
        },
    )
    return f"{'replaced' if replaces else 'added'} index {table.name}.{wanted.name}"


def _enable_and_drop(turn: Transaction, schemas: dict[str, Schema]) -> list[str]:
    """Make the indexes of the catalog those of the schemas; a line for each that is dropped."""
    lines = []
    for table in list(turn.catalog.by_number.values()):
        schema = schemas.get(table.component)
        if table.is_system or schema is None:
            continue
        declared = schema.tables.get(table.name)
        wanted = {w.name: w for w in declared_indexes(declared, table)} if declared else {}
        for index in table.indexes.values():
            if index.row is None or index.state is IndexState.DROPPING:
                continue
            target = wanted.get(index.name)
            if target is None or not _same_definition(index, target):
                _set_state(turn, index.row, IndexState.DROPPING)
                if target is None:
                    lines.append(f"dropped index {table.name}.{index.name}")
            elif index.state is not target.state:
                _set_state(turn, index.row, target.state)
                if index.state is not IndexState.BACKFILLING:
                    lines.append(f"{target.state.value} index {table.name}.{index.name}")
    return lines


def _remove_row(row: bytes, turn: Transaction) -> None:
    turn.put_row(row, None)


def _set_state(turn: Transaction, row: bytes, state: IndexState) -> None:
    doc = turn.get(row)
    assert doc is not None, "an index of the catalog has a row"
    turn.put_row(row, {**doc, "state": state.value})


def _remove_if_empty(turn: Transaction, table: TableInfo) -> None:
    """Take back a table, unless somebody has put a document into it."""
    entries = turn.view.entries(table.indexes["by_id"], b"", None, reverse=False)
    if next(entries, None) is not None:
        return
    for index in turn.catalog.by_number[table.number].indexes.values():
        if index.row is not None:
            turn.put_row(index.row, None)
    assert table.row is not None, "a table of the catalog has a row"
    turn.put_row(table.row, None)


def _additions(view: View, index: IndexInfo, after: bytes) -> tuple[list[bytes], list[Change]]:
    """The next rows of a backfill, by internal id, and the entries that they have."""
    rows: list[bytes] = []
    changes: list[Change] = []
    table = view.catalog.by_number[index.table_number]
    for internal, key in view.entries(table.indexes["by_id"], after, None, reverse=False):
        image = view.row(key)
        assert image is not None, "a row of by_id is there"
        rows.append(internal)
        changes.append((index.prefix, entry_key(index, decode(image), internal), key))
        if len(rows) == SLICE_ROWS:
            break
    return rows, changes


def _removals(view: View, index: IndexInfo, lower: bytes) -> list[Change]:
    changes: list[Change] = []
    for key, _ in view.entries(index, lower, None, reverse=False):
        changes.append((index.prefix, key, None))
        if len(changes) == SLICE_ROWS:
            break
    return changes


def _stored_schemas(turn: Transaction) -> dict[str, Any]:
    """By component: what all documents of its tables have met."""
    index = SCHEMAS_BY_COMPONENT
    read = turn.read_slice(index, b"", None, reverse=False, rows_max=1_000)
    return {doc["component"]: doc for doc in read.docs}


def _tables_of(stored: Any) -> dict[str, Any]:
    """The rules of a stored schema, by table."""
    tables: dict[str, Any] = json.loads(stored["tables"]) if stored is not None else {}
    return tables


def _changed_tables(schemas: dict[str, Schema], stored: dict[str, Any]) -> Iterator[str]:
    """A line for each table whose documents are declared otherwise than before."""
    for component, schema in schemas.items():
        for name, before in _tables_of(stored.get(component)).items():
            declared = schema.tables.get(name)
            if declared is None:
                yield f"removed table {name} from the schema; its documents stay"
            elif declared.validator.to_json() != before:
                yield f"changed table {name}"


def _tables_to_check(schemas: dict[str, Schema], turn: Transaction) -> tuple[list[TableInfo], int]:
    """The tables whose documents are to meet another rule than before, and when that was so."""
    stored = _stored_schemas(turn)
    found = []
    for component, schema in schemas.items():
        before = _tables_of(stored.get(component))
        for name, rule in _rules(schema).items():
            if before.get(name) != rule:
                table = turn.catalog.table(component, name)
                assert table is not None, "prepared"
                found.append(table)
    return found, turn.view.snapshot_ts


def _store_schemas(turn: Transaction, stored: dict[str, Any], schemas: dict[str, Schema]) -> None:
    for component in stored.keys() - schemas.keys():
        # Documents are not checked from now on, so a schema that comes back has to be.
        turn.put_row(row_key_of(stored[component]["_id"]), None)
    for component, schema in schemas.items():
        _store_schema(turn, stored.get(component), component, schema)


def _store_schema(turn: Transaction, stored: Any, component: str, schema: Schema) -> None:
    doc = {"component": component, "tables": json.dumps(_rules(schema))}
    if stored is None:
        turn.insert_row(turn.catalog.by_number[SCHEMAS], doc)
    elif stored["tables"] != doc["tables"]:
        turn.put_row(row_key_of(stored["_id"]), {**stored, **doc})


def _rules(schema: Schema) -> dict[str, Any]:
    """What writes to its tables have to meet."""
    if not schema.validates:
        return {}
    return {name: table.validator.to_json() for name, table in schema.tables.items()}
