"""What scratch promises, in a folder and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Stopped, StoreDamaged, StoreFailed
from engine.store.interface import Snapshot, Tree
from engine.store.lmdb_scratch import LmdbScratch, LmdbScratchWriter
from engine.store.memory_scratch import MemoryScratch
from engine.store.scratch import Scratch, ScratchWriter

KEYS: Final = [b"a", b"a\0", b"ab", b"b", b"\xff\xff"]


@pytest.fixture(params=["in memory", "in a folder"])
def scratches(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scratches]:
    with Scratches.opened(request.param, tmp_path / "scratch") as found:
        yield found


class Scratches:
    """One that is filled, and read."""

    def __init__(self, writer: ScratchWriter, reader: Scratch) -> None:
        self.writer = writer
        self.reader = reader

    @classmethod
    @contextmanager
    def opened(cls, where: str, folder: Path) -> Iterator[Scratches]:
        if where == "in memory":
            one = MemoryScratch()
            yield cls(one, one)
            return
        # LMDB forbids two environments on the same files in one process, so the writer reads, too.
        with LmdbScratchWriter(folder) as writer:
            yield cls(writer, writer)


def content(snapshot: Snapshot, tree: Tree = Tree.ROWS) -> dict[bytes, bytes]:
    return dict(snapshot.range(tree, b"", None))


@given(
    added=st.lists(
        st.dictionaries(st.sampled_from(KEYS), st.binary(max_size=3), min_size=1), max_size=5
    )
)
@pytest.mark.parametrize("where", ["in memory", "in a folder"])
def test_the_first_value_of_a_key_stays(
    where: str, added: list[dict[bytes, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected: dict[bytes, bytes] = {}
    with Scratches.opened(where, tmp_path_factory.mktemp("one") / "scratch") as scratches:
        for part in added:
            fresh = scratches.writer.fresh(sorted(part))
            assert sorted(part.keys() - expected.keys()) == fresh
            scratches.writer.add(sorted(part.items()), sorted(part.items()))
            expected = {**part, **expected}
        with scratches.reader.snapshot() as snapshot:
            assert expected == content(snapshot) == content(snapshot, Tree.ENTRIES)
            assert [snapshot.get(Tree.ROWS, key) for key in KEYS] == [*map(expected.get, KEYS)]


def test_a_snapshot_stays_as_it_was(scratches: Scratches) -> None:
    scratches.writer.add([(b"a", b"1")], [])
    with scratches.reader.snapshot() as before:
        scratches.writer.add([(b"b", b"")], [(b"e", b"")])
        with scratches.reader.snapshot() as after:
            assert {b"a": b"1"} == content(before)
            assert {} == content(before, Tree.ENTRIES)
            assert {b"a": b"1", b"b": b""} == content(after)
            assert {b"e": b""} == content(after, Tree.ENTRIES)


def test_it_grows(scratches: Scratches) -> None:
    before = scratches.writer.size_bytes()
    scratches.writer.add([(b"a%d" % n, bytes(1_000)) for n in range(100)], [])

    assert scratches.writer.size_bytes() >= before + 100_000


def test_who_reads_one_that_is_closed_is_told(tmp_path: Path) -> None:
    with LmdbScratchWriter(tmp_path / "scratch") as writer:
        writer.add([(b"a", b"1")], [])
    scratch = LmdbScratch(tmp_path / "scratch")
    snapshot = scratch.snapshot()
    assert b"1" == snapshot.get(Tree.ROWS, b"a")
    scratch.close()

    with pytest.raises(Stopped):
        snapshot.get(Tree.ROWS, b"a")


def test_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="cannot be opened"):
        LmdbScratch(tmp_path / "scratch")
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "data.mdb").write_bytes(b"nothing that LMDB wrote" * 1_000)
    with pytest.raises(StoreDamaged):
        LmdbScratch(tmp_path / "scratch")
