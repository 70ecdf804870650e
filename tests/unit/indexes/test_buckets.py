"""Entries whose fields are longer than the keys of the store: every interval, in order, counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import LimitExceeded
from engine.indexes.buckets import Buckets
from engine.indexes.catalog import Catalog, IndexInfo
from engine.indexes.entries import entry_key, stored
from engine.indexes.live import LiveIndexes
from engine.indexes.snapshot import SharedSnapshot
from engine.model.ids import encode_id
from engine.model.limits import ENTRY_HEAD_BYTES, STORE_KEY_BYTES_MAX, Limits
from engine.model.values import UNDEFINED
from engine.store.interface import Batch, Store, Tree
from engine.store.lmdb_store import LmdbStore
from engine.store.memory_store import MemoryStore
from engine.transaction.ranges import Bounds, interval_of
from engine.transaction.usage import Usage

TABLE = 10_001
INDEX = IndexInfo(
    index_id=1_001,
    name="by_ab",
    table_number=TABLE,
    fields=(("a",), ("b",), ("_creationTime",)),
)
EDGE = "e" * (ENTRY_HEAD_BYTES - 4)
"""Beside a missing field this takes one byte less than makes a bucket."""
LONG = "l" * 600

VALUES = [
    UNDEFINED,
    1,
    "",
    EDGE[:-1],
    EDGE[:-1] + "\0",
    EDGE,
    EDGE + "\0",
    EDGE + "\0b",
    EDGE + "e",
    EDGE + "e\0",
    EDGE + "e\0b",
    LONG,
    LONG + "\0",
    LONG + "a",
    LONG + "b",
    [LONG, 1],
    {"x": LONG, "y": 2},
]
Doc = dict[str, Any]


def document(number: int, a: Any, b: Any) -> Doc:
    fields = {name: value for name, value in (("a", a), ("b", b)) if value is not UNDEFINED}
    internal = number.to_bytes(16, "big")
    return {**fields, "_creationTime": number // 2, "_id": encode_id(TABLE, internal)}


def key_of(doc: Doc, number: int) -> bytes:
    return entry_key(INDEX, doc, number.to_bytes(16, "big"))


async def fill(store: Store, keys: Iterable[bytes]) -> None:
    batch = Batch()
    for key in keys:
        batch.put(Tree.ENTRIES, *stored(INDEX.prefix, key))
    await store.apply(batch.encode())


@contextmanager
def snapshot_of(store: Store) -> Iterator[SharedSnapshot]:
    catalog, live = Catalog.of_system(), LiveIndexes(lambda: 0.0)
    snapshot = SharedSnapshot(store.snapshot(), 1, catalog, {}, live, lambda: 0.0, 1.0)
    snapshot.lease()
    yield snapshot
    snapshot.release()


def in_memory(keys: Iterable[bytes]) -> MemoryStore:
    store = MemoryStore()
    trio.run(fill, store, list(keys))
    return store


def between(
    snapshot: SharedSnapshot,
    bounds: Bounds,
    *,
    reverse: bool = False,
    buckets: Buckets | None = None,
) -> Iterator[bytes]:
    lower, upper = interval_of(INDEX, bounds)
    entries = snapshot.entries(INDEX, lower, upper, reverse=reverse, buckets=buckets)
    return (key for key, row in entries if row == TABLE.to_bytes(4, "big") + key[-16:])


def equal(**fields: Any) -> Bounds:
    bounds = Bounds()
    for name, value in fields.items():
        bounds.add_equal(name.replace("creation_time", "_creationTime"), value)
    return bounds


@st.composite
def some_bounds(draw: st.DrawFn) -> Bounds:
    """Equalities on the first fields, and perhaps bounds on the next."""
    bounds = Bounds()
    names = ["a", "b", "_creationTime"]
    used = draw(st.integers(0, 2))
    for name in names[:used]:
        bounds.add_equal(name, draw(st.sampled_from(VALUES)))
    values = st.sampled_from(VALUES) if used < 2 else st.integers(-1, 8)
    if draw(st.booleans()):
        bounds.add_lower(names[used], draw(values), inclusive=draw(st.booleans()))
    if draw(st.booleans()):
        bounds.add_upper(names[used], draw(values), inclusive=draw(st.booleans()))
    return bounds


EVERY_PAIR = sorted(
    key_of(document(n, a, b), n) for n, (a, b) in enumerate(product(VALUES, repeat=2))
)
STORE = in_memory(EVERY_PAIR)


def crossed() -> Bounds:
    """Bounds between which nothing is, though both are in one bucket."""
    bounds = Bounds()
    bounds.add_equal("a", UNDEFINED)
    bounds.add_lower("b", EDGE + "e", inclusive=True)
    bounds.add_upper("b", EDGE + "\0b", inclusive=False)
    return bounds


@given(some_bounds(), st.booleans(), st.integers(0, 30))
@example(crossed(), False, 0)
def test_every_interval_has_its_entries_in_order(bounds: Bounds, reverse: bool, taken: int) -> None:
    lower, upper = interval_of(INDEX, bounds)
    expected = [key for key in EVERY_PAIR if lower <= key and (upper is None or key < upper)]
    if reverse:
        expected.reverse()

    with snapshot_of(STORE) as snapshot:
        found = list(between(snapshot, bounds, reverse=reverse))
        rest = list(after(snapshot, lower, upper, expected[:taken], reverse=reverse))

    assert expected == found
    assert expected[taken:] == rest


def after(
    snapshot: SharedSnapshot,
    lower: bytes,
    upper: bytes | None,
    seen: Sequence[bytes],
    *,
    reverse: bool,
) -> Iterator[bytes]:
    """As the next slice of a scan goes on."""
    if seen and reverse:
        upper = seen[-1]
    elif seen:
        lower = seen[-1] + b"\0"
    return (key for key, _ in snapshot.entries(INDEX, lower, upper, reverse=reverse))


@pytest.mark.parametrize("reverse", [False, True])
def test_after_each_entry_comes_the_one_beside_it(reverse: bool) -> None:
    keys = EVERY_PAIR[::-1] if reverse else EVERY_PAIR

    with snapshot_of(STORE) as snapshot:
        found = [next(after(snapshot, b"", None, [key], reverse=reverse), None) for key in keys]

    assert [*keys[1:], None] == found


@given(st.sampled_from(VALUES), st.sampled_from(VALUES))
def test_a_stored_key_fits_the_store_and_fills_it_only_if_it_is_bucketed(a: Any, b: Any) -> None:
    key = key_of(document(7, a, b), 7)

    stored_key, rest = stored(INDEX.prefix, key)

    assert len(stored_key) <= STORE_KEY_BYTES_MAX
    assert (len(stored_key) == STORE_KEY_BYTES_MAX) == (len(key) - 25 >= ENTRY_HEAD_BYTES)
    assert bool(rest) <= (len(stored_key) == STORE_KEY_BYTES_MAX)


SHARED = [document(n, LONG, "same" if n % 100 == 0 else f"{n:04}") for n in range(1_000)]


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
async def test_an_equality_on_all_fields_seeks_and_walks_no_bucket(
    kind: str, tmp_path: Path
) -> None:
    keys = [key_of(doc, n) for n, doc in enumerate(SHARED)]
    usage = Usage(Limits())
    store: Store = MemoryStore() if kind == "memory" else LmdbStore.open(tmp_path, writer="thread")

    await fill(store, keys)
    with snapshot_of(store) as snapshot:
        ask = partial(between, snapshot, buckets=Buckets(usage))
        same = list(ask(equal(a=LONG, b="same")))
        falling = list(ask(equal(a=LONG, b="same"), reverse=True))
        one = list(ask(equal(a=LONG, b="same", creation_time=50)))
        none = list(ask(equal(a=LONG, b="none")))
    store.close()

    assert keys[::100] == same == falling[::-1]
    assert [keys[100]] == one
    assert [] == none
    assert 0 == usage.documents_read


def test_the_first_entry_of_a_bucket_counts_the_others_as_read() -> None:
    keys = [key_of(doc, n) for n, doc in enumerate(SHARED)]
    usage = Usage(Limits())

    with snapshot_of(in_memory(keys)) as snapshot:
        first = next(between(snapshot, equal(a=LONG), buckets=Buckets(usage)))

    assert min(keys) == first
    assert len(keys) - 1 == usage.documents_read
    assert sum(map(len, keys)) - len(first) == usage.bytes_read


def test_entries_that_are_handed_out_are_counted_by_whoever_gets_them() -> None:
    keys = [key_of(doc, n) for n, doc in enumerate(SHARED)]
    usage = Usage(Limits())
    buckets = Buckets(usage)

    with snapshot_of(in_memory(keys)) as snapshot:
        once = list(between(snapshot, equal(a=LONG), buckets=buckets))
        twice = list(between(snapshot, equal(a=LONG), buckets=buckets))

    assert sorted(keys) == once == twice
    assert (0, 0) == (usage.documents_read, usage.bytes_read)


def test_a_bucket_with_more_than_may_be_read_is_refused_and_says_what_to_do() -> None:
    keys = [key_of(doc, n) for n, doc in enumerate(SHARED)]
    usage = Usage(replace(Limits(), documents_read_max=500))

    with (
        snapshot_of(in_memory(keys)) as snapshot,
        pytest.raises(LimitExceeded, match=r"501 is over .*begin alike for 450 bytes.* Use eq"),
    ):
        next(between(snapshot, equal(a=LONG), buckets=Buckets(usage)))

    assert 500 == usage.documents_read
