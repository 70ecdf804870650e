"""
Transaction: reads a view, lays its own writes over it, and remembers what it read.

Nothing here waits and nothing here is durable: a transaction is a plain object
of the function that runs.  `finish` hands its row writes to the committer.

    begin_child / merge_child / drop_child    a sub-transaction: its writes can
                                              go alone, its reads stay
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from sys import maxsize
from typing import Any, Final, NoReturn, Protocol, TypeAlias

from engine.errors import (
    DocumentNotFound,
    InvalidId,
    InvalidValue,
    LimitExceeded,
    SchemaViolation,
    StoreDamaged,
)
from engine.indexes.buckets import Buckets
from engine.indexes.catalog import (
    BY_TABLE_NAME,
    SYSTEM_TABLES,
    TABLES,
    Catalog,
    IndexInfo,
    IndexState,
    TableInfo,
    count_prefix,
)
from engine.indexes.entries import entry_key
from engine.indexes.live import LiveIndex, OwnWrites
from engine.indexes.stored import Entry
from engine.model.codec import decode, decode_all, encode
from engine.model.commits import RowWrite
from engine.model.identifiers import is_identifier, why_no_identifier
from engine.model.ids import id_of, make_internal, remember, row_key, row_key_of
from engine.model.keys import encode_key, past
from engine.model.limits import (
    DOCUMENT_BYTES_MAX,
    DOCUMENT_NESTING_MAX,
    OBJECT_FIELDS_MAX,
    TABLES_MAX,
    WARNING_RATIO,
)
from engine.model.reads import ReadSet
from engine.model.relations import Relation
from engine.model.values import UNDEFINED, measure, size_of, strictly_equal
from engine.transaction.overlay import Overlay, merged
from engine.transaction.usage import Usage
from engine.transaction.view import NOWHERE, View

Doc = dict[str, Any]


class TimestampTooEarly(Exception):
    """More was created than its timestamp has room for: run it again, with one that has more."""


class Dice(Protocol):
    """Where the random part of ids comes from."""

    def randbytes(self, n: int, /) -> bytes: ...


class Marks(Protocol):
    """Around code of the application, whose time that is."""

    def enter(self) -> None: ...
    def leave(self) -> None: ...


Stamp: TypeAlias = Callable[[int], int]
"""Gives a timestamp for a commit, which is later than its argument and leaves room after that."""
Relations: TypeAlias = Mapping[tuple[str, str], Sequence[Relation]]
"""By component and table."""


class SchemaCheck(Protocol):
    """What the deployed schemas say of documents."""

    @property
    def relations(self) -> Relations:
        """By the table whose documents refer."""

    @property
    def referring(self) -> Relations:
        """By the table whose documents are referred to."""

    def check(self, component: str, table: str, fields: Doc, marks: Marks | None = None) -> None:
        """
        Args:
            marks: entered for predicates of the application.

        Raises:
            SchemaViolation: the table's schema forbids it.
        """


@dataclass(slots=True)
class Slice:
    """What one step of a scan read."""

    docs: list[Doc] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    """Entry keys of all documents that were read, also of those that were not accepted."""
    passed: bytes | None = None
    """The entry key up to which there was nothing more, where the search was cut short."""
    is_exhausted: bool = False

    @property
    def end(self) -> bytes | None:
        """The last entry key that was looked at; `None` if there was none."""
        return self.passed or (self.keys[-1] if self.keys else None)


@dataclass(slots=True, kw_only=True)
class Reading:
    """One query of a function, for whoever wants it explained."""

    table: str
    index: str
    range: str
    """As `Bounds.text`."""
    order: str
    filters: int
    read: int = 0
    """Documents that were looked at."""
    returned: int = 0
    """Those of them that the filters accepted."""


class Transaction:
    """
    One execution's reads and writes.

    Args:
        view: the state to read.
        usage: counters, shared with nested calls.
        now_ns: the frozen clock of the execution.
        dice: seeded; ids come from it.
        schema: checks documents; `None` where only system rows are written.
        marks: of the execution, if it runs code of the application.
        stamp: asked for the timestamp of its commit, if the function that runs wants to know.
    """

    def __init__(
        self,
        view: View,
        *,
        usage: Usage,
        now_ns: int,
        dice: Dice,
        schema: SchemaCheck | None,
        marks: Marks | None = None,
        stamp: Stamp | None = None,
    ) -> None:
        self.view = view
        self.usage = usage
        self.reads = ReadSet()
        self.catalog: Catalog = view.catalog
        self.readings: list[Reading] | None = None
        """Set where the queries are to be explained; each adds one."""
        self.schema = schema
        self._marks = marks
        self._dice = dice
        self.now_ms = now_ns // 1_000_000
        self._created_from = self._creation_time = max(view.begin_ts + 1, now_ns) / 1e6
        self._created_before = math.inf
        self.commit_ts = 0
        """At which it is to be committed; 0 for whatever comes then, as nobody has asked."""
        self._stamp = stamp
        self._layers: list[Overlay] = [Overlay()]
        self._saved: list[tuple[Catalog, tuple[int, int, int, int]]] = []
        self._originals: dict[bytes, bytes | None] = {}
        self._buckets: Buckets | None = None

    def beginning(self) -> Transaction:
        """
        The state from which this one began, to be read; it counts with this one.

        What is read there is no read of this one, whose own writes are not in it.
        """
        return Transaction(
            self.view,
            usage=self.usage,
            now_ns=self.now_ms * 1_000_000,
            dice=self._dice,
            schema=None,
        )

    # Reading

    def get(self, key: bytes) -> Doc | None:
        """The document of a row, as a copy of the reader's own, or `None`."""
        self.reads.points.add(key)
        image = self._row(key)
        if image is None:
            return None
        self.usage.count_read(len(image))
        return decode(image)  # type: ignore[no-any-return]  # a row is a document

    def own_row(self, key: bytes) -> Doc | None:
        """As `get`, of a row of the engine's own: it is no read of the function that runs."""
        self.reads.points.add(key)
        image = self._row(key)
        return None if image is None else decode(image)

    def own_rows(self, index: IndexInfo, lower: bytes, upper: bytes) -> Iterator[Doc]:
        """The same of the rows of an interval, in index order; all of it counts as read."""
        self.reads.add_range(index.prefix, lower, upper)
        for _, row in self._entries(index, lower, upper, False):
            yield decode(self._row(row) or _refuse_entry(index, row))

    def table(self, component: str, name: str) -> TableInfo | None:
        """The table of that name; one that is not there yet is a read of its absence."""
        found = self.catalog.table(component, name)
        if found is None:
            lower = encode_key([component, name])
            self.reads.add_range(BY_TABLE_NAME.prefix, lower, past(lower))
        return found

    def table_of(self, component: str, key: bytes) -> TableInfo:
        """
        The table of a row, if it belongs to the component.

        Raises:
            InvalidId: the id is of no table that this component has.
        """
        table = self.catalog.by_number.get(int.from_bytes(key[:4], "big"))
        if table is None or table.component != component or table.is_dropping:
            raise InvalidId(f"{id_of(key)!r} is no id of a table that is known here")
        return table

    def table_with(self, key: bytes) -> TableInfo:
        """The table of a row that is there, or was."""
        return self.catalog.by_number[int.from_bytes(key[:4], "big")]

    def read_slice(
        self,
        index: IndexInfo,
        lower: bytes,
        upper: bytes | None,
        *,
        reverse: bool,
        rows_max: int,
        bytes_max: int = maxsize,
        count: int | None = None,
        accepts: Callable[[Doc], bool] | None = None,
    ) -> Slice:
        """
        Read documents of an interval, in index order.

        Stops after `rows_max` documents, or the one with which they have `bytes_max`, when `count`
        of them were accepted, and before one that the limits forbid, if it has read another. In
        the past also before the first, where it is not ready yet, and where it has passed many
        that were not there.
        The read set grows by the part of the interval that was looked at.

        Raises:
            LimitExceeded: the first document is one too many.
        """
        self.view.check_age()
        read = Slice()
        if not self.view.prepare(index):
            return read
        docs, keys = read.docs, read.keys
        images: list[bytes] = []
        rows: list[bytes] = []
        rows_max = _rows_enough(rows_max, count, accepts)
        is_asking = False
        size = 0
        # What is looked up here is not for each document again: a scan does little else.
        row_of, count_read = self._row_reader(), self.usage.count_read
        try:
            for key, row in self._entries(index, lower, upper, reverse):
                image = row_of(row)
                if not image:
                    read.passed = _passed(index, key, row)
                    break
                try:
                    count_read(len(image))
                except LimitExceeded:
                    self._leave_for_later(read, image)
                    raise
                keys.append(key)
                size += len(image)
                if accepts is None:
                    images.append(image)
                    rows.append(row)
                else:
                    is_asking = True  # whatever comes of it is the application's
                    if accepts(doc := decode(image)):
                        docs.append(doc)
                    is_asking = False
                if len(docs) == count or len(keys) == rows_max or size >= bytes_max:
                    break
            else:
                read.is_exhausted = True
        except LimitExceeded:
            if is_asking or not read.keys:
                raise
        finally:
            self._record(index, lower, upper, reverse, read)
        found: list[Doc] = decode_all(images)
        remember([doc["_id"] for doc in found], rows)
        docs += found
        return read

    def _leave_for_later(self, read: Slice, image: bytes) -> None:
        """One that the limits forbid is not read, if another was: then that is what is told."""
        if read.keys:
            self.usage.uncount_read(len(image))

    def images(self, table: TableInfo) -> Iterator[tuple[bytes, bytes]]:
        """
        The internal ids and images of all rows of a table: no read of the function that runs, and
        none that its limits count.
        """
        index = table.indexes["by_id"]
        while not self.view.prepare(index):
            pass
        for key, row in self._entries(index, b"", None, False):
            if row != NOWHERE:
                yield key, self._row(row) or _refuse_entry(index, row)

    def count(self, table: TableInfo) -> int:
        """How many documents a table has; a read of that number, and of no document."""
        self.usage.count_range()
        self.reads.add_range(count_prefix(table.number), b"", None)
        return self.size(table)

    def size(self, table: TableInfo) -> int:
        """The same, for who says nothing of it."""
        own = sum(layer.grown(table.number) for layer in self._layers)
        return self.view.count(table.number) + own

    def own(self, index: LiveIndex) -> list[OwnWrites]:
        """What was written here and `index` does not know of, in the order in which it was."""
        return [layer.own(index) for layer in self._layers if not layer.is_empty]

    def found(self, index: IndexInfo, keys: Sequence[bytes]) -> list[Doc | None]:
        """
        The documents that a text or vector index has found, by their row keys.

        Returns:
            `None` for those that were deleted here since they were found.

        Raises:
            LimitExceeded: as of any documents that are read.
            StoreDamaged: one is not there, and was not deleted here.
        """
        images: list[bytes] = []
        gone = []
        row_of = self._row_reader()
        self.reads.points.update(keys)
        for at, key in enumerate(keys):
            image = row_of(key)
            if image is not None:
                self.usage.count_read(len(image))
                images.append(image)
            elif any(key in layer.rows for layer in self._layers):
                gone.append(at)
            else:
                raise StoreDamaged(
                    f"the index {index.name!r} has {id_of(key)}, which is not there; "
                    f"`headrace index rebuild` makes it anew from the documents"
                )
        docs: list[Doc | None] = decode_all(images)
        for at in gone:
            docs.insert(at, None)
        return docs

    def _record(
        self, index: IndexInfo, lower: bytes, upper: bytes | None, reverse: bool, read: Slice
    ) -> None:
        end = read.end
        if read.is_exhausted:
            self.reads.add_range(index.prefix, lower, upper)
        elif end is not None and reverse:
            self.reads.add_range(index.prefix, end, upper)
        elif end is not None:
            self.reads.add_range(index.prefix, lower, end + b"\0")

    def _row_reader(self) -> Callable[[bytes], bytes | None]:
        """`_row` as of now, by the shortest way: most scans have no write above them."""
        for layer in self._layers:
            if not layer.is_empty:
                return self._row
        return self.view.row_reader()

    def _row(self, key: bytes) -> bytes | None:
        layers = self._layers
        if (write := layers[-1].rows.get(key)) is not None:
            return write.after
        for layer in layers[-2::-1]:
            if (write := layer.rows.get(key)) is not None:
                return write.after
        return self.view.row(key)

    def _entries(
        self, index: IndexInfo, lower: bytes, upper: bytes | None, reverse: bool
    ) -> Iterator[Entry]:
        if self._buckets is None:
            self._buckets = Buckets(self.usage)
        entries = self.view.entries(index, lower, upper, reverse=reverse, buckets=self._buckets)
        for layer in self._layers:
            if not layer.is_empty:
                own = layer.entries(index, lower, upper, reverse=reverse)
                entries = merged(entries, own, reverse=reverse)
        return entries

    # Writing

    def insert(self, component: str, name: str, fields: Doc) -> str:
        """
        Add a document and return its id; the table appears with its first document.

        Args:
            fields: canonical; the transaction's own from here on.

        Raises:
            InvalidValue, SchemaViolation, LimitExceeded: and no document was added.
        """
        doc = _user_fields(fields, {})
        if self.schema is not None:
            self._check(self.schema, component, name, doc, None)
        table = self.table(component, name)
        if table is None:
            return self._insert_first(component, name, doc)
        return self.insert_row(table, doc)

    def fraction(self) -> float:
        """A number from 0 to 1, by the dice of this transaction."""
        return int.from_bytes(self._dice.randbytes(4), "big") / 2**32

    def restore(
        self,
        table: TableInfo,
        fields: Doc,
        internal: bytes | None,
        creation_time: float | None,
    ) -> str:
        """As `insert`, with the internal id and the creation time that it had elsewhere, if any."""
        doc = _user_fields(fields, {})
        if self.schema is not None:
            self._check(self.schema, table.component, table.name, doc, None)
        return self.insert_row(table, doc, internal, creation_time)

    def insert_row(
        self,
        table: TableInfo,
        doc: Doc,
        internal: bytes | None = None,
        creation_time: float | None = None,
    ) -> str:
        """Add a row of checked, canonical fields; an import may bring its id and its time."""
        key = row_key(table.number, internal or make_internal(self.now_ms, self._dice.randbytes(8)))
        doc_id = id_of(key)
        doc["_id"] = doc_id
        if "_creationTime" not in doc:
            doc["_creationTime"] = creation_time or self._next_creation_time()
        self.reads.points.add(key)
        self._write(key, None, None, doc)
        return doc_id

    def _insert_first(self, component: str, name: str, doc: Doc) -> str:
        """Add a document with its table, or neither."""
        self.begin_child()
        try:
            doc_id = self.insert_row(self.create_table(component, name), doc)
        except BaseException:
            self.drop_child()
            raise
        self.merge_child()
        return doc_id

    def patch(self, key: bytes, fields: Doc, removed: Iterable[str] = ()) -> None:
        """
        Merge `fields`, as `insert` takes them, into a document, and take `removed` away.

        Raises:
            DocumentNotFound, InvalidValue, SchemaViolation, LimitExceeded: and nothing changed.
        """
        image, old = self._existing(key, "patch")
        doc = {**old, **_user_fields(fields, old)}
        for name in removed:
            doc.pop(name, None)
        self._rewrite(key, image, old, doc)

    def replace(self, key: bytes, fields: Doc) -> None:
        """Put `fields`, as `insert` takes them, in place of a document's but its system fields."""
        image, old = self._existing(key, "replace")
        doc = _user_fields(fields, old)
        doc["_id"] = old["_id"]
        doc["_creationTime"] = old["_creationTime"]
        if not strictly_equal(doc, old):
            self._rewrite(key, image, old, doc)

    def rewrite(self, key: bytes, change: Callable[[Doc], Doc]) -> None:
        """Put what `change` makes of a document in its place."""
        image, old = self._existing(key, "rewrite")
        self._rewrite(key, image, old, change(old))

    def delete(self, key: bytes) -> None:
        """
        Delete one document, whoever refers to it: see `deletion.delete`.

        Raises:
            DocumentNotFound: there is no such document (any more).
        """
        image, old = self._existing(key, "delete")
        self._write(key, image, old, None)

    def put_row(self, key: bytes, doc: Doc | None, old: Doc | None = None) -> None:
        """
        Write a row of the engine's own, whatever it was before.

        Args:
            old: what it is now, if the caller has read it since it was written.
        """
        image = self._row(key)
        if image is None and doc is None:
            return
        self.reads.points.add(key)
        if old is None and image is not None:
            old = decode(image)
        self._write(key, image, old, doc)

    def create_table(
        self, component: str, name: str, number: int | None = None, *, state: str = "active"
    ) -> TableInfo:
        """
        Add a table with the indexes that every table has.

        Args:
            number: one that no table has; the next one unless said.
            state: what its row says of it.

        Raises:
            InvalidValue: no schema could ever have a table of that name.
            LimitExceeded: there are too many.
        """
        if not is_identifier(name):
            raise InvalidValue(why_no_identifier(name, "a table"))
        used = len(self.catalog.by_number) - SYSTEM_TABLES + 1
        self.usage.note("TABLES_MAX", used, TABLES_MAX)
        if used > TABLES_MAX:
            advice = "Documents of one kind share a table; drop those that nothing needs."
            raise LimitExceeded("TABLES_MAX", used, TABLES_MAX, "tables", advice)
        # Two that add a table beside each other would give it one number.
        self.reads.add_range(BY_TABLE_NAME.prefix, b"", None)
        number = number or self.catalog.next_table_number
        assert number not in self.catalog.by_number, "a number is of one table"
        fields = {"name": name, "component": component, "number": number, "state": state}
        self.insert_row(self.catalog.by_number[TABLES], fields)
        return self.catalog.by_number[number]

    def finish(self) -> list[RowWrite]:
        """
        The row writes of the whole transaction, one a row, from the view's image to the last.

        Raises:
            SchemaViolation: two documents share a key of a unique index.
        """
        assert len(self._layers) == 1, "a sub-transaction is still open"
        if self.catalog.has_unique_index:
            self._check_unique()
        writes = []
        for key, last in self._layers[0].rows.items():
            before = self._originals[key]
            if before == last.after:
                continue
            writes.append(last if last.before is before else last.since(before))
        return writes

    @property
    def created_upto(self) -> int:
        """
        A timestamp past all times of creation that it has given, or 0 if it has given none.

        Committed later than that, it leaves later times to whoever begins after it.
        """
        if self._creation_time == self._created_from:
            return 0
        return self._next_created_ns

    def reserve_ts(self) -> int:
        """
        The timestamp of its commit, which is given when it is first asked for.

        It may pass before the commit where others commit meanwhile, and then this one has to run
        again.  Creating more documents than it leaves room for raises `TimestampTooEarly`.
        """
        if not self.commit_ts:
            assert self._stamp is not None, "who may ask is going to be committed"
            created_ns = self._next_created_ns
            self.commit_ts = self._stamp(created_ns)
            # Where the wall clock has leapt ahead no commit follows it, and documents do.
            if self.commit_ts > created_ns:
                self._created_before = (self.commit_ts - 2 * _FRACTION_NS) / 1e6
        return self.commit_ts

    # Sub-transactions

    def begin_child(self) -> None:
        self._layers.append(Overlay())
        self._saved.append((self.catalog, self.usage.written()))

    def child_steps(self) -> list[RowWrite]:
        """What the newest sub-transaction has written until now, in order."""
        return list(self._layers[-1].steps)

    def merge_child(self) -> None:
        upper = self._layers.pop()
        self._saved.pop()
        self._layers[-1].absorb(upper)

    def drop_child(self) -> None:
        """Forget the child's writes; what it read stays read."""
        self._layers.pop()
        self.catalog, written = self._saved.pop()
        self.usage.restore_written(written)

    # Within

    def _existing(self, key: bytes, verb: str) -> tuple[bytes, Doc]:
        self.reads.points.add(key)
        image = self._row(key)
        if image is None:
            raise DocumentNotFound(f"cannot {verb} {id_of(key)}: there is no such document")
        self.usage.count_read(len(image))
        return image, decode(image)

    def _rewrite(self, key: bytes, image: bytes, old: Doc, doc: Doc) -> None:
        if self.schema is not None:
            table = self.table_with(key)
            self._check(self.schema, table.component, table.name, doc, old)
        self._write(key, image, old, doc)

    def _check(
        self, schema: SchemaCheck, component: str, name: str, doc: Doc, old: Doc | None
    ) -> None:
        schema.check(component, name, doc, self._marks)
        if schema.relations:
            self.check_references(schema.relations.get((component, name), ()), doc, old)

    def check_references(
        self, relations: Sequence[Relation], doc: Doc, old: Doc | None = None
    ) -> None:
        """
        Look whether the documents are there to which `doc` refers, and `old` did not.

        Raises:
            SchemaViolation: one is not; names it.
        """
        for relation in relations:
            target = relation.id_in(doc)
            if target is None or (old is not None and relation.id_in(old) == target):
                continue
            self.reads.points.add(key := row_key_of(target))
            image = self._row(key)
            if image is None:
                raise SchemaViolation(relation.dangles(doc, target))
            self.usage.count_read(len(image))

    def _write(self, key: bytes, image: bytes | None, old: Doc | None, doc: Doc | None) -> None:
        after = None
        is_system = key.startswith(_SYSTEM_ROWS)
        if doc is None:
            if not is_system:
                self.usage.count_write(size_of(old) if old is not None else 0)
        else:
            if not is_system:
                size, nesting = measure(doc)
                self.usage.count_write(size)
                if size > _BYTES_NEAR or nesting > _NESTING_NEAR or len(doc) > _FIELDS_NEAR:
                    self._check_document(doc, size, nesting)
            after = encode(doc)
            if after == image:
                return
        self._originals.setdefault(key, image)
        step = RowWrite(key, image, after, old, doc)
        self._layers[-1].write(step)
        if is_system:
            self.catalog = self.catalog.folded([step])

    def _check_document(self, doc: Doc, size: int, nesting: int) -> None:
        self.usage.note("DOCUMENT_BYTES_MAX", size, DOCUMENT_BYTES_MAX)
        self.usage.note("DOCUMENT_NESTING_MAX", nesting, DOCUMENT_NESTING_MAX)
        self.usage.note("OBJECT_FIELDS_MAX", len(doc), OBJECT_FIELDS_MAX)
        if (
            size > DOCUMENT_BYTES_MAX
            or nesting > DOCUMENT_NESTING_MAX
            or len(doc) > OBJECT_FIELDS_MAX
        ):
            _refuse_document(doc, size, nesting)

    @property
    def _next_created_ns(self) -> int:
        return int(self._creation_time * 1e6) + _FRACTION_NS

    def _next_creation_time(self) -> float:
        current = self._creation_time
        self._creation_time = math.nextafter(current, math.inf)
        if self._creation_time >= self._created_before:
            raise TimestampTooEarly
        return int(current) if current.is_integer() else current

    def _check_unique(self) -> None:
        for key, last in self._layers[0].rows.items():
            table = self.catalog.by_number.get(last.table_number)
            if table is None or last.after is None:
                continue
            for index in table.indexes.values():
                # One that is not enabled yet is the push's to check, which it may refuse.
                if index.unique and index.state is IndexState.ENABLED:
                    self._check_unique_key(index, key, last)

    def _check_unique_key(self, index: IndexInfo, key: bytes, last: RowWrite) -> None:
        doc = last.after_doc
        assert doc is not None
        full = entry_key(index, doc, key[4:])
        values = [_field(doc, path) for path in index.fields[:-1]]
        if any(value is UNDEFINED for value in values):
            return
        lower = encode_key(values)
        assert full.startswith(lower)
        upper = past(lower)
        self.reads.add_range(index.prefix, lower, upper)
        for _, other in self._entries(index, lower, upper, False):
            if other not in (key, NOWHERE):
                is_written = other in self._layers[0].rows
                shared = dict(zip(index.field_names, values, strict=False))
                raise SchemaViolation(
                    f"{id_of(key)} and {id_of(other)} would both have {shared!r} in the unique "
                    f"index {index.name!r} of the table {self.table_with(key).name!r}; the second "
                    f"{'is written here too' if is_written else 'is there already'}. "
                    "Give one of them another value, or change the one that has it"
                )


