"""Checks of isolation, each taken away for the length of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final

from engine.app.registered import RegisteredFunction
from engine.app.schema import Schema
from engine.app.validators import Tables
from engine.errors import InvalidId
from engine.functions import actions, context, crons, database, deployment, handles, queries
from engine.functions.database import Reader
from engine.functions.deployment import Deployment, Place, SchemaChecks, Target
from engine.functions.handles import Handles
from engine.functions.queries import QueryBuilder
from engine.functions.results import Caller
from engine.indexes.catalog import TableInfo
from engine.model.ids import row_key_of
from engine.server import function_api, session
from engine.server.query_set import Query
from engine.transaction import transaction
from engine.transaction.transaction import Transaction

Plant = Callable[[], AbstractContextManager[None]]


@contextmanager
def _instead(owner: Any, name: str, planted: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, planted)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _replaced(owner: Any, name: str, planted: Any) -> Plant:
    return lambda: _instead(owner, name, planted)


# Functions.


def _internal_too() -> AbstractContextManager[None]:
    target = Deployment.target

    def lenient(self: Deployment, fn: object, component: str) -> Target:
        return target(self, fn, component)._replace(may_call_internal=True)

    return _instead(Deployment, "target", lenient)


def _named_for_later(
    self: Deployment, fn: object, component: str
) -> tuple[Place, RegisteredFunction]:
    place, path, _ = self.target(fn, component)
    return Place(place, path), self.find(path, None, component=place, may_call_internal=True)


def _proof_of_the_path() -> AbstractContextManager[None]:
    proof = Handles._proof
    return _instead(Handles, "_proof", lambda self, _component, path: proof(self, "", path))


def _proof_of_the_component() -> AbstractContextManager[None]:
    proof = Handles._proof
    return _instead(Handles, "_proof", lambda self, component, _path: proof(self, component, ""))


# Tables and ids.


def _table_of(self: Transaction, _component: str, key: bytes) -> TableInfo:
    table = self.catalog.by_number.get(int.from_bytes(key[:4], "big"))
    if table is None:
        raise InvalidId("no id")
    return table


def _table(self: Transaction, component: str, name: str) -> TableInfo | None:
    named = [table for (_, other), table in self.catalog.by_name.items() if other == name]
    return self.catalog.by_name.get((component, name)) or next(iter(named), None)


def _key(self: Reader, table_or_id: Any, id: Any) -> bytes:  # noqa: A002 - as in the original
    key = row_key_of(table_or_id if id is None else id)
    self._access.transaction.table_of(self._access.component, key)
    return key


def _tables_of(self: Deployment, _component: str) -> Tables:
    return partial(self._table_number, "")


def _fields_of_all() -> AbstractContextManager[None]:
    add = SchemaChecks._add

    def lenient(self: SchemaChecks, component: str, schema: Schema, resolve: Any) -> None:
        add(self, component, schema, partial(resolve.func, ""))

    return _instead(SchemaChecks, "_add", lenient)


# Jobs and crons.


def _cancel_any(owner: Any) -> Plant:
    def plant() -> AbstractContextManager[None]:
        cancel = owner.cancel_job

        def lenient(turn: Transaction, _owner: str, job_id: str) -> None:
            job = turn.own_row(row_key_of(job_id))
            cancel(turn, job["component"] if job else "", job_id)

        return _instead(owner, "cancel_job", lenient)

    return plant


def _present_any() -> AbstractContextManager[None]:
    return _instead(database, "_presenter", lambda _component: lambda doc: dict(doc))


def _find_any(owner: Any, finder: str = "find_cron") -> Plant:
    def lenient(turn: Transaction, _component: str, name: str) -> dict[str, Any] | None:
        return next((row for row in crons.stored_crons(turn) if row["cron"] == name), None)

    return _replaced(owner, finder, lenient)


# Who asks.


def _with_identity() -> AbstractContextManager[None]:
    replace = Caller._replace

    def lenient(self: Caller, **changed: Any) -> Caller:
        changed.pop("identity", None)
        return replace(self, **changed)

    return _instead(Caller, "_replace", lenient)


def _for_clients(owner: Any, name: str) -> Plant:
    read = getattr(owner, name)

    def lenient(path: str, json: Any, *, component: str, **rest: Any) -> Any:
        del component
        return read(path, json, component="", **rest)

    return _replaced(owner, name, lenient)


PLANTED: Final[Mapping[str, Plant]] = {
    "functions out of reach": _replaced(deployment, "is_within_reach", lambda *_: True),
    "internal functions of a child": _internal_too,
    "internal functions of a child, later": _replaced(Deployment, "find_named", _named_for_later),
    "the proof of a handle": _replaced(handles, "compare_digest", lambda *_: True),
    "the component in a proof": _proof_of_the_path,
    "the function in a proof": _proof_of_the_component,
    "tables of ids": _replaced(Transaction, "table_of", _table_of),
    "ids of the engine's rows": _replaced(Reader, "_key", _key),
    "components of names": _replaced(Transaction, "table", _table),
    "names of the engine's tables": _replaced(database, "user_table", database.table_name),
    "what is no name, to read": _replaced(queries, "is_identifier", lambda _: True),
    "what is no name, to write": _replaced(transaction, "is_identifier", lambda _: True),
    "tables of the engine that are read": _replaced(
        database, "READABLE_SYSTEM_TABLES", ("_scheduled_functions", "_crons", "_tables")
    ),
    "tables of ids in arguments": _replaced(Deployment, "tables_of", _tables_of),
    "tables of ids in documents": _fields_of_all,
    "whose query a cursor is of": _replaced(QueryBuilder, "_fingerprint", lambda *_: b"8 bytes."),
    "whose place a cursor is": _replaced(QueryBuilder, "_place", lambda *_: b"8 bytes."),
    "whose search a cursor is of": _replaced(
        QueryBuilder, "_search_fingerprint", lambda *_: b"8 bytes."
    ),
    "whose jobs a cursor is of": _replaced(QueryBuilder, "_whose", ""),
    "whose job is canceled": _cancel_any(context),
    "whose job an action cancels": _cancel_any(actions),
    "whose jobs are shown": _present_any,
    "whose cron is shown": _find_any(context),
    "whose cron is removed": _find_any(crons, "_stored"),
    "whose crons are listed": _replaced(
        context, "crons_of", lambda turn, _component: crons.stored_crons(turn)
    ),
    "that components know nobody": _with_identity,
    "that components have no variables": _replaced(
        Deployment, "environment_of", lambda self, _component: self.application.environment
    ),
    "that clients call no components": _for_clients(function_api, "call_arguments"),
    "that clients call none over a socket": _for_clients(session, "arguments_in_steps"),
    "that clients show nothing of them": _replaced(
        Query, "refusal_for", lambda self, _who: self.refusal
    ),
}
