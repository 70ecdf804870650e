"""
What an administrator asks of a running server, besides functions: routes under /api/headrace/.

    GET   functions                                 what is deployed
    GET   tables                                    with numbers of documents
    GET   documents?table=&component=&limit=&order=&after=     and where the next ones begin
    POST  drop        {table, component}            a table that no schema has
    POST  import      {table, component, first, documents}     one transaction
    GET   executions?after=&wait=                   what ran since a cursor; waits for it
    POST  explain     {path, args, component}       run a query, and say what it read
    POST  push                                      read the application again
    GET   push                                      how far the one that is on its way is
    GET   verify                                    a line of JSON a slice
    GET   shapes?table=&component=                  a line of JSON a slice, the schema in the last
    GET   log?after=&last=&limit=&wait=             records in short; waits for new ones
    GET   record?ts=                                one record, with its images
    POST  replay      {ts, debug}                   run its mutation again, and compare
    POST  shell       {session, source}             one input; only where it was allowed

Values travel in the lossless encoding of the wire.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict
from functools import partial
from itertools import chain
from typing import Any, Final

import msgspec
import trio

from engine.app.registered import Kind
from engine.app.registry import Application
from engine.errors import (
    LimitExceeded,
    OutOfRetention,
    PushRefused,
    RequestRefused,
    SnapshotTooOld,
    StoreFull,
    UsageError,
    WrongFunctionKind,
)
from engine.functions.guard import Guard
from engine.functions.history import as_json
from engine.functions.index_upkeep import FILLED
from engine.functions.mounts import mounted
from engine.functions.results import Caller
from engine.indexes.catalog import (
    DEPLOYMENT_KEY,
    IN_PART,
    Catalog,
    IndexInfo,
    IndexKind,
    IndexState,
    TableInfo,
)
from engine.indexes.recovery import recover
from engine.indexes.verify import Findings, verify
from engine.log.records import decode_record
from engine.model.codec import decode
from engine.model.json_values import Json, from_wire, to_wire
from engine.model.limits import DOCUMENTS_SHOWN_BYTES_MAX, DOCUMENTS_SHOWN_MAX, RECORDS_SHOWN_MAX
from engine.model.relations import Relation
from engine.model.text import brief
from engine.node import Node
from engine.server.requests import Handler, Request, Response, Route, bad_json, json_response
from engine.server.server import OPERATORS_PREFIX
from engine.serving import imports
from engine.serving.deployer import Deployer
from engine.serving.mounts import Mounts
from engine.serving.records import (
    compared,
    in_full,
    in_short,
    last_records,
    record_at,
    records_after,
    refuse_unless_replayable,
    ts_before,
)
from engine.serving.schedules import Schedules
from engine.serving.searches import Searches
from engine.serving.shapes import Shapes, shapes
from engine.serving.shell import PATH as SHELL_PATH
from engine.store.interface import Snapshot, Tree
from engine.transaction.transaction import Transaction

SLICE_ROWS: Final = 1_000
"""Rows that are counted or shown before others get their turn."""
SLICE_BYTES: Final = 256 << 10
"""Of records that are decoded before others get their turn."""
INTERNAL_BYTES: Final = 16
"""Of an internal id, which is what entries end with."""
WAIT_S_MAX: Final = 25.0
"""For new executions; below what proxies allow an answer to take."""
_DIGITS_MAX: Final = 19
"""Enough for any ts, and what is one more fits in the 64 bits that it takes in the store."""
LINES_TYPE: Final = "application/x-ndjson"


class Administration:
    """
    Args:
        allow_shell: evaluate what administrators type. It is as good as a login.
    """

    def __init__(self, node: Node, deployer: Deployer, *, allow_shell: bool) -> None:
        self._node = node
        self._deployer = deployer
        self._allow_shell = allow_shell

    def routes(self) -> list[Route]:
        asked: dict[tuple[str, str], Handler] = {
            ("GET", "functions"): self._functions,
            ("GET", "tables"): self._tables,
            ("GET", "documents"): self._documents,
            ("POST", "drop"): self._drop,
            ("POST", "state"): self._state,
            ("POST", "import"): self._import,
            ("GET", "executions"): self._executions,
            ("POST", "explain"): self._explain,
            ("POST", "push"): self._push,
            ("GET", "push"): self._pushing,
            ("GET", "verify"): self._verify,
            ("GET", "shapes"): self._shapes,
            ("GET", "log"): self._log,
            ("GET", "record"): self._record,
            ("POST", "replay"): self._replay,
            ("POST", "shell"): self._shell,
            **Schedules(self._node).handlers(),
            **Searches(self._node).handlers(),
            **Mounts(self._node).handlers(),
        }
        return [
            Route(
                method=method,
                path=OPERATORS_PREFIX + name,
                handler=_explained(handler),
                needs_admin=True,
            )
            for (method, name), handler in asked.items()
        ]

    # What is there.

    async def _functions(self, _request: Request) -> Response:
        return json_response(described_functions(self._deployer.application))

    async def _tables(self, _request: Request) -> Response:
        return json_response(self.tables())

    def tables(self) -> list[dict[str, Any]]:
        """The application's tables, with their indexes and how many documents they have."""
        with self._snapshot() as snapshot:
            end = recover(snapshot)
            catalog, counts = end.catalog, end.counts
            deployed = snapshot.get(Tree.ROWS, DEPLOYMENT_KEY)
            places = {"", *mounted(decode(deployed) if deployed is not None else None)}
            return [
                {
                    "component": table.component,
                    "mounted": table.component in places,
                    "name": table.name,
                    "documents": counts.get(table.number, 0),
                    "indexes": [
                        _index_text(index, snapshot.get(Tree.ROWS, index.row))
                        for index in table.indexes.values()
                        if index.kind is not IndexKind.BY_ID and index.row is not None
                    ],
                }
                for table in sorted(
                    catalog.user_tables, key=lambda each: (each.component, each.name)
                )
            ]

    async def _documents(self, request: Request) -> Response:
        name, component = request.query.get("table", ""), request.query.get("component", "")
        limit = min(_number(request, "limit", 100), DOCUMENTS_SHOWN_MAX)
        is_descending = request.query.get("order", "asc") == "desc"
        with self._snapshot() as snapshot:
            catalog = recover(snapshot).catalog
            table = catalog.table(component, name)
            if table is None:
                known = sorted(n for c, n in catalog.by_name if c == component and n[:1] != "_")
                there = f"there are {', '.join(known)}" if known else "there are none"
                raise RequestRefused(404, "TableNotFound", f"There is no table {name!r}; {there}")
            after = _bytes(request, "after")
            documents: list[Json] = []
            last, size, is_more = b"", 0, False
            for entry, image in _by_creation(snapshot, table, is_descending, after):
                if is_more := len(documents) == limit or size > DOCUMENTS_SHOWN_BYTES_MAX:
                    break
                last, size = entry, size + len(image)
                documents.append(to_wire(decode(image)))
                await _now_and_then(len(documents))
        return json_response({"documents": documents, "next": last.hex() if is_more else None})

    async def _drop(self, request: Request) -> Response:
        asked = await self._object(request)
        table, component = asked.get("table"), asked.get("component", "")
        if not isinstance(table, str) or not isinstance(component, str):
            raise bad_json("table has to be the name of a table, and component a path")
        if not self._deployer.has_application:
            raise RequestRefused(
                409,
                "NoApplication",
                "This server has no application, whose schema would say whether it needs the table",
            )
        return json_response({"documents": await self._node.drop_table(component, table)})

    async def _state(self, request: Request) -> Response:
        """Pause, or resume, and say whether that is news."""
        paused = (await self._object(request)).get("paused")
        if not isinstance(paused, bool):
            raise bad_json("paused has to be true or false")
        is_news = await (self._node.pause() if paused else self._node.resume())
        return json_response({"paused": paused, "changed": is_news})

    # What is brought in.

    async def _import(self, request: Request) -> Response:
        asked = await self._object(request)
        table, component, documents = (
            asked.get("table"),
            asked.get("component", ""),
            asked.get("documents"),
        )
        if not isinstance(table, str) or not table or not isinstance(component, str):
            raise bad_json("table has to be the name of a table")
        if not isinstance(documents, list):
            raise bad_json("documents has to be an array")
        first = asked.get("first", 1)
        number = int(first) if isinstance(first, int | float) else 1
        async with self._node.pushing:  # a table may get another number
            imported = await self._bring_in(component, table, number, documents)
        return json_response({"imported": imported})

    async def _bring_in(self, component: str, table: str, first: int, documents: list[Json]) -> int:
        """Insert documents, all of them or none."""
        node = self._node
        turns, schemas = node.functions.turns, node.functions.deployment.schemas
        node.functions.deployment.refuse_unless_mounted(component)
        guard = Guard(
            f"the check of a document of {table!r}",
            now_ns=node.runtime.now_ns,
            limits=node.limits,
            watchdog=node.watchdog,
        )
        read: list[imports.Imported] = []
        for number, document in enumerate(documents, first):
            with _numbered(number):
                read.append(imports.read(document))
        await turns.write(lambda turn: imports.place_table(turn, component, table, read))
        for number, one in enumerate(read, first):
            with _numbered(number):
                await guard.run(partial(schemas.check, component, table, one.fields, guard))
        relations = schemas.relations.get((component, table), ())
        await turns.write(lambda turn: _insert(turn, component, table, first, read, relations))
        return len(read)

    # What happens.

    async def _executions(self, request: Request) -> Response:
        log = self._node.functions.executions
        after = _number(request, "after", 0)
        with trio.move_on_after(min(_number(request, "wait", 0), WAIT_S_MAX)):
            await log.wait_past(after)
        found = list(log.after(after))
        cursor = found[-1][0] if found else after
        return json_response({"cursor": cursor, "executions": [as_json(r) for _, r in found]})

    async def _explain(self, request: Request) -> Response:
        asked = await self._object(request)
        args = from_wire(asked.get("args", {}))
        if not isinstance(args, dict):
            raise bad_json("args has to be an object")
        path, component = asked.get("path"), asked.get("component", "")
        if not isinstance(path, str):
            raise bad_json("path has to be the path of a query")
        if not isinstance(component, str):
            raise bad_json("component has to be the path of a component")
        self._refuse_unless_query(path, component)
        outcome, readings = await self._node.functions.explain(
            path,
            args,
            caller=Caller(admin=True, request_id="explain", origin="operator"),
            component=component,
        )
        usage = outcome.usage
        assert usage is not None, "what was run was measured"
        return json_response(
            {
                "value": None if outcome.failure else to_wire(outcome.value),
                "error": outcome.failure.message if outcome.failure else None,
                "logLines": list(outcome.log_lines),
                "readings": [asdict(reading) for reading in readings],
                "documentsRead": usage.documents_read,
                "bytesRead": usage.bytes_read,
                "durationMs": outcome.duration_ms,
            }
        )

    def _refuse_unless_query(self, path: str, component: str) -> None:
        function = self._deployer.application.find(path, component)
        if function is not None and function.kind is not Kind.QUERY:
            raise RequestRefused(
                400,
                WrongFunctionKind.__name__,
                f"{path} is defined as {function.kind.value}; only queries are explained",
            )

    async def _push(self, _request: Request) -> Response:
        changes = await self._deployer.push_when_asked()
        return json_response(
            {"changes": changes, "warnings": list(self._deployer.application.warnings)}
        )

    async def _pushing(self, _request: Request) -> Response:
        return json_response(self._deployer.progress)

    async def _verify(self, _request: Request) -> Response:
        return Response(body=self._findings(), content_type=LINES_TYPE)

    async def _findings(self) -> AsyncGenerator[bytes, None]:
        found = Findings()
        for found in verify(self._node.store.snapshot):
            yield _line(found, is_done=False)
            await trio.lowlevel.checkpoint()
        async with aclosing(self._node.keeper.problems()) as problems:
            async for problem in problems:
                found.problems += [] if problem is None else [problem]
                yield _line(found, is_done=False)
        yield _line(found, is_done=True)

    async def _shapes(self, request: Request) -> Response:
        name, component = request.query.get("table"), request.query.get("component", "")
        slices = shapes(self._node.store.snapshot, component, name)
        first = next(slices)  # so that a table that is not there is refused with a status
        return Response(body=_shape_lines(first, slices), content_type=LINES_TYPE)

    async def _log(self, request: Request) -> Response:
        published = self._node.published
        after = _number(request, "after", 0)
        with trio.move_on_after(min(_number(request, "wait", 0), WAIT_S_MAX)):
            await published.wait_reached(after + 1)
        limit = min(_number(request, "limit", 100), RECORDS_SHOWN_MAX)
        last = _number(request, "last", 0)
        with self._snapshot() as snapshot:
            catalog = recover(snapshot).catalog
            if "last" in request.query:
                found = last_records(snapshot, min(last, RECORDS_SHOWN_MAX))
                return json_response({"records": (await _shown(found, catalog))[::-1]})
            found = records_after(snapshot, after, limit)
            return json_response({"records": await _shown(found, catalog)})

    async def _record(self, request: Request) -> Response:
        with self._snapshot() as snapshot:
            record = record_at(snapshot, _number(request, "ts", 0))
            return json_response(in_full(record, recover(snapshot).catalog))

    async def _replay(self, request: Request) -> Response:
        asked = await self._object(request)
        ts, debugs = _whole(asked.get("ts")), asked.get("debug") is True
        if debugs and not self._allow_shell:
            raise RequestRefused(403, "ShellRefused", "This server runs nothing in a debugger")
        with self._snapshot() as snapshot:
            record = record_at(snapshot, ts)
            after = ts_before(snapshot, ts)
            catalog = recover(snapshot).catalog
        refuse_unless_replayable(record)
        replayed = await self._node.functions.replay(
            record.source, record.writes, ts=ts, after=after, debugs=debugs
        )
        digest = self._deployer.application.digest
        return json_response(compared(record, replayed, catalog, digest))

    async def _shell(self, request: Request) -> Response:
        if not self._allow_shell:
            raise RequestRefused(
                403,
                "ShellRefused",
                "This server evaluates nothing; start it with `dev`, or with --allow-shell",
            )
        asked = await self._object(request)
        result = await self._node.functions.mutation(
            SHELL_PATH,
            {name: str(asked.get(name, "")) for name in ("session", "source")},
            caller=Caller(admin=True, request_id="shell", origin="operator"),
        )
        error = result.failure.message if result.failure else None
        return json_response(
            {"shown": result.value, "error": error, "logLines": list(result.log_lines)}
        )

    async def _object(self, request: Request) -> dict[str, Json]:
        return await request.json_object(self._node.limits.http_body_bytes_max)

    @contextmanager
    def _snapshot(self) -> Iterator[Snapshot]:
        snapshot = self._node.store.snapshot()
        try:
            yield snapshot
        finally:
            snapshot.close()


