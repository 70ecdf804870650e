"""
From documents to index entries: the one rule that staging, recovery and `verify` share.

A stored entry key is the index's prefix followed by the entry key: the encoded
values of the declared fields, then those of `_creationTime` and the document's
16 id bytes, which are of a fixed size.

    short     prefix, fields, tail                       value: nothing
    bucketed  prefix, head of fields, digest, tail       value: the rest of the fields

Fields that do not fit LMDB are stored under their head and their digest.  So
entries with the same fields lie together, in order, and are found by a seek;
those whose fields only begin alike share a bucket, and are put in order when
they are read.  Every stored key of the full length is bucketed, and no other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct

from engine.errors import IndexNotFound
from engine.indexes.catalog import (
    SEARCHED,
    Catalog,
    IndexInfo,
    IndexKind,
    IndexState,
    TableInfo,
)
from engine.indexes.text.words import TextEntry
from engine.indexes.text.words import entry_of as text_entry
from engine.model.commits import RowWrite
from engine.model.keys import encode_key, end_of_values, past
from engine.model.limits import (
    ENTRY_DIGEST_BYTES,
    ENTRY_HEAD_BYTES,
    ENTRY_TAIL_BYTES,
    STORE_KEY_BYTES_MAX,
)
from engine.model.reads import Content
from engine.model.values import UNDEFINED, get_path

_BUCKETED_BYTES_MIN: Final = ENTRY_HEAD_BYTES + ENTRY_TAIL_BYTES

SLICE_WRITES: Final = 1_024
"""Of a commit, followed before others get their turn: some five milliseconds for each index."""
SLICE_CONTENTS: Final = 64
"""Likewise of an index that has whole texts."""
SLICE_BYTES: Final = 1 << 16
"""Or so many bytes of rows, before and after; one is the least."""

Change = tuple[bytes, bytes, bytes | None]
"""Index prefix, entry key, and the row key it leads to; `None` removes the entry."""


def entry_key(index: IndexInfo, doc: dict[str, Any], internal: bytes) -> bytes:
    """The key of `doc` in `index`, without the index's prefix."""
    values = [
        doc.get(path[0], UNDEFINED) if len(path) == 1 else get_path(doc, ".".join(path))
        for path in index.fields
    ]
    return encode_key(values) + internal


def changes(table: TableInfo, write: RowWrite) -> list[Change]:
    """What `write` does to the entries of its table."""
    found: list[Change] = []
    before, after = write.before_doc, write.after_doc
    internal = write.key[4:]
    for index, prefix, fields in table.maintained:
        if before is not None and after is not None:
            if fields is not None and _same_objects(before, after, fields):
                continue
            old, new = entry_key(index, before, internal), entry_key(index, after, internal)
            if old != new:
                found += ((prefix, old, None), (prefix, new, write.key))
        elif before is not None:
            found.append((prefix, entry_key(index, before, internal), None))
        elif after is not None:
            found.append((prefix, entry_key(index, after, internal), write.key))
    return found


def _same_objects(before: dict[str, Any], after: dict[str, Any], fields: Sequence[str]) -> bool:
    """Whether the fields are the very same objects, as they are after a patch elsewhere."""
    for name in fields:  # noqa: SIM110 - all() takes twice as long, and this runs for every write
        if before.get(name, UNDEFINED) is not after.get(name, UNDEFINED):
            return False
    return True


def stored(prefix: bytes, key: bytes) -> tuple[bytes, bytes]:
    """The key and value under which an entry key is stored."""
    if len(key) < _BUCKETED_BYTES_MIN:
        return prefix + key, b""
    fields, tail = key[:-ENTRY_TAIL_BYTES], key[-ENTRY_TAIL_BYTES:]
    return stored_fields(prefix, fields) + tail, fields[ENTRY_HEAD_BYTES:]


def stored_fields(prefix: bytes, fields: bytes) -> bytes:
    """What the stored keys of all entries with these bucketed fields begin with."""
    return prefix + fields[:ENTRY_HEAD_BYTES] + sha256(fields).digest()


def is_bucketed(stored_key: bytes) -> bool:
    return len(stored_key) == STORE_KEY_BYTES_MAX


def bucket_of(stored_key: bytes) -> bytes:
    """What the stored keys of a bucket begin with, and no others."""
    return stored_key[: len(stored_key) - ENTRY_TAIL_BYTES - ENTRY_DIGEST_BYTES]


def entry_key_of(stored_key: bytes, rest: bytes) -> bytes:
    """The entry key of a bucketed entry."""
    return bucket_of(stored_key)[4:] + rest + stored_key[-ENTRY_TAIL_BYTES:]


def bucketed_fields(index: IndexInfo, lower: bytes, upper: bytes | None) -> bytes | None:
    """The declared fields that all keys of an interval share, if they do and are bucketed."""
    if upper is None or len(lower) < ENTRY_HEAD_BYTES:
        return None
    end = end_of_values(lower, len(index.fields) - 1)
    if end is None or end < ENTRY_HEAD_BYTES or upper > past(lower[:end]):
        return None
    return lower[:end]


