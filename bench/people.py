"""
A table of people with three indexes, and a loader that fills it as the engine would have.

The loader writes LMDB itself, in the order of the keys: rows, entries and count are those that
commits would have left, and the log begins after them, as if it had been trimmed.  Person `n` of
`count` is the same whoever asks, and has a place of its own, far from that of person `n + 1`, in
each of the indexes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.pool import AsyncResult, Pool
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb
import trio

from bench.harness import progress
from engine.app.schema import Schema, Table
from engine.app.types import Document
from engine.host import Engine
from engine.indexes.catalog import IndexInfo, TableInfo
from engine.indexes.counts import META_PREFIX
from engine.indexes.entries import entry_key, stored
from engine.indexes.recovery import Recovered, recover
from engine.log.records import encode_record, row_hash, ts_key
from engine.log.retention import ANCHOR_NAME, Anchor, encode_anchor
from engine.model.codec import encode
from engine.model.commits import Kind, Source
from engine.model.ids import id_of, make_internal, row_key
from engine.store.interface import Tree
from engine.store.lmdb_environment import DATA_FILE, Trees, open_environment, open_trees
from engine.store.lmdb_store import LMDB_FOLDER, LmdbSnapshot

FIRST_MS: Final = 1_700_000_000_000
"""When the first person was added; the others came a millisecond after each other."""
PART: Final = 20_000
"""Rows or entries of one transaction."""
WORKERS: Final = 2
AHEAD: Final = 8
"""Parts that they may have ready before one is written."""
BIO: Final = "Knows a thing or two, and tells them when asked."

T = TypeVar("T")
Doc = dict[str, Any]
Pair = tuple[bytes, bytes]


class Person(Document):
    name: str
    email: str
    score: float
    bio: str


INDEXES: Final = {"by_name": ["name"], "by_email": ["email"], "by_score": ["score"]}


def schema_with(**more: list[str]) -> Schema:
    """The schema of the table, with `more` indexes than the three."""
    people = Table(Person)
    for name, fields in {**INDEXES, **more}.items():
        people.index(name, fields)
    return Schema(people=people)


schema = schema_with()

FACTORS: Final = {"by_name": 15_485_863, "by_email": 32_452_843, "by_score": 49_979_687}
"""Primes that divide no count in use, so that each index has its people in another order."""


def fields_of(n: int, count: int) -> Doc:
    """What a function would insert as person `n` of `count`."""
    return {
        "name": f"name {n * FACTORS['by_name'] % count:08}",
        "email": f"{n * FACTORS['by_email'] % count:08}@example.org",
        "score": n * FACTORS["by_score"] % count,
        "bio": BIO,
    }


def internal_of(n: int) -> bytes:
    """The internal id of person `n`; they rise with `n`, as do the times of creation."""
    dice = (n + 1) * 0x9E37_79B9_7F4A_7C15 % 2**64
    return make_internal(FIRST_MS + n, dice.to_bytes(8, "big"))


def creation_time_of(n: int) -> float:
    return FIRST_MS + n + 0.5


def data_file(directory: Path) -> Path:
    """LMDB's file in the directory of an engine."""
    return directory / LMDB_FOLDER / DATA_FILE


def load(directory: Path, count: int) -> None:
    """
    Make `directory` that of an engine with `count` people, whose log has been trimmed.

    Nothing is durable, and nothing is whole, before it returns.
    """
    trio.run(_deploy, directory)
    path = directory / LMDB_FOLDER
    with (
        _mapping(count) as mapped,
        open_environment(path, readonly=False, sync=False) as env,
    ):
        trees = open_trees(env, path, reader="bench")
        with env.begin() as txn:
            found = recover(LmdbSnapshot(txn, trees))
        table = found.catalog.by_name["", "people"]
        state_hash = found.state_hash
        for rows, hashed in _told(mapped(partial(_rows, table, count), _places(count)), "rows"):
            state_hash += hashed
            _write(env, trees[Tree.ROWS], rows)
        for index, _, _ in table.maintained:
            parts = mapped(partial(_entries, index, count), _places(count))
            for entries in _told(parts, index.name):
                _write(env, trees[Tree.ENTRIES], entries)
        _end(env, trees, found, state_hash % 2**128, {table.number: count})
        env.sync(True)