def _index_text(index: IndexInfo, image: bytes | None) -> str:
    """An index with its fields; also how far it is, if queries cannot read it."""
    text = f"{index.name} ({', '.join(index.field_names)})"
    if index.state is IndexState.ENABLED:
        return text
    filled = decode(image).get(FILLED, 0) if image and index.state in IN_PART else None
    return f"{text} {index.state.value}" + ("" if filled is None else f", {filled} filled")


async def _shape_lines(first: Shapes, others: Iterator[Shapes]) -> AsyncGenerator[bytes, None]:
    for found in chain([first], others):
        yield msgspec.json.encode(found) + b"\n"
        await trio.lowlevel.checkpoint()


def _insert(
    turn: Transaction,
    component: str,
    table: str,
    first: int,
    documents: Sequence[imports.Imported],
    relations: Sequence[Relation],
) -> None:
    for number, one in enumerate(documents, first):
        with _numbered(number):
            imports.insert(turn, component, table, one)
    # Only now, because they may refer to each other.
    for number, one in enumerate(documents, first):
        with _numbered(number):
            turn.check_references(relations, one.fields)


@contextmanager
def _numbered(number: int) -> Iterator[None]:
    """What is refused in the block is refused with the number of its document."""
    try:
        yield
    except UsageError as error:
        raise RequestRefused(400, error.code, f"document {number}: {error}") from None


