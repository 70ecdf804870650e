"""
References and checks against a dictionary, driven by Hypothesis.

Documents of three tables refer to each other in rings and chains, with each `on_delete`. The model
says it in the shortest way: what is deleted takes with it all that cascades to it, unless somebody
who stays is in the way.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from trio._core import _run as trio_scheduler

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import ConvexError, DocumentNotFound, SchemaViolation
from engine.functions.results import MutationResult
from engine.functions.targets import call_target
from engine.indexes.verify import verify
from engine.model.relations import OnDelete
from engine.model.values import UNDEFINED
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, application, ask, ask_at
from tests.node.test_database_machine import UNHURRIED, Life, TrioThread, live

# The application.

REFERENCES: Final[dict[str, dict[str, tuple[str, OnDelete]]]] = {
    "folders": {"parent": ("folders", "cascade"), "home": ("pages", "cascade")},
    "pins": {
        "page": ("pages", "restrict"),
        "within": ("folders", "cascade"),
        "beside": ("pages", "set_null"),
        "over": ("pages", "set_null"),
    },
    "pages": {"folder": ("folders", "cascade"), "next": ("pages", "set_null")},
}
"""By table and field: which table it refers to, and what becomes of it."""
TARGETS: Final = {name: to for fields in REFERENCES.values() for name, (to, _) in fields.items()}
OWN: Final[dict[str, dict[str, Any]]] = {
    table: {**dict.fromkeys(fields), "mark": ""} for table, fields in REFERENCES.items()
}
"""The fields of a document that refers to nobody."""
ABSENT: Final = "over"
"""The field that is absent where it refers to nobody; others are null."""
LEADS: Final = "leads"
"""A page with this mark has to have another that is next."""

Step: TypeAlias = Any
Ids: TypeAlias = dict[str, Any]
"""Of the documents that steps call by labels, also of those that are gone."""
Ends: TypeAlias = Literal["catches", "stops", "breaks"]
"""What steps do about one that is refused: go on, or raise it; or go on and fail in the end."""


def schema() -> Schema:
    tables = {}
    for name, fields in REFERENCES.items():
        ids = {field: v.id(target) for field, (target, _) in fields.items()}
        table = Table(
            {field: v.optional(x) if field == ABSENT else v.nullable(x) for field, x in ids.items()}
            | {"mark": v.string()}
        )
        for field_, (_, on_delete) in fields.items():
            table = table.index(f"by_{field_}", [field_, "mark"])
            table = table.reference(field_, on_delete=on_delete)
        tables[name] = table
    checked = tables["pages"].check("is_led", lambda page: page["mark"] != LEADS or page["next"])
    return Schema(**{**tables, "pages": checked})


@mutation
async def transact(ctx: MutationCtx, steps: list[Step], ids: Ids, ends: Ends) -> Any:
    """As `part`; it is a commit of its own, also if nothing comes of the steps."""
    await ctx.db.insert("commits", {})
    return await _part(ctx, steps, ids, ends)


@mutation
async def part(ctx: MutationCtx, steps: list[Step], ids: Ids, ends: Ends) -> Any:
    """
    Do the steps, one after another.

    Returns:
        An answer for each step, and `ids` with what was added.
    """
    return await _part(ctx, steps, ids, ends)


async def _part(ctx: MutationCtx, steps: list[Step], ids: Ids, ends: Ends) -> Any:
    answers = []
    for step in steps:
        try:
            answers.append(await _take(ctx, step, ids))
        except (SchemaViolation, DocumentNotFound) as error:
            if ends == "stops":
                raise
            answers.append(type(error).__name__)
    if ends == "breaks":
        raise ConvexError([answers, ids])
    return [answers, ids]


async def _take(ctx: MutationCtx, step: Step, ids: Ids) -> Any:
    match step:
        case "nest", steps, ends:
            try:
                answers, known = await ctx.run_mutation(part, steps, ids, ends)
            except ConvexError as broken:
                answers, known = broken.data
            ids.update(known)
            return answers
        case ["look"]:
            return await _seen(ctx, ids)
        case "insert", label, table, fields:
            ids[label] = await ctx.db.insert(table, _present(_named(fields, ids)))
        case _, label, *_ if label not in ids:
            return "unknown"
        case "patch", label, fields:
            await ctx.db.patch(ids[label], _named(fields, ids))
        case "replace", label, fields:
            await ctx.db.replace(ids[label], _present(_named(fields, ids)))
        case "delete", label:
            await ctx.db.delete(ids[label])
    return "done"


def _named(fields: dict[str, Any], ids: Ids) -> dict[str, Any]:
    """Fields with ids for labels."""
    empty = {name: UNDEFINED if name == ABSENT else None for name in fields}
    return empty | {
        name: x if name == "mark" else ids[x]
        for name, x in fields.items()
        if name == "mark" or x in ids
    }


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not UNDEFINED}


async def _seen(ctx: QueryCtx, ids: Ids) -> Any:
    """The documents of each table, and what each index of references says, by labels."""
    labels: dict[Any, str | None] = {doc_id: label for label, doc_id in ids.items()}
    labels[None] = None
    tables: dict[str, Any] = {}
    for table, references in REFERENCES.items():
        docs = await ctx.db.query(table).collect()
        assert len(docs) == await ctx.db.count(table)
        for doc in docs:
            referred = {name: labels[doc.get(name)] for name in references}
            tables[str(labels[doc["_id"]])] = [table, {**referred, "mark": doc["mark"]}]
    referring: dict[str, Any] = {}
    for table, references in REFERENCES.items():
        for name in references:
            by_target = ctx.db.query(table).with_index(f"by_{name}")
            found = [[labels[doc.get(name)], labels[doc["_id"]]] async for doc in by_target]
            referring[name] = sorted(pair for pair in found if pair[0] is not None)
    return [tables, referring]


@query
async def look(ctx: QueryCtx, ids: Ids) -> Any:
    return await _seen(ctx, ids)


APPLICATION: Final = application(transact, part, look, schema())
LIMITS: Final = replace(UNHURRIED, retry_backoff_s=0.0)
"""The clock stands still: who was refused runs again at once."""

# The model.


class Refused(Exception):
    """As the error whose name it has."""


@dataclass
class Model:
    docs: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """By label: the table and the fields."""
    known: set[str] = field(default_factory=set)
    """The labels that have ids: of all who ever were, in whatever transaction."""

    def run(self, steps: list[Step], ends: Ends) -> list[Any]:
        """
        Returns:
            An answer for each step.

        Raises:
            Refused: the first that is, of steps that stop.
        """
        before, answers = copy.deepcopy(self), []
        for step in steps:
            try:
                answers.append(self._take(step))
            except Refused as refused:
                if ends == "stops":
                    self.docs, self.known = before.docs, before.known
                    raise
                answers.append(str(refused))
        if ends == "breaks":
            self.docs = before.docs
        return answers

    def seen(self) -> Any:
        referring = {
            name: sorted([x[name], label] for label, (_, x) in self.docs.items() if x.get(name))
            for name in TARGETS
        }
        return [{label: [t, dict(x)] for label, (t, x) in self.docs.items()}, referring]

    def _take(self, step: Step) -> Any:
        match step:
            case "nest", steps, ends:
                return self.run(steps, ends)
            case ["look"]:
                return self.seen()
            case "insert", label, table, fields:
                self._put(label, table, {}, fields)
                self.known.add(label)
            case _, label, *_ if label not in self.known:
                return "unknown"
            case _, label, *_ if label not in self.docs:
                raise Refused("DocumentNotFound")
            case "patch", label, fields:
                table, old = self.docs[label]
                self._put(label, table, old, fields)
            case "replace", label, fields:
                self._put(label, self.docs[label][0], {}, fields)
            case "delete", label:
                self._delete(label)
        return "done"

    def _put(self, label: str, table: str, old: dict[str, Any], fields: dict[str, Any]) -> None:
        known = {n: x if n == "mark" or x in self.known else None for n, x in fields.items()}
        new = {**old, **known}
        are_there = {new[name] for name in REFERENCES[table]} - {None} <= self.docs.keys()
        if not are_there or not _is_led(new):
            raise Refused("SchemaViolation")
        self.docs[label] = (table, new)

    def _delete(self, label: str) -> None:
        doomed = {label}
        while more := {one for one, _ in self._referring(doomed, "cascade")} - doomed:
            doomed |= more
        left = {one: dict(x) for one, (_, x) in self.docs.items() if one not in doomed}
        for one, name in self._referring(doomed, "set_null"):
            left.get(one, {})[name] = None
        in_the_way = any(one in left for one, _ in self._referring(doomed, "restrict"))
        if in_the_way or not all(_is_led(fields) for fields in left.values()):
            raise Refused("SchemaViolation")
        self.docs = {one: (self.docs[one][0], fields) for one, fields in left.items()}

    def _referring(self, targets: set[str], on_delete: OnDelete) -> Iterator[tuple[str, str]]:
        for label, (table, fields) in self.docs.items():
            for name, (_, becomes) in REFERENCES[table].items():
                if fields[name] in targets and becomes == on_delete:
                    yield label, name


def _is_led(fields: dict[str, Any]) -> bool:
    return fields["mark"] != LEADS or "next" not in fields or fields["next"] is not None


# What is drawn.

places = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5])
marks = st.sampled_from(["", "", LEADS])
whole = st.fixed_dictionaries({**dict.fromkeys(TARGETS, places), "mark": marks})
some = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(TARGETS, places | st.none()), "mark": marks}
)
inserts = st.tuples(st.just("insert"), st.sampled_from(list(REFERENCES)), whole | some)
writes = st.one_of(
    inserts,
    st.tuples(st.sampled_from(["patch", "patch", "replace"]), places, some),
    st.tuples(st.just("delete"), st.sampled_from(["folders", "pages", "pages", "pins"]), places),
)
FABRIC: Final = [
    ("insert", "pages", {}),
    ("insert", "pages", {"next": 0}),
    ("insert", "pages", {"next": 1, "mark": LEADS}),
]
"""The first may not go: the last would be led by none, as is seen after the second is cleared."""
all_ends: st.SearchStrategy[Ends] = st.sampled_from(["catches", "catches", "stops", "breaks"])


def steps(depth: int = 0) -> st.SearchStrategy[list[Any]]:
    """What a transaction does, where documents are named by places."""
    kinds = [writes, writes, st.just(("look",))]
    if depth < 2:
        kinds.append(st.tuples(st.just("nest"), steps(depth + 1), all_ends))
    return st.lists(st.one_of(kinds), min_size=2, max_size=6)


class ReferencesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        # Which of several tasks comes first is trio's choice, by dice of its own.
        setattr(trio_scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010
        trio_scheduler._r.seed(0)
        self.trio = TrioThread()
        self.store = MemoryStore()
        self.lives = 0
        self.model = Model()
        self.ids: Ids = {}
        self.tables: dict[str, str] = {}
        """Of all labels."""
        self.states: list[tuple[int, Model]] = []

    @initialize(found=st.lists(inserts, min_size=4, max_size=8))
    def begin(self, found: list[Any]) -> None:
        self.open()
        self.transact([*found, *FABRIC], "catches")

    def teardown(self) -> None:
        try:
            if self.lives:
                self.close()
        finally:
            self.trio.stop()

    @rule(todo=steps(), ends=all_ends)
    def transact(self, todo: list[Any], ends: Ends) -> None:
        labelled = self.labelled(todo, list(self.tables))
        expected: Any
        try:
            expected = self.model.run(labelled, ends)
        except Refused as refused:
            expected = str(refused)
        result = self.trio.run(self.call, labelled, ends)
        self.follow(expected, result)
        self.compare()

    @rule(todo=st.lists(writes, min_size=3, max_size=8), ends=all_ends)
    def write(self, todo: list[Any], ends: Ends) -> None:
        """Write, perhaps in a nested transaction, and after that once more."""
        self.transact([("nest", todo[:-1], ends), todo[-1]], "catches")

    @rule(those=st.lists(st.lists(writes, min_size=2, max_size=5), min_size=2, max_size=4))
    def transact_beside(self, those: list[list[Any]]) -> None:
        """They know nothing of each other, and are what they are one after another."""
        known = list(self.tables)
        labelled = [self.labelled(todo, list(known)) for todo in those]
        ids, results = dict(self.ids), self.trio.run(self.call_all, labelled)
        for result, todo in sorted(results, key=lambda found: found[0].ts or 0):
            assert result.failure is None, result.failure
            self.model.known = set(ids)
            self.follow(self.model.run(todo, "catches"), result)
        self.model.known = set(self.ids)
        self.compare()

    @rule(has_crashed=st.booleans(), back=places)
    def restart(self, has_crashed: bool, back: int) -> None:
        """Have another life, and look at a state of one before."""
        store = self.trio.run_sync(self.store.durable_copy) if has_crashed else self.store
        self.close()
        self.store = store
        self.open()
        self.compare()
        ts, model = self.states[-1 - back % len(self.states)]
        assert model.seen() == self.trio.run(ask_at, self.life.node, ts, look, self.ids)

    # Within.

    def open(self) -> None:
        self.lives += 1
        # In every other life transactions run beside each other, in those between in a lane.
        begin = partial(live, interleaves=self.lives % 2 == 1)
        self.life: Life = self.trio.run(
            self.trio.nursery.start, begin, self.store, APPLICATION, self.lives, LIMITS
        )

    def close(self) -> None:
        self.trio.run(self.life.close)
        *_, findings = verify(self.store.snapshot)
        assert [] == findings.problems

    def labelled(self, todo: list[Any], labels: list[str]) -> list[Step]:
        """
        The steps with labels for places, counted back from the newest.

        Args:
            labels: which they may name; grows by those of what they insert.
        """
        return [self._labelled(step, labels) for step in todo]

    def _labelled(self, step: Any, labels: list[str]) -> Step:
        match step:
            case "nest", todo, ends:
                return ["nest", self.labelled(todo, labels), ends]
            case "insert", table, wished:
                label, fields = str(len(self.tables)), self.fields(table, wished, labels)
                self.tables[label] = table
                labels.append(label)
                return ["insert", label, table, OWN[table] | fields]
            case "patch" | "replace" as verb, place, wished:
                label = labels[-1 - place % len(labels)]
                table = self.tables[label]
                fields = self.fields(table, wished, labels)
                return [verb, label, fields if verb == "patch" else OWN[table] | fields]
            case "delete", table, place:
                return ["delete", self.label(table, place, labels)]
        return ["look"]

    def fields(self, table: str, wished: dict[str, Any], labels: list[str]) -> dict[str, Any]:
        """Those that documents of the table have."""
        return {
            name: x if name == "mark" else self.label(TARGETS[name], x, labels)
            for name, x in wished.items()
            if name in OWN[table]
        }

    def label(self, table: str, place: int | None, labels: list[str]) -> str | None:
        found = [one for one in labels if self.tables[one] == table]
        return None if place is None or not found else found[-1 - place % len(found)]

    async def call(self, steps: list[Step], ends: Ends) -> MutationResult:
        component, path, raw = call_target(transact, (steps, self.ids, ends), {}, "")
        functions = self.life.node.functions
        return await functions.mutation(path, raw, caller=ADMIN, component=component)

    async def call_all(self, those: list[list[Step]]) -> list[tuple[MutationResult, list[Step]]]:
        results = []

        async def call(todo: list[Step]) -> None:
            results.append((await self.call(todo, "catches"), todo))

        async with trio.open_nursery() as nursery:
            for todo in those:
                nursery.start_soon(call, todo)
        return results

    def follow(self, expected: Any, result: MutationResult) -> None:
        """Compare what was answered, and learn which ids were given."""
        error = result.failure and result.failure.error
        if isinstance(error, SchemaViolation | DocumentNotFound):
            assert expected == type(error).__name__, error
            return
        assert error is None or isinstance(error, ConvexError), error
        answers, ids = error.data if isinstance(error, ConvexError) else result.value
        assert expected == answers
        self.ids |= ids

    def compare(self) -> None:
        assert self.model.known == set(self.ids)
        assert self.model.seen() == self.trio.run(ask, self.life.node, look, self.ids)
        self.states.append((self.life.node.published.value, copy.deepcopy(self.model)))


ReferencesMachine.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=12,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
TestReferences = pytest.mark.timeout(900)(ReferencesMachine.TestCase)
"""A few seconds, unless it finds something: then it is made small for up to five minutes."""