class Applied(Struct, gc=False, eq=False):
    """
    A commit as followers see it: what it touched, computed when they ask.

    As with `RowWrite`, nothing in it leads back to it.
    """

    ts: int
    writes: Sequence[RowWrite]
    catalog: Catalog
    """After the commit: it knows the tables that were created."""
    writer: str = ""
    """The path of the function whose commit it is."""
    _indexes: Mapping[bytes, IndexInfo] | None = None
    _keys: dict[bytes, Collection[bytes]] | None = None
    _contents: dict[bytes, list[tuple[bytes, Content]]] | None = None

    @property
    def rows(self) -> Collection[bytes]:
        """As `Touched.rows`."""
        return [write.key for write in self.writes]

    @property
    def indexes(self) -> Collection[bytes]:
        """Prefixes of all indexes of the written tables."""
        return self._touched().keys()

    def keys(self, index_prefix: bytes) -> Collection[bytes]:
        """Old and new entry keys of the written rows in one index."""
        if self._keys is None:
            self._keys = {}
        if index_prefix not in self._keys:
            self._keys[index_prefix] = self._compute(index_prefix)
        return self._keys[index_prefix]

    def contents(self, index_prefix: bytes) -> Collection[tuple[bytes, Content]]:
        """As `Touched.contents`."""
        for _ in self._contents_in_slices(index_prefix):
            pass
        assert self._contents is not None, "they are worked out"
        return self._contents[index_prefix]

    def slices(self, index_prefix: bytes) -> Iterator[None]:
        """As `Touched.slices`."""
        index = self._touched().get(index_prefix)
        if index is not None and index.kind in SEARCHED:
            yield from self._contents_in_slices(index_prefix)
        if index is None or index.kind is not IndexKind.RANGE:
            return  # that takes no time
        found: dict[bytes, None] = {}
        for start in range(0, len(self.writes), SLICE_WRITES):
            found |= dict.fromkeys(self._keys_of(index, self.writes[start : start + SLICE_WRITES]))
            yield
        if self._keys is None:
            self._keys = {}
        self._keys[index_prefix] = found

    def _contents_in_slices(self, index_prefix: bytes) -> Iterator[None]:
        if self._contents is None:
            self._contents = {}
        index = self._touched().get(index_prefix)
        if index_prefix in self._contents or index is None:
            self._contents.setdefault(index_prefix, [])
            return
        found: list[tuple[bytes, Content]] = []
        for some in _small_slices(self.writes):
            for write in some:
                if write.table_number == index.table_number:
                    found += changed_contents(index, write)
            yield
        self._contents[index_prefix] = found

    def _touched(self) -> Mapping[bytes, IndexInfo]:
        if self._indexes is None:
            tables = [
                table
                for prefix in dict.fromkeys(key[:4] for key in self.rows)
                if (table := self.catalog.by_number.get(int.from_bytes(prefix, "big")))
            ]
            if len(tables) == 1:
                self._indexes = tables[0].by_prefix
            else:
                self._indexes = {p: i for t in tables for p, i in t.by_prefix.items()}
        return self._indexes

    def _compute(self, index_prefix: bytes) -> Collection[bytes]:
        index = self._touched().get(index_prefix)
        if index is None:
            return ()
        if index.kind is IndexKind.RANGE:
            return dict.fromkeys(self._keys_of(index, self.writes))
        writes = [w for w in self.writes if w.table_number == index.table_number]
        if index.kind is IndexKind.COUNT:
            return [b""] if any((w.before is None) is not (w.after is None) for w in writes) else ()
        return [write.key[4:] for write in writes]

    def _keys_of(self, index: IndexInfo, writes: Iterable[RowWrite]) -> Iterator[bytes]:
        table = index.table_number
        return (key for w in writes if w.table_number == table for key in _both(index, w))


def _small_slices(writes: Sequence[RowWrite]) -> Iterator[list[RowWrite]]:
    some: list[RowWrite] = []
    size = 0
    for write in writes:
        some.append(write)
        size += len(write.before or b"") + len(write.after or b"")
        if len(some) == SLICE_CONTENTS or size >= SLICE_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def content_of(index: IndexInfo, doc: dict[str, Any]) -> Content:
    """What a text or vector index has of a document."""
    if index.kind is IndexKind.SEARCH:
        return text_entry(index, doc)
    # Whoever has read such an index has what this needs.
    from engine.indexes.vectors.entry import entry_of as vector_entry

    return vector_entry(index, doc) or _NOTHING


_NOTHING: Final = TextEntry({}, ())
"""Of a document that has no vector."""


def changed_contents(index: IndexInfo, write: RowWrite) -> list[tuple[bytes, Content]]:
    """What an index had of a row and has, with its internal id; nothing if that is the same."""
    found = [
        (write.key[4:], content_of(index, doc))
        for doc in (write.before_doc, write.after_doc)
        if doc is not None
    ]
    return [] if len(found) == 2 and found[0] == found[1] else found


def _both(index: IndexInfo, write: RowWrite) -> Iterable[bytes]:
    for doc in (write.before_doc, write.after_doc):
        if doc is not None:
            yield entry_key(index, doc, write.key[4:])


def refuse_unreadable(table: TableInfo, index: IndexInfo) -> None:
    """
    Raises:
        IndexNotFound: queries may not use `index` yet.
    """
    if index.state is not IndexState.ENABLED:
        raise IndexNotFound(
            f"the index {index.name!r} of {table.name!r} is staged: built, but not to be read "
            "yet; take staged=True out of its declaration"
        )