def described_functions(application: Application) -> list[dict[str, Any]]:
    """The functions of an application and its components, those of the engine's own left out."""
    parts = {"": application, **application.mounts}
    return [
        {
            "component": component,
            "path": path,
            "kind": function.kind.value,
            "public": function.is_public,
            "where": function.where,
        }
        for component, part in parts.items()
        for path, function in sorted(part.functions.items())
        if not path.startswith("_")
    ]


_REFUSED: Final = (PushRefused, StoreFull, LimitExceeded, OutOfRetention, SnapshotTooOld)


def _explained(handler: Handler) -> Handler:
    """`handler`, whose refusals are told to the administrator as they are."""

    async def explained(request: Request) -> Response:
        try:
            return await handler(request)
        except RequestRefused:
            raise
        except _REFUSED as error:
            raise RequestRefused(409, error.code, str(error)) from None
        except UsageError as error:
            raise RequestRefused(400, error.code, str(error)) from None

    return explained


def _by_creation(
    snapshot: Snapshot, table: TableInfo, is_descending: bool, after: bytes
) -> Iterator[tuple[bytes, bytes]]:
    """Entries and images of a table's documents in the order of their creation, or against it."""
    prefix = table.indexes["by_creation_time"].prefix
    lower, upper = prefix, (int.from_bytes(prefix, "big") + 1).to_bytes(4, "big")
    if after and is_descending:
        upper = prefix + after
    elif after:
        lower = prefix + after + b"\0"
    for key, _ in snapshot.range(Tree.ENTRIES, lower, upper, reverse=is_descending):
        image = snapshot.get(Tree.ROWS, table.row_prefix + key[-INTERNAL_BYTES:])
        assert image is not None, "an entry leads to a row"
        yield key[len(prefix) :], image


