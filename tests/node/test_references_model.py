"""
Random documents that refer to each other, against a model that is a dictionary.

The model says it in the shortest way: what is deleted takes with it all that cascades to it,
unless somebody who stays is in the way.
"""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import trio

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import ConvexError, DocumentNotFound, SchemaViolation
from engine.indexes.verify import verify
from engine.kernel.runtime import VirtualRuntime
from engine.model.relations import OnDelete
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ask, mutate, serving

FIELDS: dict[str, dict[str, tuple[str, OnDelete]]] = {
    "a": {"parent": ("a", "cascade"), "keeper": ("c", "restrict")},
    "b": {"owner": ("a", "restrict"), "peer": ("b", "set_null"), "twin": ("c", "cascade")},
    "c": {
        "first": ("a", "cascade"),
        "second": ("b", "cascade"),
        "third": ("b", "set_null"),
        "fourth": ("b", "set_null"),
    },
}
"""By table and field: which table it refers to, and what becomes of it."""


def schema() -> Schema:
    tables = {}
    for name, fields in FIELDS.items():
        table = Table({field: v.nullable(v.id(target)) for field, (target, _) in fields.items()})
        for field, (_, on_delete) in fields.items():
            table = table.index(f"by_{field}", [field]).reference(field, on_delete=on_delete)
        tables[name] = table
    return Schema(**tables)


Steps = list[Any]
Ids = dict[str, Any]
"""Of the documents that steps call by labels, also of those that are gone."""


@mutation
async def run(ctx: MutationCtx, steps: Steps, ids: Ids, fails: bool = False) -> Any:
    answers = []
    for step in steps:
        try:
            answers.append(await take(ctx, step, ids))
        except (SchemaViolation, DocumentNotFound):
            answers.append("refused")
        except ConvexError as failed:
            answers.append(failed.data["answers"])
            ids.update(failed.data["ids"])
    if fails:
        raise ConvexError({"answers": answers, "ids": ids})
    return {"answers": answers, "ids": ids}


async def take(ctx: MutationCtx, step: Any, ids: Ids) -> Any:
    match step:
        case "nested", steps, fails:
            inner = await ctx.run_mutation(run, steps=steps, ids=ids, fails=fails)
            ids.update(inner["ids"])
            return inner["answers"]
        case "insert", label, table, fields:
            ids[label] = await ctx.db.insert(table, {n: x and ids[x] for n, x in fields.items()})
        case "patch", label, fields:
            await ctx.db.patch(ids[label], {n: x and ids[x] for n, x in fields.items()})
        case "delete", label:
            await ctx.db.delete(ids[label])
    return "done"


@query
async def everything(ctx: QueryCtx) -> Any:
    return {name: await ctx.db.query(name).collect() for name in FIELDS}


Documents = dict[str, tuple[str, dict[str, str | None]]]
"""By label: the table and the fields."""


class Refused(Exception):
    """As `SchemaViolation` and `DocumentNotFound`."""


class Model:
    def __init__(self) -> None:
        self.documents: Documents = {}
        self.labels: list[str] = []
        """Of all documents that ever were, in whatever transaction."""

    def run(self, steps: Steps, *, fails: bool = False) -> list[Any]:
        before = copy.deepcopy(self.documents)
        answers: list[Any] = []
        for step in steps:
            try:
                answers.append(self._take(step))
            except Refused:
                answers.append("refused")
        if fails:
            self.documents = before
        return answers

    def _take(self, step: Any) -> Any:
        match step:
            case "nested", steps, fails:
                return self.run(steps, fails=fails)
            case "insert", label, table, fields:
                self._look(fields)
                self.documents[label] = (table, dict(fields))
            case "patch", label, fields:
                _, own = self._existing(label)
                self._look({n: x for n, x in fields.items() if own[n] != x})
                own.update(fields)
            case "delete", label:
                self._existing(label)
                self._delete(label)
        return "done"

    def _existing(self, label: str) -> tuple[str, dict[str, str | None]]:
        if label not in self.documents:
            raise Refused
        return self.documents[label]

    def _look(self, fields: dict[str, str | None]) -> None:
        if any(label is not None and label not in self.documents for label in fields.values()):
            raise Refused

    def _delete(self, label: str) -> None:
        doomed = {label}
        while more := {one for one, _ in self._referring(doomed, "cascade")} - doomed:
            doomed |= more
        if {one for one, _ in self._referring(doomed, "restrict")} - doomed:
            raise Refused
        for one, field in self._referring(doomed, "set_null"):
            self.documents[one][1][field] = None
        for one in doomed:
            del self.documents[one]

    def _referring(self, targets: set[str], on_delete: OnDelete) -> list[tuple[str, str]]:
        return [
            (label, field)
            for label, (table, fields) in self.documents.items()
            for field, target in fields.items()
            if target in targets and FIELDS[table][field][1] == on_delete
        ]


