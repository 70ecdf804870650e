"""
One client's connection as a state machine: no sockets, no tasks, no clock.

Two rules hold this file together.  Everything that decides what a client may be
told, and when, is here.  Nothing here waits: whoever drives it (`session`) does
the waiting, and reports what came of it.

Theory of operation

    receive(message) ──▶ a Step          what there is to do, now or in order
    authenticated / next_mutation / mutation_answered / action_answered
    begin() ──▶ a Plan                   which queries to evaluate, for which versions
    finish(plan, ts, results) ──▶ bytes  one Transition, maybe in parts, or nothing to say

A connection moves through phases:

    NEW ──Connect──▶ OPEN ──close──▶ CLOSED
     └────────────── close ────────────┘

and, while OPEN, through state versions (query set, identity, timestamp).  The
client advances the first two by its messages; `finish` is the one place where
the connection catches up with them, to one timestamp that holds for every query
the client shows.  A Transition is owed after each edit of the query set, each
accepted identity, and each answer, also of what failed: clients wait for it.
A commit that touches a shown query makes one due, but is not owed a message if
all results turn out as they were.

A mutation's response goes out before any Transition that may show its commit.
Only one mutation of a connection runs at a time, and its timestamp is not known
until it has answered.  So a plan made while one is running names it, and its
Transition is held until that mutation has answered.  The first one on a connection
of a client that is back is held for all that it sent again: that may have been
committed before.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never
from uuid import UUID

from msgspec import Raw, Struct

from engine.errors import InvalidValue, LimitExceeded, Overloaded, ProtocolViolation
from engine.functions.results import (
    ActionResult,
    Failure,
    MutationResult,
    QueryResult,
    failure_of,
)
from engine.model.json_values import decode_ts, encode_ts
from engine.model.limits import Limits
from engine.model.text import speakable
from engine.model.values import EXACT_INT_MAX
from engine.server.messages import (
    Action,
    Authenticate,
    AuthError,
    ClientMessage,
    Connect,
    Event,
    FatalError,
    ModifyQuerySet,
    Mutation,
    Ping,
    QueryRemoved,
    StateVersion,
    Transition,
    encode,
)
from engine.server.parts import in_parts
from engine.server.query_set import NOTHING_READ, Arguments, Query, QuerySet
from engine.server.spelling import Spelling, request_id_of
from engine.server.who import NOBODY, Who

PING = encode(Ping())


class Phase(enum.Enum):
    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


class Version(Struct, frozen=True, kw_only=True, gc=False):
    """Where a connection is: what its client asked for, and as of when it was answered."""

    query_set: int = 0
    identity: int = 0
    ts: int = 0

    def on_wire(self) -> StateVersion:
        return StateVersion(query_set=self.query_set, identity=self.identity, ts=encode_ts(self.ts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A mutation or action that a client asked for, and as whom."""

    number: int
    path: str
    component: str
    args: Raw
    """As they came; not looked at yet."""
    size_bytes: int
    who: Who
    request_id: str


# What `receive` asks of the driver.


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeted:
    """The client is there; it has seen timestamps up to this one."""

    max_observed_ts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Find out who this is, and report `authenticated`, before the next message is received."""

    message: Authenticate


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Run this action now, beside everything else."""

    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The call is not to be run: send this."""

    response: bytes


class Nothing(enum.Enum):
    """The state has taken it up: look whether a mutation or a transition is due."""

    TO_DO = "nothing to do"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """The client asks for more than it may: close with this code and reason."""

    reason: str
    code: int = 1013


Step: TypeAlias = Greeted | Verify | Start | Answered | Nothing | Refuse


class Plan(Struct, frozen=True, kw_only=True, gc=False):
    """One transition to come: for which versions, and what has to be evaluated."""

    query_set: int
    identity: int
    who: Who
    asked: Sequence[Query]
    """To be evaluated, all at the transition's timestamp."""
    refused: Sequence[tuple[Query, Failure]]
    """What this client cannot ask, and why."""
    removed: tuple[int, ...]
    behind: Call | None
    """The running mutation that has to be answered before this may be sent."""


