"""What every store promises, and what the ones on a disk promise besides."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import pytest
import trio
import trio.lowlevel

from engine.errors import Overloaded, Stopped, StoreDamaged, StoreFailed, StoreFull, StoreLocked
from engine.model.codec import encode
from engine.model.limits import STORE_KEY_BYTES_MAX, STORE_MAP_BYTES, STORE_READERS_MAX
from engine.model.values import Value
from engine.store.directory_lock import LOCK_FILE, WRITER_FILE
from engine.store.format import FORMAT_VERSION, HEADER_KEY
from engine.store.interface import Batch, Snapshot, Store, Tree
from engine.store.lmdb_environment import open_environment
from engine.store.lmdb_store import LMDB_FOLDER, LmdbStore, read_lock
from engine.store.memory_store import MemoryStore

Where = Literal["process", "thread"]
ON_DISK: Final[tuple[Where, ...]] = ("thread", "process")
KEYS: Final = [b"a", b"a\0", b"aa", b"ab", b"b", b"ba", b"\xff", b"\xff\xff"]
SMALL_BYTES: Final = 1 << 20
"""A size limit that a few batches reach."""


class Stores:
    """Opens stores of one kind, any number after another, all with the same content."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self._directory = directory
        self._memory = MemoryStore()

    def open(self, *, data_bytes_max: int = STORE_MAP_BYTES) -> Store:
        match self.kind:
            case "lmdb-thread":
                writer: Where = "thread"
            case "lmdb-process":
                writer = "process"
            case _:
                self._memory = self._memory.durable_copy(data_bytes_max=data_bytes_max)
                return self._memory
        return LmdbStore.open(self._directory, data_bytes_max=data_bytes_max, writer=writer)


@pytest.fixture(params=["memory", "lmdb-thread", "lmdb-process"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return Stores(request.param, tmp_path / "data")


@pytest.fixture
def store(stores: Stores) -> Iterator[Store]:
    opened = stores.open()
    yield opened
    opened.close()


@pytest.fixture
def small(stores: Stores) -> Iterator[Store]:
    opened = stores.open(data_bytes_max=SMALL_BYTES)
    yield opened
    opened.close()


@pytest.fixture(params=ON_DISK)
def open_on_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], LmdbStore]:
    return lambda: LmdbStore.open(tmp_path / "data", writer=request.param)


def puts(tree: Tree, rows: dict[bytes, bytes]) -> bytes:
    batch = Batch()
    batch.merge(tree, rows)
    return batch.encode()


def deletes(tree: Tree, *keys: bytes) -> bytes:
    batch = Batch()
    for key in keys:
        batch.delete(tree, key)
    return batch.encode()


def content(snapshot: Snapshot, tree: Tree) -> dict[bytes, bytes]:
    return dict(snapshot.range(tree, b"", None))


def state(store: Store) -> list[dict[bytes, bytes]]:
    with store.snapshot() as snapshot:
        return [content(snapshot, tree) for tree in Tree]


