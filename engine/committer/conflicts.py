"""
Conflict detection, as arithmetic: no actor, no clock, no I/O.

A transaction that did not run in the lane read a state that others have gone
on from.  It may be committed only if none of the commits since touches what it
read: then running it now would have given the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from engine.model.reads import ReadSet, Touched

C = TypeVar("C", bound=Touched)


def find_conflict(reads: ReadSet, begin_ts: int, commits: Iterable[C]) -> C | None:
    """The first of `commits` after `begin_ts` with an old or new key that was read."""
    return next(
        (commit for commit in commits if commit.ts > begin_ts and reads.is_touched_by(commit)),
        None,
    )