class History:
    """Makes steps, and follows what the model and the node make of them."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.model = Model()
        self.tables: dict[str, str] = {}
        """Of all labels."""
        self.ids: Ids = {}

    def steps(self, depth: int = 0) -> Steps:
        return [self._step(depth) for _ in range(self.dice.randint(1, 5))]

    def _step(self, depth: int) -> Any:
        verb = self.dice.choice(["insert", "insert", "insert", "patch", "delete", "nested"])
        if verb == "nested" and depth < 3:
            return ["nested", self.steps(depth + 1), self.dice.random() < 0.4]
        known = [label for label in self.tables if label in self.ids]
        if verb in ("patch", "delete") and known:
            label = self.dice.choice(known[-12:])
            if verb == "delete":
                return ["delete", label]
            fields = self._fields(self.tables[label])
            return ["patch", label, {n: x for n, x in fields.items() if self.dice.random() < 0.6}]
        label, table = str(len(self.tables)), self.dice.choice(list(FIELDS))
        fields = self._fields(table)
        self.tables[label] = table
        return ["insert", label, table, fields]

    def _fields(self, table: str) -> dict[str, str | None]:
        return {field: self._target(target) for field, (target, _) in FIELDS[table].items()}

    def _target(self, table: str) -> str | None:
        """Mostly one that is there; those of steps before in the same run have no id yet."""
        labels = [one for one in self.ids if self.tables[one] == table][-4:]
        there = [one for one in labels if one in self.model.documents]
        if self.dice.random() < 0.1 and labels:
            return self.dice.choice(labels)
        return self.dice.choice(there) if there and self.dice.random() < 0.6 else None

    async def follow(self, node: Node) -> None:
        steps, fails = self.steps(), self.dice.random() < 0.1
        expected = self.model.run(steps, fails=fails)
        try:
            result = await mutate(node, run, steps=steps, ids=dict(self.ids), fails=fails)
        except ConvexError as failed:
            assert fails
            result = failed.data
        assert expected == result["answers"], steps
        self.ids = result["ids"]
        assert await self.stored(node) == self.model.documents

    async def stored(self, node: Node) -> Documents:
        labels: dict[Any, str | None] = {doc_id: label for label, doc_id in self.ids.items()}
        labels[None] = None
        return {
            str(labels[doc["_id"]]): (name, {field: labels[doc[field]] for field in FIELDS[name]})
            for name, docs in (await ask(node, everything)).items()
            for doc in docs
        }


@pytest.mark.parametrize("seed", range(12))
async def test_documents_that_refer_are_a_dictionary(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    history, store = History(seed), MemoryStore()

    async with serving([run, everything, schema()], store=store) as node:
        for _ in range(40):
            await history.follow(node)

    *_, found = verify(store.snapshot)
    assert [] == found.problems


@pytest.mark.parametrize("seed", range(12))
async def test_whoever_runs_beside_whom_nobody_refers_to_what_is_gone(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    history, store = History(seed), MemoryStore()
    runtime = VirtualRuntime(seed, interleaves=True)

    async with serving([run, everything, schema()], store=store, runtime=runtime) as node:
        for _ in range(8):
            await history.follow(node)

        async def go_on() -> None:
            for _ in range(10):
                await mutate(node, run, steps=history.steps(3), ids=dict(history.ids))

        async with trio.open_nursery() as beside:
            for _ in range(4):
                beside.start_soon(go_on)

        documents = await ask(node, everything)
        there = {doc["_id"] for docs in documents.values() for doc in docs} | {None}
        for name, docs in documents.items():
            assert {doc[field] for doc in docs for field in FIELDS[name]} <= there

    *_, found = verify(store.snapshot)
    assert [] == found.problems
