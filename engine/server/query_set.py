"""
The queries that one client shows, and which of them have to be evaluated again.

A client changes its set by numbered edits.  A query is stale when it was just
added, when a commit touched what it read, or when the identity changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Final, TypeAlias, assert_never

from engine.errors import InvalidValue, LimitExceeded, ProtocolViolation
from engine.functions.results import Failure, QueryResult
from engine.model.codec import decode, encode
from engine.model.limits import Limits
from engine.model.text import speakable
from engine.model.values import Value
from engine.server.arguments import component_hidden, read_arguments, refusal_of
from engine.server.messages import Add, ModifyQuerySet, Remove
from engine.server.who import Who
from engine.subscriptions.token import Callback, Live

Arguments: TypeAlias = "dict[str, Value] | InvalidValue"
"""What a client spelled as such, or why it is none."""

NOTHING_READ: Final[Mapping[int, Arguments]] = {}


@dataclass(slots=True, eq=False, kw_only=True)
class Query:
    """One query of one client: what it asks, and what was last sent of it."""

    query_id: int
    path: str
    component: str
    function: tuple[str, str]
    """Component and path, as one thing to look up."""
    encoded_args: bytes
    """All that is kept of them: decoded they take many times the memory."""
    args_digest: bytes
    """Equal for equal arguments."""
    refusal: Failure | None
    """Why it cannot be asked at all: its arguments are no values."""
    size_bytes: int
    journal: str | None
    touched: Callback = field(repr=False)
    """Called when what was last sent is no longer so."""
    shown: bytes | None = None
    """Digest of the result that the client has."""
    live: Live | None = None

    def args(self) -> dict[str, Value]:
        """What it is asked with."""
        args = decode(self.encoded_args)
        assert isinstance(args, dict)
        return args

    def refusal_for(self, who: Who) -> Failure | None:
        """Why `who` cannot ask this."""
        if self.component and not who.admin:
            return refusal_of(component_hidden(self.path, self.component))
        return self.refusal

    def watch(self, live: Live) -> None:
        """Follow `live`, of which one hold is handed over, instead of what was followed before."""
        self.forget()
        self.live = live
        live.watch(self.touched)

    def forget(self) -> None:
        """Follow nothing."""
        if self.live is not None:
            self.live.unwatch(self.touched)
            self.live.release()
            self.live = None

    def is_news(self, digest: bytes) -> bool:
        """Whether the client has another result than this; from now on it has this one."""
        if digest == self.shown:
            return False
        self.shown = digest
        return True


class QuerySet:
    """
    Args:
        limits: bounds on what a client can make us hold.
        wake: called when a query that was up to date becomes stale.
    """

    def __init__(self, limits: Limits, wake: Callable[[], None]) -> None:
        self.version = 0
        """The last edit that was received."""
        self._limits = limits
        self._wake = wake
        self._queries: dict[int, Query] = {}
        self._stale: dict[int, Query] = {}
        self._removed: dict[int, None] = {}
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._queries)

    def modify(
        self, edit: ModifyQuerySet, arguments: Mapping[int, Arguments] = NOTHING_READ
    ) -> None:
        """
        Take a client's edit.

        Args:
            arguments: those that were read already, by the place of their query in `edit`.

        Raises:
            ProtocolViolation: it does not follow the edit before it, or adds an id twice.
            LimitExceeded: too many queries, or too large ones.
        """
        if edit.base_version != self.version:
            raise ProtocolViolation(
                f"BaseVersionMismatch: ModifyQuerySet with baseVersion {edit.base_version} "
                f"on a connection at {self.version}"
            )
        if edit.new_version <= edit.base_version:
            raise ProtocolViolation(
                f"ModifyQuerySet from version {edit.base_version} to {edit.new_version}"
            )
        for place, change in enumerate(edit.modifications):
            match change:
                case Add():
                    self._add(change, arguments.get(place))
                case Remove():
                    self._remove(change.query_id)
                case _:
                    assert_never(change)
        self.version = edit.new_version

    def stale(self) -> tuple[Query, ...]:
        """Those that have to be evaluated before the next transition."""
        return tuple(self._stale.values())

    @property
    def has_stale(self) -> bool:
        return bool(self._stale)

    def removed(self) -> tuple[int, ...]:
        """Ids that the client dropped and has not been told the end of."""
        return tuple(self._removed)

    def acknowledge_removed(self, query_ids: tuple[int, ...]) -> None:
        for query_id in query_ids:
            self._removed.pop(query_id, None)

    def settle(self, query: Query, result: QueryResult) -> None:
        """
        `query` was evaluated: follow what it read, unless the client dropped it meanwhile.

        The hold of the result's `live` is handed over.
        """
        if self._queries.get(query.query_id) is not query:
            result.live.release()
            return
        self._stale.pop(query.query_id, None)
        if result.failure is None:
            query.journal = result.journal
        query.watch(result.live)

    def settle_refused(self, query: Query) -> None:
        """`query` cannot be asked, which no commit will change."""
        query.forget()
        self._stale.pop(query.query_id, None)

    def make_all_stale(self) -> None:
        """The identity changed, and with it what any query may answer."""
        self._stale = dict(self._queries)

    def close(self) -> None:
        """Follow nothing any more."""
        for query in self._queries.values():
            query.forget()
        self._queries.clear()
        self._stale.clear()

    def _touched(self, query_id: int) -> None:
        if query_id not in self._stale:
            self._stale[query_id] = self._queries[query_id]
            self._wake()

    def _add(self, add: Add, arguments: Arguments | None) -> None:
        if add.query_id in self._queries:
            raise ProtocolViolation(f"query id {add.query_id} was added twice")
        query = _query_of(add, arguments, partial(self._touched, add.query_id))
        self._size_bytes += query.size_bytes
        self._queries[query.query_id] = self._stale[query.query_id] = query
        self._check_room()

    def _check_room(self) -> None:
        limits = self._limits
        # Removed ones count, too: a client that does not read could pile them up.
        count, count_max = len(self._queries), limits.queries_per_session_max
        if count > count_max or count + len(self._removed) > 2 * count_max:
            what = "queries of one connection"
            raise LimitExceeded("queries_per_session_max", count, count_max, what)
        size, size_max = self._size_bytes, limits.queries_bytes_max
        if size > size_max:
            what = "arguments of the queries of one connection"
            raise LimitExceeded("queries_bytes_max", size, size_max, what)

    def _remove(self, query_id: int) -> None:
        query = self._queries.pop(query_id, None)
        if query is None:
            return
        query.forget()
        self._size_bytes -= query.size_bytes
        self._stale.pop(query_id, None)
        self._removed[query_id] = None


def _query_of(add: Add, arguments: Arguments | None, touched: Callback) -> Query:
    component, path = speakable(add.component_path or ""), speakable(add.udf_path)
    journal = None if add.journal is None else speakable(add.journal)
    args: dict[str, Value] = {}
    refusal = None
    try:
        args = _read(path, add, arguments)
    except InvalidValue as error:
        refusal = refusal_of(error)
    encoded_args = encode(args)
    return Query(
        query_id=add.query_id,
        path=path,
        component=component,
        function=(component, path),
        encoded_args=encoded_args,
        args_digest=blake2b(encoded_args, digest_size=16).digest(),
        refusal=refusal,
        size_bytes=len(encoded_args) + len(path) + len(component) + len(journal or ""),
        journal=journal,
        touched=touched,
    )


def _read(path: str, add: Add, arguments: Arguments | None) -> dict[str, Value]:
    if arguments is None:
        return read_arguments(path, add.args)
    if isinstance(arguments, InvalidValue):
        raise arguments
    return arguments