class TestReading:
    async def test_what_was_applied_is_read_back(self, store: Store) -> None:
        await store.apply(puts(Tree.ROWS, {b"k": b"value", b"empty": b""}))

        with store.snapshot() as snapshot:
            assert b"value" == snapshot.get(Tree.ROWS, b"k")
            assert b"" == snapshot.get(Tree.ROWS, b"empty")

    async def test_what_is_not_there_is_none(self, store: Store) -> None:
        with store.snapshot() as snapshot:
            assert snapshot.get(Tree.ROWS, b"k") is None
            assert snapshot.get(Tree.ROWS, b"") is None
            assert snapshot.get(Tree.ROWS, b"k" * (STORE_KEY_BYTES_MAX + 1)) is None
            assert snapshot.last(Tree.ROWS) is None
            assert [] == list(snapshot.range(Tree.ROWS, b"", None))
            assert [] == list(snapshot.range(Tree.ROWS, b"", None, reverse=True))

    async def test_trees_are_apart(self, store: Store) -> None:
        for tree in Tree:
            await store.apply(puts(tree, {b"same": bytes([tree])}))

        with store.snapshot() as snapshot:
            found = {tree: snapshot.get(tree, b"same") for tree in Tree}

        assert {tree: bytes([tree]) for tree in Tree} == found

    @pytest.mark.parametrize("reverse", [False, True])
    async def test_a_range_has_its_lower_bound_and_not_its_upper(
        self, store: Store, reverse: bool
    ) -> None:
        await store.apply(puts(Tree.ENTRIES, {key: key[::-1] for key in KEYS}))
        bounds = [b"", *KEYS, b"0", b"aaa", b"zz", b"\xff" * STORE_KEY_BYTES_MAX]

        with store.snapshot() as snapshot:
            for lower in bounds:
                for upper in [*bounds, b"\xff" * (STORE_KEY_BYTES_MAX + 1), None]:
                    inside = [k for k in KEYS if lower <= k and (upper is None or k < upper)]
                    expected = [(key, key[::-1]) for key in sorted(inside, reverse=reverse)]
                    found = list(snapshot.range(Tree.ENTRIES, lower, upper, reverse=reverse))
                    assert expected == found, (lower, upper)

    async def test_the_last_key_is_the_greatest(self, store: Store) -> None:
        await store.apply(puts(Tree.LOG, {b"1": b"one", b"3": b"three", b"2": b"two"}))

        with store.snapshot() as snapshot:
            assert (b"3", b"three") == snapshot.last(Tree.LOG)

    async def test_a_range_may_be_left_half_way(self, store: Store) -> None:
        await store.apply(puts(Tree.ROWS, dict.fromkeys(KEYS, b"")))

        with store.snapshot() as snapshot:
            abandoned = snapshot.range(Tree.ROWS, b"", None)
            first = next(abandoned)
            del abandoned
            again = next(snapshot.range(Tree.ROWS, b"", None))
        await store.apply(puts(Tree.ROWS, {b"later": b""}))

        assert first == again == (KEYS[0], b"")

    async def test_ranges_may_be_walked_side_by_side(self, store: Store) -> None:
        await store.apply(puts(Tree.ROWS, dict.fromkeys(KEYS, b"")))

        with store.snapshot() as snapshot:
            rising = snapshot.range(Tree.ROWS, b"", None)
            falling = snapshot.range(Tree.ROWS, b"", None, reverse=True)
            pairs = [(up, down) for (up, _), (down, _) in zip(rising, falling, strict=True)]

        assert list(zip(sorted(KEYS), sorted(KEYS, reverse=True), strict=True)) == pairs


