"""A store that is not what was written is refused when it is opened, and by one error."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StoreDamaged
from engine.indexes.catalog import INDEXES, TABLES, USER_INDEX_ID_MIN
from engine.indexes.recovery import recover
from engine.log.records import HASH_BYTES
from engine.log.retention import ANCHOR_NAME, Anchor, encode_anchor, read_anchor
from engine.model.codec import encode
from engine.model.ids import row_key
from engine.model.limits import USER_TABLE_NUMBER_MIN
from engine.model.values import Value
from engine.store.interface import Batch, Snapshot, Tree
from engine.store.memory_store import MemoryStore
from tests.unit.hostile.mutants import CBOR_PIECES, mutants
from tests.unit.hostile.test_decoders import refused
from tests.unit.model.canonical import VALUE

SEED = st.integers(0, 2**32)
TABLE_ROW, INDEX_ROW = row_key(TABLES, bytes(16)), row_key(INDEXES, bytes(16))
TABLE = {"name": "notes", "component": "", "number": USER_TABLE_NUMBER_MIN, "state": "active"}
INDEX = {
    "name": "by_n",
    "table": USER_TABLE_NUMBER_MIN,
    "indexId": USER_INDEX_ID_MIN,
    "fields": ["n", "_creationTime"],
    "kind": "range",
    "state": "enabled",
    "unique": False,
    "options": {},
}


async def snapshot_of(store: MemoryStore, tree: Tree, rows: dict[bytes, bytes]) -> Snapshot:
    """What is in the store once it has these rows."""
    batch = Batch()
    for key, value in rows.items():
        batch.put(tree, key, value)
    await store.apply(batch.encode())
    return store.snapshot()


@given(st.booleans(), SEED)
async def test_bytes_in_the_place_of_a_table_or_an_index(of_table: bool, seed: int) -> None:
    store = MemoryStore()
    rows = {TABLE_ROW: encode(TABLE), INDEX_ROW: encode(INDEX)}
    damaged = TABLE_ROW if of_table else INDEX_ROW

    for data in mutants(rows[damaged], seed, CBOR_PIECES):
        with await snapshot_of(store, Tree.ROWS, {**rows, damaged: data}) as snapshot:
            refused(recover, snapshot, StoreDamaged)


@given(st.booleans(), st.sampled_from(sorted({*TABLE, *INDEX})), VALUE)
async def test_other_values_in_the_fields_of_a_table_or_an_index(
    of_table: bool, name: str, value: Value
) -> None:
    rows = {
        TABLE_ROW: encode({**TABLE, name: value} if of_table else TABLE),
        INDEX_ROW: encode(INDEX if of_table else {**INDEX, name: value}),
    }

    refused(recover, await snapshot_of(MemoryStore(), Tree.ROWS, rows), StoreDamaged)


@given(VALUE, SEED)
async def test_where_the_log_begins(value: Value, seed: int) -> None:
    store = MemoryStore()
    written = encode_anchor(Anchor(5, b"h" * HASH_BYTES, 7))

    for data in (encode(value), *mutants(written, seed, CBOR_PIECES)):
        with await snapshot_of(store, Tree.META, {ANCHOR_NAME: data}) as snapshot:
            refused(read_anchor, snapshot, StoreDamaged)