_FRACTION_NS: Final = 512
"""More than two neighbours among milliseconds since 1970 are apart, for the next centuries."""

_BYTES_NEAR: Final = DOCUMENT_BYTES_MAX * WARNING_RATIO - 1
_NESTING_NEAR: Final = DOCUMENT_NESTING_MAX * WARNING_RATIO - 1
_FIELDS_NEAR: Final = OBJECT_FIELDS_MAX * WARNING_RATIO - 1
"""Documents up to here need no closer look."""

_SYSTEM_ROWS: Final = TABLES.to_bytes(4, "big")[:3]
"""What the keys of the engine's own rows begin with; these are bounded by what is put in them."""


def _rows_enough(rows_max: int, count: int | None, accepts: Callable[[Doc], bool] | None) -> int:
    """After how many rows there is no need for more; where all are accepted, these are `count`."""
    return min(rows_max, count) if accepts is None and count is not None else rows_max


def _field(doc: Doc, path: tuple[str, ...]) -> Any:
    value: Any = doc
    for name in path:
        value = value.get(name, UNDEFINED) if isinstance(value, dict) else UNDEFINED
    return value


def _user_fields(doc: Doc, old: Doc) -> Doc:
    """What a function gave, without system fields, which may only repeat what is there."""
    for name in doc:
        if name[:1] == "_":
            return _without_system_fields(doc, old)
    return doc


