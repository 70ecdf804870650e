"""
The block of a context manager that has nurseries around it.

    with plain_errors() as body:
        async with trio.open_nursery() as nursery:
            with body:
                yield

What the block raises comes out as it is.  The nurseries would put it into
groups, as if something else could have gone wrong too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Body:
    """Notes what was raised in the block."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        """Nothing has been raised yet."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self.error = error


@contextmanager
def plain_errors() -> Iterator[Body]:
    """
    Let what is raised in the body come out without the groups around it.

    Raises:
        BaseExceptionGroup: something else was raised, or something else too.
    """
    body = Body()
    try:
        yield body
    except BaseExceptionGroup as group:
        if body.error is None or not _is_nothing_but(group, body.error):
            raise
    if (error := body.error) is not None:
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # not the group that it was in


def _is_nothing_but(group: BaseException, error: BaseException) -> bool:
    if group is error:
        return True
    inside = group.exceptions if isinstance(group, BaseExceptionGroup) else ()
    return bool(inside) and all(_is_nothing_but(one, error) for one in inside)
