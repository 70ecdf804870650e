"""
The process that makes annexes, in slices of a few rows, and perhaps with a bug.

`main(bug)` is run in the place of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from engine.indexes import past_process, taken_back
from engine.indexes.taken_back import lay_all, take_back

SLICE_ROWS: Final = 7
HELD_S: Final = 0.03
"""So commits come between two slices of an index, too."""


def main(bug: str) -> int:
    """As `past_process.main`."""
    for fill in (take_back, lay_all):
        assert fill.__kwdefaults__ is not None
        fill.__kwdefaults__["rows_max"] = SLICE_ROWS
    setattr(past_process, "HELD_S", HELD_S)  # noqa: B010 - it is final for all others
    if bug in BUGS:
        BUGS[bug]()
    return past_process.main("")


_put = taken_back._put


def _put_but_the_last(images: dict[bytes, bytes], *rest: Any) -> None:
    _put(dict(list(images.items())[:-1]), *rest)


def _lay_what_changed(_now: Any, *rest: Any) -> Iterator[bytes]:
    return lay_all(lambda *_: iter(()), *rest)


def _then_but_now(taken: Iterator[Any], now: Iterator[Any]) -> Iterator[Any]:
    """What a row is now, also where it was otherwise."""
    found = dict(taken)
    found.update(now)
    return iter(sorted(found.items()))


def _in_place_of(owner: Any, name: str, planted: Any) -> Callable[[], None]:
    return partial(setattr, owner, name, planted)


BUGS: Final[dict[str, Callable[[], None]]] = {
    "an annex without its last row": _in_place_of(taken_back, "_put", _put_but_the_last),
    "an index of then without what stayed": _in_place_of(
        past_process, "lay_all", _lay_what_changed
    ),
    "an index of then with what came since": _in_place_of(taken_back, "_then", _then_but_now),
}
"""What it does first."""