def _without_system_fields(doc: Doc, old: Doc) -> Doc:
    for name in [n for n in doc if n[:1] == "_"]:
        if name not in old or not strictly_equal(doc[name], old[name]):
            raise InvalidValue(
                f"the field {name!r} is the system's (names that begin with _ are); leave it out"
            )
        del doc[name]
    return doc


def _passed(index: IndexInfo, key: bytes, row: bytes) -> bytes:
    """The key of an entry that leads nowhere: one of many that were passed, in the past."""
    return key if row == NOWHERE else _refuse_entry(index, row)


def _refuse_entry(index: IndexInfo, row: bytes) -> NoReturn:
    raise StoreDamaged(
        f"the index {index.name!r} has an entry of {id_of(row)}, which is not there; "
        "`headrace verify` tells what else is wrong, and a backup has what was written"
    )


def _refuse_document(doc: Doc, size: int, nesting: int) -> NoReturn:
    of = f"of document {doc['_id']}"
    if size > DOCUMENT_BYTES_MAX:
        advice = "Put a part of it into documents of their own, and keep their ids."
        raise LimitExceeded("DOCUMENT_BYTES_MAX", size, DOCUMENT_BYTES_MAX, f"bytes {of}", advice)
    if nesting > DOCUMENT_NESTING_MAX:
        what, advice = f"nesting {of}", "Put what is inside into documents of their own."
        raise LimitExceeded("DOCUMENT_NESTING_MAX", nesting, DOCUMENT_NESTING_MAX, what, advice)
    advice = "_id and _creationTime are two of them."
    raise LimitExceeded("OBJECT_FIELDS_MAX", len(doc), OBJECT_FIELDS_MAX, f"fields {of}", advice)
