"""
Conflict detection, as arithmetic: no actor, no clock, no I/O.

A transaction that did not run in the lane read a state that others have gone
on from.  It may be committed only if none of the commits since touches what it
read: then running it now would have given the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import Conflict
from engine.indexes.entries import Applied
from engine.model.commits import SYSTEM
from engine.model.ids import INTERNAL_BYTES, ROW_KEY_BYTES, id_of
from engine.model.reads import ReadSet


def find_conflict(
    reads: ReadSet, begin_ts: int, commits: Iterable[Applied], path: str
) -> Conflict | None:
    """
    The first of `commits` after `begin_ts` with an old or new key that was read.

    Args:
        path: the function that has read, whose own writes are told from those of others.
    """
    for commit in commits:
        if commit.ts > begin_ts and (touch := reads.touch_of(commit)) is not None:
            return _described(commit, touch.index_prefix, touch.key, path)
    return None


def _described(commit: Applied, prefix: bytes | None, key: bytes, path: str) -> Conflict:
    """The conflict with `commit`, which wrote the row `key`, or the entry `key` of an index."""
    by_number = commit.catalog.by_number
    if prefix is None:
        table, index, row = by_number[int.from_bytes(key[:4], "big")], "by_id", key
    else:
        table = next(one for one in by_number.values() if prefix in one.by_prefix)
        index, row = table.by_prefix[prefix].name, table.row_prefix + key[-INTERNAL_BYTES:]
    document = id_of(row) if len(row) == ROW_KEY_BYTES else ""
    which = f"the document {document}" if document else "a row"
    return Conflict(
        f"what was read in the table {table.name!r} has changed meanwhile: "
        f"{_writer(commit.writer, path)} wrote {which} (index {index!r}, commit {commit.ts}); "
        "it can be run again",
        table=table.name,
        document=document,
        index=index,
        writer=commit.writer,
        ts=commit.ts,
    )


def _writer(writer: str, path: str) -> str:
    if writer == path:
        return "another call to this mutation"
    return "the engine" if writer in ("", SYSTEM.path) else writer
