"""
Pages for code that keeps its place itself: migrations, queues, components.

    page = await paginator(ctx.db).query(Task).with_index("by_due").paginate(opts)
"""

from __future__ import annotations

from engine.app.contexts import DatabaseReader
from engine.errors import InvalidValue
from engine.functions.database import Reader


def paginator(db: DatabaseReader, /) -> DatabaseReader:
    """
    The database of a query or mutation, whose queries give any number of pages.

    A cursor here is a place in an index: text that may be stored, is good for any query of that
    index in that order, whatever its bounds and filters, and stays where it is when the document
    that it stands at goes.  That of a search is good for the same search alone.  Pages are read as
    they are now: whoever shows several that follow one another gives each an `endCursor`, as
    nothing remembers where it ended.

    Raises:
        InvalidValue: `db` is no `ctx.db`.
    """
    if not isinstance(db, Reader):
        raise InvalidValue(f"paginator takes ctx.db, not {db!r}")
    return Reader(db._access.with_pages())
