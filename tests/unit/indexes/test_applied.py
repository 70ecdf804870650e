"""What a commit touched, worked out at once or in slices."""

from __future__ import annotations

from engine.indexes.catalog import JOBS_BY_DUE, SCHEDULED_FUNCTIONS, Catalog, count_prefix
from engine.indexes.entries import SLICE_WRITES, Applied
from engine.model.codec import encode
from engine.model.commits import RowWrite


def large_commit() -> Applied:
    """Jobs that became due later, and rows of another table."""
    jobs, others = (number.to_bytes(4, "big") for number in (SCHEDULED_FUNCTIONS, 20_000))
    writes = []
    for at in range(2 * SLICE_WRITES + 1):
        row = at.to_bytes(16, "big")
        before, after = (
            encode({"due": float(due), "_creationTime": 1.0}) for due in (at, at + 1.0)
        )
        writes += [RowWrite(table + row, before, after) for table in (jobs, others)]
    return Applied(1, writes, Catalog.of_system())


def test_slices_come_to_the_same_keys() -> None:
    at_once, in_slices = large_commit(), large_commit()

    turns = len(list(in_slices.slices(JOBS_BY_DUE.prefix)))

    assert 5 == turns
    assert 2 * (2 * SLICE_WRITES + 1) == len(at_once.keys(JOBS_BY_DUE.prefix))
    assert list(at_once.keys(JOBS_BY_DUE.prefix)) == list(in_slices.keys(JOBS_BY_DUE.prefix))


def test_what_takes_no_time_is_not_sliced() -> None:
    commit = large_commit()

    assert [] == list(commit.slices(count_prefix(SCHEDULED_FUNCTIONS)))
    assert [] == list(commit.slices(b"none"))
    assert () == commit.keys(count_prefix(SCHEDULED_FUNCTIONS))
