"""The same table of people in LMDB and cbor2 alone, as one would write it by hand."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import cbor2
import lmdb

from engine.indexes.catalog import TableInfo
from engine.indexes.entries import entry_key, stored
from engine.model.ids import id_of, make_internal, row_key, row_key_of
from engine.model.keys import encode_key
from engine.model.limits import STORE_MAP_BYTES
from engine.store.interface import Tree
from engine.store.lmdb_environment import TREE_NAMES

Doc = dict[str, Any]


class Newcomer(NamedTuple):
    """A person who is not there yet; `fields` is all that is told to an engine."""

    fields: Doc
    key: bytes
    doc: Doc
    entries: list[bytes]


class BarePeople:
    """
    Args:
        file: a copy of an engine's.
        table: how the engine knows it, for its keys are the same.
    """

    def __init__(self, file: Path, table: TableInfo) -> None:
        self.table = table
        self._env = lmdb.open(
            str(file), subdir=False, map_size=STORE_MAP_BYTES, max_dbs=len(TREE_NAMES)
        )
        self._rows = self._env.open_db(TREE_NAMES[Tree.ROWS])
        self._entries = self._env.open_db(TREE_NAMES[Tree.ENTRIES])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._env.close()

    def read_all(self) -> None:
        with self._env.begin() as txn:
            for tree in (self._rows, self._entries):
                deque(txn.cursor(tree), maxlen=0)

    def gets(self, people: Sequence[str]) -> list[Doc]:
        with self._env.begin(self._rows) as txn:
            return [cbor2.loads(txn.get(row_key_of(person), b"")) for person in people]

    def place(self, name: str) -> bytes:
        """Where the people of a name begin."""
        return self.table.indexes["by_name"].prefix + encode_key([name])

    def range(self, start: bytes, count: int) -> tuple[list[Doc], bytes]:
        """The next people by name, and the key of the last."""
        table, rows, index, last = self.table.row_prefix, self._rows, start[:4], start
        docs: list[Doc] = []
        with self._env.begin() as txn, txn.cursor(self._entries) as cursor:
            if cursor.set_range(start):
                for key in islice(cursor.iternext(values=False), count):
                    if not key.startswith(index):
                        break
                    docs.append(cbor2.loads(txn.get(table + key[-16:], b"", rows)))
                    last = key
        return docs, last

    def newcomer(self, fields: Doc, dice: bytes) -> Newcomer:
        """With its keys, which are no part of what is measured."""
        internal = make_internal(time.time_ns() // 1_000_000, dice)
        key = row_key(self.table.number, internal)
        doc = {**fields, "_id": id_of(key), "_creationTime": time.time_ns() / 1e6}
        return Newcomer(fields, key, doc, self._entries_of(key, doc))

    def insert(self, newcomers: Sequence[Newcomer]) -> None:
        """In one durable transaction."""
        with self._env.begin(write=True) as txn:
            for one in newcomers:
                txn.put(one.key, cbor2.dumps(one.doc), db=self._rows)
                for entry in one.entries:
                    txn.put(entry, b"", db=self._entries)

    def rescore(self, change: tuple[str, float]) -> None:
        """In one durable transaction."""
        key = row_key_of(change[0])
        with self._env.begin(write=True) as txn:
            doc = cbor2.loads(txn.get(key, b"", self._rows))
            txn.delete(self._score_of(key, doc), db=self._entries)
            doc["score"] = change[1]
            txn.put(key, cbor2.dumps(doc), db=self._rows)
            txn.put(self._score_of(key, doc), b"", db=self._entries)

    def _entries_of(self, key: bytes, doc: Doc) -> list[bytes]:
        return [
            stored(prefix, entry_key(index, doc, key[4:]))[0]
            for index, prefix, _ in self.table.maintained
        ]

    def _score_of(self, key: bytes, doc: Doc) -> bytes:
        index = self.table.indexes["by_score"]
        return index.prefix + entry_key(index, doc, key[4:])


class BarePages:
    """Pages of `count` people one after the other, `pages` from each place that is begun at."""

    def __init__(self, people: BarePeople, count: int, pages: int) -> None:
        self._people = people
        self._count = count
        self._pages = pages
        self._left = 0
        self._place = b""

    def next(self, name: str) -> None:
        if not self._left:
            self._place, self._left = self._people.place(name), self._pages
        found, last = self._people.range(self._place, self._count)
        self._place = last + b"\0"
        self._left = 0 if len(found) < self._count else self._left - 1