class Protocol:
    """
    The state of one connection.

    Args:
        limits: what a client may make us hold.
        spelling: how results are put to clients.
        wake: called when something became due that was not.
        takes_parts: whether the client puts a transition together that comes in parts.
    """

    def __init__(
        self,
        limits: Limits,
        spelling: Spelling,
        wake: Callable[[], None],
        *,
        takes_parts: bool = False,
    ) -> None:
        self.phase = Phase.NEW
        self.who = NOBODY
        self.queries = QuerySet(limits, wake)
        self._limits = limits
        self._spelling = spelling
        self._wake = wake
        self._takes_parts = takes_parts
        self._session_id: UUID | None = None
        self._session = ""
        """The same as text."""
        self._clock_skew_ms: int | None = None
        self._client_ts: float | None = None
        self._is_back = False
        """Whether the client had another connection before, and was told nothing on this one."""
        self._identity = 0
        self._sent = Version()
        self._owed = False
        self._covers_ts = 0
        self._mutations: deque[Call] = deque()
        self._mutations_bytes = 0
        self._running: Call | None = None
        self._actions_count = 0
        self._actions_bytes = 0

    # What the client says.

    def receive(
        self, message: ClientMessage, arguments: Mapping[int, Arguments] = NOTHING_READ
    ) -> Step:
        """
        Take one message.

        Args:
            arguments: of queries that an edit adds, those that were read already, by their place.

        Raises:
            ProtocolViolation: the client may not say this now; `fatal` puts it to the client.
        """
        assert self.phase is not Phase.CLOSED
        if isinstance(message, Connect):
            return self._connect(message)
        if self.phase is Phase.NEW:
            raise ProtocolViolation(f"{type(message).__name__} before Connect")
        match message:
            case ModifyQuerySet():
                return self._modify(message, arguments)
            case Authenticate():
                return self._authenticate(message)
            case Mutation():
                return self._enqueue(self._call(message))
            case Action():
                return self._start(self._call(message))
            case Event():
                return Nothing.TO_DO
            case _:
                assert_never(message)

    def _connect(self, message: Connect) -> Step:
        if self.phase is not Phase.NEW:
            raise ProtocolViolation("Connect was sent twice")
        try:
            self._session_id = UUID(message.session_id)
            self._session = str(self._session_id)
        except ValueError:
            # Not said back: who mixes up fields has said something secret.
            raise ProtocolViolation("sessionId is no UUID") from None
        try:
            observed = message.max_observed_timestamp
            max_observed_ts = 0 if observed is None else decode_ts(observed)
        except InvalidValue as error:
            raise ProtocolViolation(f"maxObservedTimestamp: {error}") from None
        self.phase = Phase.OPEN
        self._client_ts = message.client_ts
        self._is_back = message.connection_count > 0
        return Greeted(max_observed_ts=max_observed_ts)

    def _modify(self, message: ModifyQuerySet, arguments: Mapping[int, Arguments]) -> Step:
        try:
            self.queries.modify(message, arguments)
        except LimitExceeded as error:
            return Refuse(reason=f"TooManyQueries: {error}")
        self._owe()
        return Nothing.TO_DO

    def _authenticate(self, message: Authenticate) -> Step:
        if message.base_version != self._identity:
            raise ProtocolViolation(
                f"BaseVersionMismatch: Authenticate with baseVersion {message.base_version} "
                f"on a connection at {self._identity}"
            )
        return Verify(message=message)

    def _enqueue(self, call: Call) -> Step:
        self._mutations.append(call)
        self._mutations_bytes += call.size_bytes
        return Nothing.TO_DO

    def _start(self, call: Call) -> Step:
        # A client that is sent away does not send again the actions that run: it gives them up.
        if (full := self._full_of_actions(call)) is not None:
            refused = failure_of(Overloaded(f"the actions of this client ({full})", 0))
            result = ActionResult(value=None, failure=refused, log_lines=())
            return Answered(response=self._action_response(call, result))
        self._actions_count += 1
        self._actions_bytes += call.size_bytes
        return Start(call=call)

    def _full_of_actions(self, call: Call) -> str | None:
        """The limit that one more action would be over."""
        if self._actions_count >= self._limits.actions_in_flight_max:
            return "actions_in_flight_max"
        size = self._actions_bytes + call.size_bytes
        if self._actions_count and size > self._limits.actions_bytes_max:
            return "actions_bytes_max"
        return None

    def _call(self, message: Mutation | Action) -> Call:
        assert self._session, "known from Connect on"
        path, component = speakable(message.udf_path), speakable(message.component_path or "")
        return Call(
            number=message.request_id,
            path=path,
            component=component,
            args=message.args.copy(),  # or all of the message would stay
            size_bytes=len(message.args) + len(path) + len(component),
            who=self.who,
            request_id=request_id_of(self._session, message.request_id),
        )

    @property
    def session_id(self) -> UUID:
        assert self._session_id is not None, "known from Connect on"
        return self._session_id

    def is_reading_paused(self) -> bool:
        """Whether so much waits in the lane of mutations that no more should be read."""
        return (
            len(self._mutations) >= self._limits.mutations_queued_max
            or self._mutations_bytes > self._limits.mutations_queued_bytes_max
        )

    # What came of it.

    def saw_clock(self, now_ms: float) -> None:
        """
        Our clock when Connect arrived.

        A client that has none to compare says 0, or nothing, or what no clock shows.
        """
        if self._client_ts and abs(self._client_ts) <= EXACT_INT_MAX:
            self._clock_skew_ms = round(self._client_ts - now_ms)

    def authenticated(self, who: Who) -> None:
        """The identity that `Verify` asked for; every query is to be evaluated with it."""
        self.who = who
        self._identity += 1
        self.queries.make_all_stale()
        self._owe()

    @property
    def has_mutations(self) -> bool:
        """Whether any wait for their turn."""
        return bool(self._mutations)

    def next_mutation(self) -> Call | None:
        """The mutation to run now, if none is running: in the order they came in."""
        if self._running is not None or not self._mutations:
            return None
        self._running = self._mutations.popleft()
        self._mutations_bytes -= self._running.size_bytes
        return self._running

    def mutation_answered(self, call: Call, result: MutationResult, ts: int) -> bytes:
        """
        The response to send; it has to be sent before what `finish` returns from now on.

        Args:
            ts: the commit's timestamp, or for one that wrote nothing any that it read at.
        """
        assert self._running is call, "mutations run one at a time"
        self._running = None
        if result.failure is None:
            self._covers_ts = max(self._covers_ts, ts)
        self._owe()
        spelling = self._spelling.toward(call.who)
        return spelling.mutation(call.number, result, encode_ts(ts), call.request_id)

    def action_answered(self, call: Call, result: ActionResult, ts: int) -> bytes:
        """
        The response to send.

        Args:
            ts: whatever the action wrote is readable at this timestamp.
        """
        self._actions_count -= 1
        self._actions_bytes -= call.size_bytes
        self._covers_ts = max(self._covers_ts, ts)
        return self._action_response(call, result)

    def _action_response(self, call: Call, result: ActionResult) -> bytes:
        self._owe()
        spelling = self._spelling.toward(call.who)
        return spelling.action(call.number, result, call.request_id)

    @property
    def is_running(self) -> bool:
        """Whether a mutation has begun and not answered."""
        return self._running is not None

    def is_behind(self, plan: Plan) -> bool:
        """
        Whether answers have to come first that the transition of `plan` may show.

        That is the answer to the mutation that ran when it was made.  Before the first
        transition of a client that is back it is all that wait: what it sends again may
        have been committed for the connection before.  One that is closed waits for none.
        """
        if self.phase is Phase.CLOSED:
            return False
        if self._is_back:
            return self._running is not None or bool(self._mutations)
        return self._running is not None and self._running is plan.behind

    def _owe(self) -> None:
        self._owed = True
        self._wake()

    # Transitions.

    @property
    def is_due(self) -> bool:
        """Whether there is anything to tell."""
        return self.phase is Phase.OPEN and (self._owed or self.queries.has_stale)

    @property
    def told_ts(self) -> int:
        """Of the state that the client was told of last."""
        return self._sent.ts

    def begin(self) -> Plan:
        """
        What the next transition has to be made of; the state does not change.

        Its timestamp has to be chosen before this is called, and every commit up
        to it has to have reached the queries that are shown.
        """
        asked: list[Query] = []
        refused: list[tuple[Query, Failure]] = []
        for query in self.queries.stale():
            refusal = query.refusal_for(self.who)
            if refusal is None:
                asked.append(query)
            else:
                refused.append((query, refusal))
        return Plan(
            query_set=self.queries.version,
            identity=self._identity,
            who=self.who,
            asked=asked,
            refused=refused,
            removed=self.queries.removed(),
            behind=self._running,
        )

    def finish(
        self,
        plan: Plan,
        ts: int,
        results: Mapping[Query, QueryResult],
        *,
        request_id: str,
        now_ns: int | None = None,
    ) -> tuple[bytes, ...]:
        """
        Move the connection to `ts` and to the versions of `plan`.

        Args:
            results: of each query that the plan asks, as of `ts`.
            request_id: what failures among them are called.

        Returns:
            The Transition, in several messages if it is large and the client takes
            that; none if nothing is owed and no result is new.  Nothing but Ping may be
            sent in between.  The holds of the results' `live`s are handed over.
        """
        assert ts >= self._sent.ts, "timestamps never go back"
        changes = [Raw(encode(QueryRemoved(query_id=query_id))) for query_id in plan.removed]
        changes += self._news(plan, results, request_id)
        self.queries.acknowledge_removed(plan.removed)
        if plan.identity != self._identity:
            self.queries.make_all_stale()
        if not changes and not self._owed:
            return ()
        transition = self._transition(plan, ts, changes, now_ns)
        if self._takes_parts and len(transition) > self._limits.transition_bytes_max:
            part_bytes = self._limits.transition_part_bytes_max
            return in_parts(transition, bytes_max=part_bytes, transition_id=request_id)
        return (transition,)

    def _news(self, plan: Plan, results: Mapping[Query, QueryResult], request_id: str) -> list[Raw]:
        news = []
        spelling = self._spelling.toward(plan.who)
        for query, refusal in plan.refused:
            if query.is_news(spelling.mark + b"refused: " + refusal.message.encode()):
                news.append(spelling.query_failed(query.query_id, refusal, request_id))
            self.queries.settle_refused(query)
        for query in plan.asked:
            result = results[query]
            if query.is_news(spelling.mark + result.digest):
                news.append(spelling.query(query.query_id, result, request_id))
            self.queries.settle(query, result)
        return news

    def _transition(self, plan: Plan, ts: int, changes: list[Raw], now_ns: int | None) -> bytes:
        start = self._sent
        self._is_back = False
        self._sent = Version(query_set=plan.query_set, identity=plan.identity, ts=ts)
        # What arrived while the plan was carried out is still owed one.
        self._owed = (
            self._sent.query_set != self.queries.version
            or self._sent.identity != self._identity
            or self._covers_ts > ts
        )
        return encode(
            Transition(
                start_version=start.on_wire(),
                end_version=self._sent.on_wire(),
                modifications=changes,
                client_clock_skew=self._clock_skew_ms,
                server_ts=now_ns,
            )
        )

    # The end.

    def close(self) -> None:
        """Take nothing more, and forget what was shown."""
        self.phase = Phase.CLOSED
        self.queries.close()
        self._mutations.clear()

    def fatal(self, violation: ProtocolViolation) -> bytes:
        """What a client is told that broke the protocol; the connection closes after it."""
        return encode(FatalError(error=speakable(str(violation))))

    def auth_error(self, error: str, *, update_attempted: bool) -> bytes:
        """What a client is told whose token is not, or no longer, good; it closes after it."""
        return encode(
            AuthError(
                error=speakable(error),
                base_version=self._identity,
                auth_update_attempted=update_attempted,
            )
        )
