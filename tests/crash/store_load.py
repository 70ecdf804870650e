"""
An engine's store under load, as a process to be killed: `python -m tests.crash.store_load`.

Batch n appends n to the log, sets every row to n and fills one more; then n is printed. So each
line on stdout is a batch that was acknowledged, and rows that disagree are a torn batch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import trio

from engine.store.interface import Batch, Store, Tree
from engine.store.lmdb_store import LmdbStore

ROWS: Final = 50


def batch_of(n: int) -> bytes:
    """Batch n."""
    batch = Batch()
    number = n.to_bytes(8, "big")
    batch.put(Tree.LOG, number, b"record " + number)
    batch.merge(Tree.ROWS, {bytes([row]): number for row in range(ROWS)})
    batch.put(Tree.ENTRIES, number, b"")
    return batch.encode()


def last_batch(store: Store) -> int:
    """The number of the last batch that was written; fails if any batch is there in part."""
    with store.snapshot() as snapshot:
        last = snapshot.last(Tree.LOG)
        n = int.from_bytes(last[0], "big") if last else 0
        rows = set(snapshot.range(Tree.ROWS, b"", None))
        entries = [int.from_bytes(key, "big") for key, _ in snapshot.range(Tree.ENTRIES, b"", None)]
    expected = {(bytes([row]), n.to_bytes(8, "big")) for row in range(ROWS)} if n else set()
    assert expected == rows
    assert list(range(1, n + 1)) == entries
    return n


async def _run(store: Store, batches: int) -> None:
    first = last_batch(store) + 1
    for n in range(first, first + batches):
        await store.apply(batch_of(n))
        print(n, flush=True)  # noqa: T201 - what the killer reads


def main() -> None:
    """Open, say so, write until killed or done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--writer", choices=["process", "thread"], default="process")
    parser.add_argument("--batches", type=int, default=1_000_000)
    options = parser.parse_args()
    with LmdbStore.open(options.directory, writer=options.writer) as store:
        print("open", store.describe()["writer_pid"], flush=True)  # noqa: T201 - likewise
        trio.run(_run, store, options.batches)


if __name__ == "__main__":
    main()