class TestBatches:
    async def test_the_last_that_is_said_of_a_key_counts(self, store: Store) -> None:
        await store.apply(puts(Tree.ROWS, {b"goes": b"old", b"stays": b"old"}))
        batch = Batch()
        batch.put(Tree.ROWS, b"goes", b"new")
        batch.delete(Tree.ROWS, b"goes")
        batch.delete(Tree.ROWS, b"stays")
        batch.put(Tree.ROWS, b"stays", b"first")
        batch.merge(Tree.ROWS, {b"stays": b"second"})
        await store.apply(batch.encode())

        with store.snapshot() as snapshot:
            assert {b"stays": b"second"} == content(snapshot, Tree.ROWS)

    async def test_to_delete_what_is_not_there_is_nothing(self, store: Store) -> None:
        await store.apply(deletes(Tree.ROWS, b"never", b"k" * (STORE_KEY_BYTES_MAX + 1)))

        with store.snapshot() as snapshot:
            assert {} == content(snapshot, Tree.ROWS)

    async def test_an_empty_batch_changes_nothing(self, store: Store) -> None:
        await store.apply(puts(Tree.ROWS, {b"k": b"v"}))
        before = state(store)
        await store.apply(Batch().encode())

        assert before == state(store)

    async def test_keys_and_values_may_be_large(self, store: Store) -> None:
        key, value = b"\xff" * STORE_KEY_BYTES_MAX, random.Random(1).randbytes(3 << 20)
        await store.apply(puts(Tree.ROWS, {key: value}))

        with store.snapshot() as snapshot:
            assert value == snapshot.get(Tree.ROWS, key)

    async def test_a_batch_is_seen_whole_or_not_at_all(self, store: Store) -> None:
        seen: list[set[bytes]] = []

        async def look() -> None:
            while True:
                with store.snapshot() as snapshot:
                    seen.append(set(content(snapshot, Tree.ROWS).values()))
                await trio.lowlevel.checkpoint()

        await store.apply(puts(Tree.ROWS, {bytes([n]): b"0" for n in range(200)}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            for round_ in range(1, 20):
                await store.apply(puts(Tree.ROWS, {bytes([n]): b"%d" % round_ for n in range(200)}))
            nursery.cancel_scope.cancel()

        assert [] == [values for values in seen if len(values) != 1]
        assert len(set(map(frozenset, seen))) > 1

    @pytest.mark.parametrize("seed", range(3))
    async def test_a_store_is_a_sorted_dictionary(self, store: Store, seed: int) -> None:
        dice = random.Random(seed)
        model: dict[bytes, bytes] = {}
        held: list[tuple[Snapshot, dict[bytes, bytes]]] = []
        for _ in range(40):
            batch = Batch()
            for _ in range(dice.randrange(30)):
                key = b"%03d" % dice.randrange(300)
                if dice.random() < 0.4:
                    batch.delete(Tree.ROWS, key)
                    model.pop(key, None)
                else:
                    model[key] = dice.randbytes(dice.randrange(3000))
                    batch.put(Tree.ROWS, key, model[key])
            await store.apply(batch.encode())
            if dice.random() < 0.3:
                held.append((store.snapshot(), dict(model)))
            if held and dice.random() < 0.2:
                held.pop(dice.randrange(len(held)))[0].close()
        held.append((store.snapshot(), model))

        for snapshot, expected in held:
            lower, upper = sorted(b"%03d" % dice.randrange(300) for _ in range(2))
            inside = sorted((k, v) for k, v in expected.items() if lower <= k < upper)
            assert sorted(expected.items()) == list(snapshot.range(Tree.ROWS, b"", None))
            assert inside[::-1] == list(snapshot.range(Tree.ROWS, lower, upper, reverse=True))


class TestSnapshots:
    async def test_a_snapshot_does_not_see_later_batches(self, store: Store) -> None:
        await store.apply(puts(Tree.ROWS, {b"changes": b"old", b"goes": b"old"}))
        snapshot = store.snapshot()
        batch = Batch()
        batch.merge(Tree.ROWS, {b"changes": b"new", b"goes": None, b"comes": b"new"})
        await store.apply(batch.encode())

        assert {b"changes": b"old", b"goes": b"old"} == content(snapshot, Tree.ROWS)
        assert snapshot.get(Tree.ROWS, b"comes") is None
        assert {b"changes": b"new", b"comes": b"new"} == state(store)[Tree.ROWS]

    async def test_a_range_goes_on_as_it_began(self, store: Store) -> None:
        rows = {b"%04d" % n: b"old" for n in range(500)}
        await store.apply(puts(Tree.ROWS, rows))
        with store.snapshot() as snapshot:
            rising = snapshot.range(Tree.ROWS, b"", None)
            falling = snapshot.range(Tree.ROWS, b"", None, reverse=True)
            found_up, found_down = [next(rising)], [next(falling)]
            await store.apply(deletes(Tree.ROWS, *list(rows)[::2]))
            await store.apply(puts(Tree.ROWS, {key + b"+": b"new" for key in rows}))
            found_up += rising
            found_down += falling

        assert sorted(rows.items()) == found_up == found_down[::-1]

    async def test_a_snapshot_that_is_closed_refuses(self, store: Store) -> None:
        await store.apply(puts(Tree.ROWS, dict.fromkeys(KEYS, b"")))
        snapshot = store.snapshot()
        begun, walk = (snapshot.range(Tree.ROWS, b"", None) for _ in range(2))
        next(begun)
        snapshot.close()
        snapshot.close()

        refused: list[Callable[[], object]] = [
            lambda: snapshot.get(Tree.ROWS, b"a"),
            lambda: snapshot.range(Tree.ROWS, b"", None),
            lambda: snapshot.last(Tree.ROWS),
            lambda: next(begun),
            lambda: next(walk),
        ]
        for use in refused:
            with pytest.raises(Stopped, match="closed"):
                use()

    async def test_a_snapshot_that_is_forgotten_is_closed(self, store: Store) -> None:
        for _ in range(STORE_READERS_MAX + 10):
            store.snapshot()

        with store.snapshot() as snapshot:
            assert snapshot.get(Tree.ROWS, b"k") is None


class TestRoom:
    async def test_a_batch_that_does_not_fit_is_refused_and_nothing_of_it_written(
        self, small: Store
    ) -> None:
        await small.apply(puts(Tree.ROWS, {b"kept": b"v"}))
        before = state(small)
        batch = Batch()
        batch.put(Tree.META, b"m", b"v")
        batch.put(Tree.LOG, b"l", b"v")
        batch.delete(Tree.ROWS, b"kept")
        batch.put(Tree.ROWS, b"large", bytes(2 * SMALL_BYTES))

        with pytest.raises(StoreFull):
            await small.apply(batch.encode())

        assert before == state(small)

    async def test_a_full_store_takes_deletes_and_then_puts_again(self, small: Store) -> None:
        taken = 0
        with pytest.raises(StoreFull):
            while taken < 1000:
                await small.apply(puts(Tree.ROWS, {b"%04d" % taken: bytes(50_000)}))
                taken += 1
        await small.apply(deletes(Tree.ROWS, b"0000", b"0001"))
        await small.apply(puts(Tree.ROWS, {b"new": bytes(50_000)}))

        assert 10 < taken < 21
        assert taken - 1 == len(state(small)[Tree.ROWS])

    async def test_a_store_over_its_limit_still_takes_what_makes_it_smaller(
        self, stores: Stores
    ) -> None:
        large = stores.open()
        await large.apply(puts(Tree.ROWS, {b"%d" % n: bytes(SMALL_BYTES) for n in range(3)}))
        large.close()
        small = stores.open(data_bytes_max=SMALL_BYTES)

        with pytest.raises(StoreFull):
            await small.apply(puts(Tree.ROWS, {b"more": bytes(10_000)}))
        batch = Batch()
        batch.put(Tree.LOG, b"1", b"trimmed")
        batch.delete(Tree.ROWS, b"0")
        await small.apply(batch.encode())

        assert [b"1", b"2"] == list(state(small)[Tree.ROWS])
        small.close()

    @pytest.mark.parametrize("length", [0, STORE_KEY_BYTES_MAX + 1])
    async def test_a_key_that_cannot_be_refuses_the_batch(self, store: Store, length: int) -> None:
        before = state(store)

        with pytest.raises(StoreFull, match="key"):
            await store.apply(puts(Tree.ROWS, {b"good": b"", b"k" * length: b""}))

        assert before == state(store)
        await store.apply(puts(Tree.ROWS, {b"good": b""}))

    async def test_size_grows_with_what_is_put_and_falls_with_what_is_deleted(
        self, store: Store
    ) -> None:
        rows = {b"%d" % n: bytes(10_000) for n in range(100)}
        empty = store.size_bytes()
        await store.apply(puts(Tree.ROWS, rows))
        full = store.size_bytes()
        await store.apply(deletes(Tree.ROWS, *rows))

        assert 1_000_000 <= full - empty < 1_500_000
        assert store.size_bytes() - empty < 10_000


class TestFates:
    @pytest.mark.parametrize("key", [b"5", b"4"])
    async def test_the_log_only_grows_at_its_end(self, store: Store, key: bytes) -> None:
        await store.apply(puts(Tree.LOG, {b"5": b"first"}))
        before = state(store)

        with pytest.raises(StoreFailed):
            await store.apply(puts(Tree.LOG, {b"6": b"second", key: b"back in time"}))

        assert before == state(store)

    async def test_a_log_may_be_trimmed(self, store: Store) -> None:
        await store.apply(puts(Tree.LOG, {b"%d" % n: b"" for n in range(1, 6)}))
        batch = Batch()
        batch.merge(Tree.LOG, {b"1": None, b"2": None, b"6": b""})
        await store.apply(batch.encode())

        assert [b"3", b"4", b"5", b"6"] == list(state(store)[Tree.LOG])

    async def test_after_an_unknown_fate_nothing_more_is_taken(self, store: Store) -> None:
        await store.apply(puts(Tree.LOG, {b"5": b""}))
        with pytest.raises(StoreFailed):
            await store.apply(puts(Tree.LOG, {b"4": b""}))

        with pytest.raises(StoreFailed, match="may or may not"):
            await store.apply(puts(Tree.ROWS, {b"k": b"v"}))

        assert {} == state(store)[Tree.ROWS]
        assert "may or may not" in str(store.obstacle())

    async def test_nothing_is_in_the_way_of_a_store_that_takes_batches(self, store: Store) -> None:
        await store.apply(puts(Tree.ROWS, {b"k": b"v"}))

        assert store.obstacle() is None

    async def test_cancelled_before_it_begins_a_batch_is_not_written(self, store: Store) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.apply(puts(Tree.ROWS, {b"k": b"v"}))

        assert scope.cancelled_caught
        assert {} == state(store)[Tree.ROWS]
        await store.apply(puts(Tree.ROWS, {b"k": b"v"}))

    async def test_cancelled_on_its_way_a_batch_is_written_and_says_so(self, store: Store) -> None:
        returned = False

        async def apply() -> None:
            nonlocal returned
            await store.apply(puts(Tree.ROWS, {b"%d" % n: bytes(1000) for n in range(5000)}))
            returned = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(apply)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()  # by the second one it has begun
            nursery.cancel_scope.cancel()

        assert returned
        assert 5000 == len(state(store)[Tree.ROWS])

    async def test_batches_are_applied_one_at_a_time(self, store: Store) -> None:
        with pytest.RaisesGroup(pytest.RaisesExc(AssertionError, match="one batch at a time")):
            async with trio.open_nursery() as nursery:
                for n in range(2):
                    nursery.start_soon(store.apply, puts(Tree.ROWS, {b"%d" % n: b""}))

    async def test_a_closed_store_refuses(self, store: Store) -> None:
        snapshot = store.snapshot()
        store.close()
        store.close()

        with pytest.raises(Stopped, match="closed"):
            await store.apply(Batch().encode())
        with pytest.raises(Stopped, match="closed"):
            store.snapshot()
        with pytest.raises(Stopped, match="closed"):
            snapshot.get(Tree.ROWS, b"k")

    async def test_what_was_applied_is_there_when_opened_again(self, stores: Stores) -> None:
        first = stores.open()
        await first.apply(puts(Tree.ROWS, {b"k": b"v"}))
        await first.apply(puts(Tree.LOG, {b"1": b"r"}))
        before = state(first)
        first.close()
        second = stores.open()

        assert before == state(second)
        await second.apply(puts(Tree.LOG, {b"2": b"r"}))
        second.close()

    async def test_a_store_describes_itself_in_json(self, store: Store) -> None:
        described = store.describe()

        assert described == json.loads(json.dumps(described))
        assert store.size_bytes() == described["size_bytes"]


class TestDirectories:
    def test_one_process_at_a_time_has_a_directory(
        self, open_on_disk: Callable[[], LmdbStore]
    ) -> None:
        with open_on_disk() as store:
            store.set_url("http://127.0.0.1:3210")

            with pytest.raises(StoreLocked) as refused:
                open_on_disk()

        assert os.getpid() == refused.value.pid
        assert "http://127.0.0.1:3210" == refused.value.url
        assert "http://127.0.0.1:3210" in str(refused.value)
        open_on_disk().close()

    @pytest.mark.parametrize("writer", ON_DISK)
    def test_others_can_read_who_has_it(self, tmp_path: Path, writer: Where) -> None:
        code = (
            "import sys; from pathlib import Path; from engine.store.lmdb_store import LmdbStore\n"
            f"with LmdbStore.open(Path(sys.argv[1]), writer={writer!r}) as store:\n"
            "    store.set_url('http://there:1'); print('open', flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", code, str(tmp_path)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdout.readline()
            holder = read_lock(tmp_path)
            with pytest.raises(StoreLocked) as refused:
                LmdbStore.open(tmp_path, writer=writer)
            other.stdin.close()

        assert holder is not None
        assert (other.pid, "http://there:1") == (holder.pid, holder.url)
        assert (other.pid, "http://there:1") == (refused.value.pid, refused.value.url)
        assert read_lock(tmp_path) is None

    def test_nobody_has_what_was_never_opened(self, tmp_path: Path) -> None:
        assert read_lock(tmp_path / "nowhere") is None

    def test_its_files_are_for_their_owner(
        self, open_on_disk: Callable[[], LmdbStore], tmp_path: Path
    ) -> None:
        open_on_disk().close()
        data = tmp_path / "data"
        files = [data / LOCK_FILE, data / WRITER_FILE, *(data / LMDB_FOLDER).iterdir()]

        assert [0o600] * 4 == [stat.S_IMODE(file.stat().st_mode) for file in files]

    @pytest.mark.parametrize("writer", ON_DISK)
    def test_nothing_that_flushes_is_turned_off(self, tmp_path: Path, writer: Where) -> None:
        with LmdbStore.open(tmp_path, writer=writer) as store:
            described = store.describe()

        flags = described["flags"]
        assert isinstance(flags, dict)
        expected = {"sync": True, "metasync": True, "writemap": False, "map_async": False}
        assert expected.items() <= flags.items()
        assert flags["lock"]
        assert (STORE_MAP_BYTES, writer) == (described["map_bytes"], described["writer"])

    async def test_a_batch_is_two_flushes(self, open_on_disk: Callable[[], LmdbStore]) -> None:
        with open_on_disk() as store:
            for n in range(3):
                await store.apply(puts(Tree.ROWS, {b"k": b"%d" % n}))
            await store.apply(Batch().encode())  # nothing to write, nothing to flush
            described = store.describe()

        assert 6 == described["flushes"]

    async def test_a_full_table_of_snapshots_is_said_so(
        self, open_on_disk: Callable[[], LmdbStore]
    ) -> None:
        with open_on_disk() as store:
            held = [store.snapshot() for _ in range(STORE_READERS_MAX)]

            with pytest.raises(Overloaded):
                store.snapshot()
            held[0].close()
            store.snapshot().close()


class TestFormats:
    def test_a_newer_format_is_refused_and_both_are_named(
        self, open_on_disk: Callable[[], LmdbStore], tmp_path: Path
    ) -> None:
        open_on_disk().close()
        rewrite_header(tmp_path, {"version": FORMAT_VERSION + 1, "created_by": "headrace 99"})

        with pytest.raises(StoreDamaged) as refused:
            open_on_disk()

        assert f"format {FORMAT_VERSION + 1}, created by headrace 99" in str(refused.value)
        assert f"formats up to {FORMAT_VERSION}" in str(refused.value)

    @pytest.mark.parametrize("header", [None, {"version": "1"}, 7])
    def test_trees_without_a_readable_header_are_refused(
        self, open_on_disk: Callable[[], LmdbStore], tmp_path: Path, header: Value | None
    ) -> None:
        open_on_disk().close()
        rewrite_header(tmp_path, header)

        with pytest.raises(StoreDamaged, match="header"):
            open_on_disk()

    def test_files_that_are_not_ours_are_refused_and_left_alone(
        self, open_on_disk: Callable[[], LmdbStore], tmp_path: Path
    ) -> None:
        file = tmp_path / "data" / LMDB_FOLDER / "data.mdb"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"no database" * 1000)

        with pytest.raises(StoreDamaged):
            open_on_disk()

        assert b"no database" * 1000 == file.read_bytes()

    def test_a_refused_directory_is_not_kept_locked(
        self, open_on_disk: Callable[[], LmdbStore], tmp_path: Path
    ) -> None:
        open_on_disk().close()
        rewrite_header(tmp_path, {"version": FORMAT_VERSION + 1, "created_by": "headrace 99"})
        with pytest.raises(StoreDamaged):
            open_on_disk()
        rewrite_header(tmp_path, {"version": FORMAT_VERSION, "created_by": "headrace 1"})

        open_on_disk().close()


def rewrite_header(root: Path, header: Value | None) -> None:
    path = root / "data" / LMDB_FOLDER
    with open_environment(path, readonly=False, sync=True) as env:
        meta = env.open_db(b"meta", create=False)
        with env.begin(db=meta, write=True) as txn:
            if header is None:
                assert txn.delete(HEADER_KEY)
            else:
                txn.put(HEADER_KEY, encode(header))