async def _shown(found: Iterator[bytes], catalog: Catalog) -> list[dict[str, Json]]:
    """Encoded records in short; others get their turn meanwhile."""
    shown: list[dict[str, Json]] = []
    size = 0
    for data in found:
        shown.append(in_short(decode_record(data), catalog))
        size += len(data)
        if size > SLICE_BYTES:
            size = 0
            await trio.lowlevel.checkpoint()
    return shown


async def _now_and_then(rows: int) -> None:
    if rows % SLICE_ROWS == 0:
        await trio.lowlevel.checkpoint()


def _whole(value: Json) -> int:
    """
    Raises:
        RequestRefused: it is no whole number, as a number or in digits.
    """
    if isinstance(value, str) and value.isdecimal() and len(value) <= _DIGITS_MAX:
        return int(value)
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise bad_json(
        "ts has to be a whole number, in a string (JSON numbers are not exact there), "
        f"not {brief(repr(value))}"
    )


def _number(request: Request, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > _DIGITS_MAX:
        raise RequestRefused(
            400, "BadParameter", f"{name} has to be a whole number, not {brief(text)!r}"
        )
    return int(text)


def _bytes(request: Request, name: str) -> bytes:
    text = request.query.get(name, "")
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise RequestRefused(
            400, "BadParameter", f"{name} is what an answer said, not {text!r}"
        ) from None


def _line(found: Findings, *, is_done: bool) -> bytes:
    report = {
        "done": is_done,
        "ts": found.ts,
        "records": found.records,
        "rows": found.rows,
        "entries": found.entries,
        "problems": found.problems,
    }
    return msgspec.json.encode(report) + b"\n"
