"""What the database is: documents and jobs in dictionaries, read by going through all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cmp_to_key
from itertools import combinations
from typing import Any

from engine.model.values import UNDEFINED, Int64
from tests.node.database_app import MISSING, NOTES, UNIQUE, Indexes, has_kind
from tests.node.javascript import Doc, FilterFails, accepts, at_path, order, same, shown

Position = list[Any]
"""The values of a document by which an index places it."""


_ANY: Any = object()
"""An answer that nobody has given yet."""


class Refused(Exception):
    """What is asked is an error, or what is written forbidden."""


@dataclass
class Job:
    n: Any
    state: str = "pending"


@dataclass
class Model:
    docs: dict[str, Doc] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    notes: list[int] = field(default_factory=lambda: [0 for _ in NOTES])
    """How many there are, in each of their tables."""
    known: list[list[str]] = field(default_factory=lambda: [[], []])
    """Ids of all documents and jobs there ever were, in the order in which they came."""
    ts: int = 0
    """Of the newest commit."""

    def copy(self) -> Model:
        return Model(
            dict(self.docs),
            {job_id: replace(job) for job_id, job in self.jobs.items()},
            list(self.notes),
            [list(ids) for ids in self.known],
            self.ts,
        )

    # Writing

    def foresee(self, steps: list[Any]) -> Model:
        """What the steps will make of it, with ids and times that are made up."""
        then = self.copy()
        for step in steps:
            then._foresee(step)
        return then

    def _foresee(self, step: Any) -> None:
        verb, *given = step
        if verb in ("insert", "stamp"):
            made_up = {"_id": f"new {len(self.known[0])}", "_creationTime": 0}
            self._insert(given[0], _present(given[0]) | made_up)
        elif verb in ("patch", "replace", "delete"):
            self._follow(step, _ANY, ())
        elif verb == "nest" and not given[1]:
            for inner in given[0]:
                self._foresee(inner)

    def transact(self, steps: list[Any], answers: list[Any], indexes: Indexes) -> None:
        """Follow the steps of a commit at `ts`, and compare what was answered to each."""
        for step, answer in zip(steps, answers, strict=True):
            self._follow(step, answer, indexes)

    def _follow(self, step: Any, answer: Any, indexes: Indexes) -> None:
        verb, *given = step
        match verb:
            case "insert" | "stamp":
                stamp = {"a": Int64(self.ts)} if verb == "stamp" else {}
                self._insert({**given[0], **stamp}, answer)
            case "patch" | "replace" | "delete" if self.known[0]:
                doc_id = self.known[0][given[0] % len(self.known[0])]
                self._change(verb, doc_id, given[1] if len(given) > 1 else {}, answer)
            case "look":
                found, total = answer
                self.check_read(given[0], found, indexes)
                assert len(self.docs) == total
            case "ask":
                self.check_read(given[0], answer, indexes)
            case "nest":
                inner, fails = given
                assert fails is (answer is None)
                if not fails:
                    self.transact(inner, answer, indexes)
            case "note":
                self.notes[given[0]] += 1
                assert self.notes[given[0]] == answer
            case "schedule":
                self.known[1].append("")
                self.jobs[f"new {len(self.known[1])}"] = Job(given[0])
            case "cancel" if self.known[1]:
                job = list(self.jobs.values())[given[0] % len(self.known[1])]
                job.state = "canceled" if job.state == "pending" else job.state

    def _insert(self, fields: Doc, answer: Doc) -> None:
        doc_id = answer["_id"]
        assert doc_id not in self.known[0]
        self.known[0].append(doc_id)
        system = {"_id": doc_id, "_creationTime": answer["_creationTime"]}
        self.docs[doc_id] = _present(fields) | system
        assert same(self.docs[doc_id], answer), (self.docs[doc_id], answer)

    def _change(self, verb: str, doc_id: str, fields: Doc, answer: Any) -> None:
        old = self.docs.get(doc_id)
        if old is None:
            assert answer is _ANY or answer == MISSING
            return
        if verb == "delete":
            del self.docs[doc_id]
            assert answer is _ANY or answer is None
            return
        kept = old if verb == "patch" else {n: old[n] for n in ("_id", "_creationTime")}
        self.docs[doc_id] = _present({**kept, **fields})
        assert answer is _ANY or same(self.docs[doc_id], answer), (self.docs[doc_id], answer)

    def learn(self, known: list[list[str]]) -> None:
        """Now that it is durable, which ids the jobs got."""
        assert self.known[0] == known[0]
        self.jobs = dict(zip(known[1], self.jobs.values(), strict=True))
        self.known = [list(ids) for ids in known]

    def has_duplicates(self, indexes: Indexes) -> bool:
        """Whether two documents have the same in a unique index."""
        fields = dict(indexes).get(UNIQUE)
        if fields is None:
            return False
        keys = [[at_path(doc, path) for path in fields] for doc in self.docs.values()]
        whole = [key for key in keys if all(value is not UNDEFINED for value in key)]
        return any(same(a, b) for a, b in combinations(whole, 2))

    # Reading

    def check_read(self, spec: Any, found: Any, indexes: Indexes) -> None:
        """Compare what was found with what there is."""
        expected = self.read(spec, indexes)
        assert same(expected, found), (spec, expected, found)

    def read(self, spec: Any, indexes: Indexes) -> Any:
        """
        Raises:
            Refused: the read is an error.
        """
        end, n = spec["end"], spec["n"]
        most = {"take": n, "first": 1, "unique": 2, "for": n}.get(end)
        found: list[Doc] = []
        for doc in self.between(spec, indexes):
            if most is not None and len(found) == most:
                break
            if _passes(spec, doc):
                found.append(doc)
        if end == "unique" and len(found) > 1:
            raise Refused
        return (found[0] if found else None) if end in ("first", "unique") else found

    def between(self, spec: Any, indexes: Indexes) -> list[Doc]:
        """The documents in the bounds, in order."""
        found = [doc for doc in self.docs.values() if all(_holds(b, doc) for b in spec["bounds"])]
        found.sort(key=lambda doc: cmp_to_key(order)(place(doc, spec, indexes)))
        return found[::-1] if spec["order"] == "desc" else found

    def beyond(
        self, spec: Any, indexes: Indexes, after: Position | None, upto: Position | None
    ) -> Iterator[Doc]:
        """Those that come after one place and up to another; `None` is no bound."""
        sign = -1 if spec["order"] == "desc" else 1
        for doc in self.between(spec, indexes):
            here = place(doc, spec, indexes)
            if (after is None or order(here, after) * sign > 0) and (
                upto is None or order(here, upto) * sign <= 0
            ):
                yield doc


def _present(fields: Doc) -> Doc:
    return {name: value for name, value in fields.items() if shown(value) is not UNDEFINED}


def place(doc: Doc, spec: Any, indexes: Indexes) -> Position:
    """By what the read's index places the document."""
    fields = () if spec["index"] in ("by_id", "by_creation_time") else dict(indexes)[spec["index"]]
    tail = ("_id",) if spec["index"] == "by_id" else ("_creationTime", "_id")
    return [at_path(doc, path) for path in (*fields, *tail)]


def _holds(bound: Any, doc: Doc) -> bool:
    verb, path, value = bound
    decided = order(at_path(doc, path), shown(value))
    return {
        "eq": decided == 0,
        "gt": decided > 0,
        "gte": decided >= 0,
        "lt": decided < 0,
        "lte": decided <= 0,
    }[verb]


def _passes(spec: Any, doc: Doc) -> bool:
    try:
        passes = spec["filter"] is None or accepts(spec["filter"], doc)
    except FilterFails:
        raise Refused from None
    return passes and (spec["where"] is None or has_kind(doc, spec["where"]))
