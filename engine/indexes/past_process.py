"""
The process that takes back what memory has no room for; see `annexes`.

It reads the log in snapshots of its own, each held for a second or so, and fills a scratch that
nobody else writes to.  So neither the engine's thread nor its writer wait for it, and LMDB keeps
no pages for it.  It ends when nobody reads what it says any more: then its engine is gone.

    engine  ── a job, as a line of JSON ────────▶  process
            ◀── a line of JSON for each slice ───
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from engine.errors import EngineError, OutOfRetention
from engine.indexes.catalog import IndexInfo, IndexKind
from engine.indexes.taken_back import Taken, first_row, lay, lay_all, take_back
from engine.log.records import ts_key
from engine.log.retention import read_anchor
from engine.store.interface import Tree
from engine.store.lmdb_environment import open_environment, open_trees
from engine.store.lmdb_scratch import LmdbScratchWriter
from engine.store.lmdb_snapshot import LmdbSnapshot

Fields: TypeAlias = dict[str, Any]

FULL: Final = "full"
"""The error of a scratch that has reached its bound."""
NICENESS: Final = 10
"""Whoever serves clients comes first."""
HELD_S: Final = 1.0
"""How long one snapshot of the store is read: what it can see is not reclaimed meanwhile."""


def take_back_job(store: Path, ts: int, upto: int, laid: Iterable[IndexInfo]) -> Fields:
    """
    To take back all records after `upto`, to the newest.

    Args:
        store: the folder of its environment.
        ts: which state it is for.
        laid: the indexes whose entries are there.
    """
    indexes = [_fields_of(index) for index in laid]
    return {"store": str(store), "ts": ts, "upto": upto, "laid": indexes}


def lay_job(index: IndexInfo) -> Fields:
    """To put the entries of an index."""
    return {"lay": _fields_of(index)}


def lay_all_job(take_back: Fields, index: IndexInfo) -> Fields:
    """To put those of an index that is no more, of all rows, and to take back what it needs."""
    return {**take_back, "lay_all": _fields_of(index)}


def refuse_if_trimmed(anchor_ts: int, ts: int) -> None:
    """
    Raises:
        OutOfRetention: the log does not go back to `ts` any more.
    """
    if ts < anchor_ts:
        raise OutOfRetention(
            f"ts {ts} is further back than the log is kept; the oldest is {anchor_ts} "
            "(log_age_s_max, log_bytes_max)"
        )


def main(_argument: str) -> int:
    """Do the job that comes first; the exit code."""
    # What a terminal or a supervisor sends to all is for the engine, which ends this one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    if not (line := sys.stdin.readline()):
        return 0  # the engine was gone before it said anything
    job = json.loads(line)
    try:
        with LmdbScratchWriter(Path(job["scratch"])) as scratch:
            for told in _work(scratch, job):
                _tell(**told)
                if scratch.size_bytes() > job["bytes_max"]:
                    _tell(error=FULL)
                    return 1
    except EngineError as error:
        with suppress(BrokenPipeError):
            _tell(error=type(error).__name__, message=str(error))
        return 1
    except BrokenPipeError:
        pass  # the engine is gone, and nobody waits for an answer
    return 0


def _work(scratch: LmdbScratchWriter, job: Fields) -> Iterator[Fields]:
    """What is to be told of each slice."""
    if "lay" in job:
        return ({} for _ in lay(scratch, _index_of(job["lay"])))
    return _take_back(scratch, job)


def _take_back(scratch: LmdbScratchWriter, job: Fields) -> Iterator[Fields]:
    path = Path(job["store"])
    laid = [_index_of(fields) for fields in job["laid"]]
    index = _index_of(job["lay_all"]) if "lay_all" in job else None
    lower = b"" if index is None else first_row(index)
    taken = Taken(job["upto"])

    def told() -> Fields:
        grown = list(taken.grown.items())
        return {"upto": taken.upto, "grown": grown, "records": taken.records}

    with open_environment(path, readonly=True, sync=True) as env:
        trees = open_trees(env, path, reader="")
        is_behind = True
        while is_behind:
            until = time.monotonic() + HELD_S
            is_behind = False
            with LmdbSnapshot(env.begin(), trees) as snapshot:
                refuse_if_trimmed(read_anchor(snapshot).ts, job["ts"])
                log = (data for _, data in snapshot.range(Tree.LOG, ts_key(taken.upto + 1), None))
                for _ in take_back(log, scratch, laid, taken):
                    yield told()
                    if is_behind := time.monotonic() > until:
                        break
                if is_behind or index is None:
                    continue
                # What a row is in this snapshot is what it was, unless it was taken back.
                now = partial(snapshot.range, Tree.ROWS)
                for reached in lay_all(now, scratch, index, lower):
                    lower = reached
                    yield told()
                    if is_behind := time.monotonic() > until:
                        break


def _fields_of(index: IndexInfo) -> Fields:
    """What the entries of an index follow from."""
    return {
        "index_id": index.index_id,
        "table_number": index.table_number,
        "fields": index.fields,
        "kind": index.kind.value,
    }


def _index_of(fields: Fields) -> IndexInfo:
    return IndexInfo(
        index_id=fields["index_id"],
        name="",
        table_number=fields["table_number"],
        fields=tuple(map(tuple, fields["fields"])),
        kind=IndexKind(fields["kind"]),
    )


def _tell(**fields: Any) -> None:
    os.write(sys.stdout.fileno(), json.dumps(fields).encode() + b"\n")
