"""
A data directory in which bits have flipped and rows are gone: refused, or found by verify.

Records have checksums and rows do not, so a row is found by its share of the state hash. All that
nothing guards is the signature of the software that made the store.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import trio

from engine import Engine, MutationCtx, QueryCtx, Schema, StoreDamaged, Table, mutation, query, v
from engine.indexes.verify import verify
from engine.model.codec import encode
from engine.store.format import HEADER_KEY
from engine.store.interface import Tree
from engine.store.lmdb_environment import open_environment, open_trees
from engine.store.lmdb_store import LmdbStore

LONG = "long" * 200

schema = Schema(
    notes=Table(v.object({"n": v.number(), "text": v.string()}))
    .index("by_n", ["n"])
    .index("by_text", ["text"])
)


@mutation
async def add(ctx: MutationCtx, n: float) -> None:
    await ctx.db.insert("notes", {"n": n, "text": LONG * (n % 2 == 0)})
    await ctx.scheduler.run_after(3_600_000, add, n)


@query
async def texts(ctx: QueryCtx) -> list[str]:
    found = await ctx.db.query("notes").with_index("by_text").collect()
    return [note["text"] for note in found]


APP = [schema, add, texts]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("written")

    async def write() -> None:
        async with Engine.open(directory, app=APP) as engine:
            for n in range(6):
                await engine.mutation(add, n)

    trio.run(write)
    return directory


def damage(directory: Path, tree: Tree, dice: random.Random) -> None:
    """Flip a bit of a key or a value of the tree, cut the value, or remove it."""
    path = directory / "store"
    with open_environment(path, readonly=False, sync=False) as env:
        place = open_trees(env, path, reader="here")[tree]
        with env.begin(write=True) as txn:
            rows = [(k, value) for k, value in txn.cursor(place) if k != HEADER_KEY]
            key, value = dice.choice(rows)
            how = dice.choice(
                ["bit", "bit", "cut", "gone", "moved"] if value else ["gone", "moved"]
            )
            txn.delete(key, db=place)
            if how == "moved":
                txn.put(_flipped(key, dice), value, db=place)
            elif how != "gone":
                kept = value[: dice.randrange(len(value))]
                txn.put(key, kept if how == "cut" else _flipped(value, dice), db=place)


def _flipped(data: bytes, dice: random.Random) -> bytes:
    bit = dice.randrange(8 * len(data))
    return bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(data))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("tree", Tree)
def test_what_is_damaged_is_refused_or_found(
    written: Path, tree: Tree, seed: int, tmp_path: Path
) -> None:
    directory = shutil.copytree(written, tmp_path / "damaged")
    damage(directory, tree, random.Random(seed))

    try:
        with LmdbStore.open(directory, writer="thread", sync=False) as store:
            *_, found = verify(store.snapshot)
    except StoreDamaged:
        return
    assert not found.is_sound


async def test_the_index_entry_of_a_row_that_is_gone_is_damage_and_no_missing_document(
    written: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(written, tmp_path / "damaged")
    path = directory / "store"
    with open_environment(path, readonly=False, sync=False) as env:
        rows = open_trees(env, path, reader="here")[Tree.ROWS]
        with env.begin(write=True) as txn:
            [*_, newest] = txn.cursor(rows).iternext(values=False)
            txn.delete(newest, db=rows)

    async with Engine.open(directory, app=APP) as engine:
        with pytest.raises(StoreDamaged, match=r"index 'by_text' has an entry of .* not there"):
            await engine.query(texts)


@pytest.mark.parametrize("version", [-2, 2**40])
def test_a_format_that_never_was_is_refused(written: Path, version: int, tmp_path: Path) -> None:
    directory = shutil.copytree(written, tmp_path / "damaged")
    path = directory / "store"
    with open_environment(path, readonly=False, sync=False) as env:
        meta = open_trees(env, path, reader="here")[Tree.META]
        with env.begin(write=True) as txn:
            txn.put(HEADER_KEY, encode({"version": version, "created_by": "x"}), db=meta)

    with pytest.raises(StoreDamaged):
        LmdbStore.open(directory, writer="thread", sync=False)