async def _deploy(directory: Path) -> None:
    async with Engine.open(directory, app=[schema]):
        pass


@contextmanager
def _mapping(count: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """`map`, in processes of their own where it is worth it: to encode takes most of the time."""
    if count <= PART:
        yield map
    else:
        with get_context("spawn").Pool(WORKERS) as pool:
            yield partial(_mapped_by, pool)


def _mapped_by(pool: Pool, function: Callable[[range], T], places: Sequence[range]) -> Iterator[T]:
    """As `pool.imap`, which would not wait for whoever takes the results."""
    waiting: deque[AsyncResult[T]] = deque()
    for part in places:
        waiting.append(pool.apply_async(function, (part,)))
        if len(waiting) > AHEAD:
            yield waiting.popleft().get()
    for result in waiting:
        yield result.get()


def _places(count: int) -> list[range]:
    """The parts of a tree that are written one after the other."""
    return [range(first, min(first + PART, count)) for first in range(0, count, PART)]


def _rows(table: TableInfo, count: int, places: range) -> tuple[list[Pair], int]:
    """The rows of some people, and the sum of their hashes."""
    rows = []
    for n in places:
        key = row_key(table.number, internal_of(n))
        doc = {**fields_of(n, count), "_id": id_of(key), "_creationTime": creation_time_of(n)}
        rows.append((key, encode(doc)))
    return rows, sum(row_hash(key, image) for key, image in rows)


def _entries(index: IndexInfo, count: int, places: range) -> list[Pair]:
    """The entries at some places of an index."""
    step = pow(FACTORS[index.name], -1, count) if index.name in FACTORS else 1
    entries = []
    for place in places:
        n = place * step % count
        doc = {**fields_of(n, count), "_creationTime": creation_time_of(n)}
        entries.append(stored(index.prefix, entry_key(index, doc, internal_of(n))))
    return entries


def _told(parts: Iterable[T], what: str) -> Iterator[T]:
    began = time.perf_counter()
    for done, part in enumerate(parts, 1):
        yield part
        if done % 10 == 0:
            progress(f"{what}: {done * PART:,} in {time.perf_counter() - began:.0f} s")


def _write(env: lmdb.Environment, tree: lmdb._Database, pairs: Sequence[Pair]) -> None:
    with env.begin(write=True) as txn, txn.cursor(tree) as cursor:
        _, added = cursor.putmulti(pairs)
        assert added == len(pairs), "each is there once"


def _end(
    env: lmdb.Environment,
    trees: Trees,
    found: Recovered,
    state_hash: int,
    counts: dict[int, int],
) -> None:
    """Put the anchor where the load was, with a record that says so and is the whole log."""
    anchor = Anchor(found.ts + 1, found.record_hash, state_hash)
    record, _ = encode_record(
        ts=anchor.ts + 1,
        epoch=found.epoch,
        kind=Kind.TRIM,
        writes=(),
        covered=anchor.fields(),
        source=Source(path="_bench:load"),
        state_hash=state_hash,
        previous=anchor.record_hash,
    )
    with env.begin(write=True) as txn:
        txn.drop(trees[Tree.LOG], delete=False)
        txn.put(ts_key(anchor.ts + 1), record, db=trees[Tree.LOG])
        txn.put(ANCHOR_NAME, encode_anchor(anchor), db=trees[Tree.META])
        for number, count in counts.items():
            name = META_PREFIX + number.to_bytes(4, "big")
            txn.put(name, count.to_bytes(8, "big"), db=trees[Tree.META])
