"""Log records as operators see them: in short, in full, and beside what a replay writes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from engine.errors import RequestRefused
from engine.functions.handles import HANDLES
from engine.functions.replay import Difference, Replayed
from engine.indexes.catalog import DEPLOYMENTS, Catalog
from engine.log.records import Record, decode_record, ts_key
from engine.log.retention import read_anchor
from engine.model.codec import decode
from engine.model.commits import Kind, RowWrite
from engine.model.ids import ROW_KEY_BYTES, id_of
from engine.model.json_values import Json, to_wire
from engine.store.interface import Snapshot, Tree


def records_after(snapshot: Snapshot, after: int, count: int) -> Iterator[bytes]:
    """The oldest records later than `after`, encoded, oldest first."""
    found = snapshot.range(Tree.LOG, ts_key(after + 1), None)
    return (data for _, data in islice(found, count))


def last_records(snapshot: Snapshot, count: int) -> Iterator[bytes]:
    """The newest records, encoded, newest first."""
    found = snapshot.range(Tree.LOG, b"", None, reverse=True)
    return (data for _, data in islice(found, count))


def ts_before(snapshot: Snapshot, ts: int) -> int:
    """Of the commit before `ts`, whose record may have gone."""
    found = next(snapshot.range(Tree.LOG, b"", ts_key(ts), reverse=True), None)
    return read_anchor(snapshot).ts if found is None else int.from_bytes(found[0], "big")


def record_at(snapshot: Snapshot, ts: int) -> Record:
    """
    Raises:
        RequestRefused: there is none of that ts.
    """
    data = snapshot.get(Tree.LOG, ts_key(ts)) if 0 <= ts < 1 << 64 else None
    if data is None:
        raise RequestRefused(
            404, "RecordNotFound", f"There is no commit {ts}; `headrace log tail` lists the last"
        )
    return decode_record(data)


def in_short(record: Record, catalog: Catalog) -> dict[str, Json]:
    """Who wrote and when, and how often in which table."""
    counted: dict[str, int] = {}
    for write in record.writes:
        what = f"{_verb(write)} {_table(write, catalog)}"
        counted[what] = counted.get(what, 0) + 1
    return {
        "ts": str(record.ts),
        "kind": record.kind.name.lower(),
        "path": record.source.path,
        "component": record.source.component,
        "requestId": record.source.request_id,
        "writes": counted,
    }


def in_full(record: Record, catalog: Catalog) -> dict[str, Json]:
    """Everything that it holds; images in the lossless encoding of the wire."""
    source = record.source
    return {
        **in_short(record, catalog),
        "epoch": record.epoch,
        "code": source.code,
        "args": None if source.args is None else to_wire(dict(source.args)),
        "identity": None if source.identity is None else to_wire(dict(source.identity)),
        "seed": str(source.seed),
        "nowNs": str(source.now_ns),
        "covered": [item.hex() if isinstance(item, bytes) else item for item in record.covered],
        "hash": record.hash.hex(),
        "previous": record.previous.hex(),
        "stateHash": f"{record.state_hash:032x}",
        "writes": [_write(write, catalog) for write in record.writes],
    }


def refuse_unless_replayable(record: Record) -> None:
    """
    Raises:
        RequestRefused: it is no mutation's, or its arguments are not there.
    """
    if record.kind is not Kind.WRITES or record.source.path.startswith("_"):
        raise RequestRefused(
            400, "NotReplayable", f"Commit {record.ts} is the engine's own ({record.source.path})"
        )
    if record.source.args is None:
        raise RequestRefused(
            400,
            "NotReplayable",
            f"The arguments of {record.source.path} are not recorded (record=False)",
        )


def compared(record: Record, replayed: Replayed, catalog: Catalog, digest: str) -> dict[str, Json]:
    """What the mutation wrote then, beside what it writes now."""
    failure = replayed.outcome.failure
    return {
        **in_short(record, catalog),
        "code": record.source.code,
        "codeNow": digest,
        "compared": replayed.compared,
        "error": failure.message if failure else None,
        "logLines": list(replayed.outcome.log_lines),
        "value": None if failure else to_wire(replayed.outcome.value),
        "differences": [_difference(each, catalog) for each in replayed.differences],
    }


def _difference(difference: Difference, catalog: Catalog) -> dict[str, Json]:
    one = difference.then or difference.now
    assert one is not None, "a difference has a side"
    return {
        "table": _table(one, catalog),
        "id": _id(difference.key),
        "then": None if difference.then is None else _image(one, difference.then.after),
        "now": None if difference.now is None else _image(one, difference.now.after),
        "wroteThen": difference.then is not None,
        "writesNow": difference.now is not None,
    }


def _write(write: RowWrite, catalog: Catalog) -> dict[str, Json]:
    return {
        "verb": _verb(write),
        "table": _table(write, catalog),
        "id": _id(write.key),
        "before": _image(write, write.before),
        "after": _image(write, write.after),
    }


def _verb(write: RowWrite) -> str:
    if write.before is None:
        return "insert"
    return "delete" if write.after is None else "change"


def _table(write: RowWrite, catalog: Catalog) -> str:
    table = catalog.by_number.get(write.table_number)
    if table is None:
        return f"table {write.table_number}"
    return f"{table.component}/{table.name}" if table.component else table.name


def _id(key: bytes) -> str:
    return id_of(key) if len(key) == ROW_KEY_BYTES else key.hex()


def _image(write: RowWrite, image: bytes | None) -> Any:
    """A row, without the secret by which function handles are known again."""
    if image is None:
        return None
    row = decode(image)
    if write.table_number == DEPLOYMENTS:
        row.pop(HANDLES, None)
    return to_wire(row)
