"""
Session actor: one client's connection.

    socket ──▶ read ──▶ [ protocol ] ──▶ mutate ──▶ backend
                            │    └─────▶ act (outlives the connection)
                            └─── due ──▶ fan-out ──▶ backend
    socket ◀── outbox ◀── responses, transitions ◀──┘

Three tasks share the protocol's state, which only changes between two awaits:

    read      takes messages in order, and waits where one has to be waited for:
              a token to be verified, the lane of mutations to have room
    mutate    runs mutations one at a time, in order
    outbox    sends

What is due is planned, evaluated and told by the server's fan-out.  When the
client is gone, or is to go, all of it stops at once; an action that has begun
goes on without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, assert_never

import trio

from engine.errors import (
    Conflict,
    FunctionTimeout,
    InvalidValue,
    LimitExceeded,
    OutOfRetention,
    Overloaded,
    ProtocolViolation,
    SnapshotTooOld,
    Stopped,
    StoreFull,
    Unauthenticated,
    Unreachable,
    UsageError,
)
from engine.functions.results import ActionResult, Caller, MutationResult, QueryResult, failure_of
from engine.kernel.runtime import Runtime
from engine.kernel.trace import traceback_of, tracer
from engine.kernel.turns import in_turns
from engine.model.commits import SessionRequest
from engine.model.limits import Limits
from engine.model.text import speakable
from engine.model.values import Value
from engine.server.arguments import arguments_in_steps, read_arguments_in_steps, refusal_of
from engine.server.backend import Backend
from engine.server.fanout import Fanout
from engine.server.identity import Verifier, acted_identity
from engine.server.large_text import LARGE_BYTES_MIN
from engine.server.messages import Add, Authenticate, ModifyQuerySet, decode
from engine.server.outbox import Outbox, Send
from engine.server.protocol import (
    Answered,
    Call,
    Greeted,
    Nothing,
    Phase,
    Plan,
    Protocol,
    Refuse,
    Start,
    Verify,
)
from engine.server.query_set import Arguments, Query
from engine.server.shortcut import Shortcut
from engine.server.spelling import Spelling
from engine.server.who import NOBODY, Who

Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]

trace = tracer(__name__)

HOLD_S_MAX: Final = 0.25
"""
How long a finished transition waits for the response of a mutation that was
running when its timestamp was chosen.  One that had committed by then answers
within a few turns of the scheduler; one that has not answered by now commits
later than that timestamp.  So does what a client sends again when it is back:
what was committed is looked up.
"""

RETRIES_MAX: Final = 6
RETRY_S: Final = 0.25

AHEAD_NS_MAX: Final = 3_600 * 10**9
"""How much later than the clock a commit may be: more than clocks are set back."""
FROM_THE_FUTURE_TODO: Final = (
    "Clients have seen commits that this data directory does not have, as after a backup was "
    "restored, and ask again until it has. If there is a newer one, stop and serve that. If not, "
    "what they saw is lost: the next commit lets them in, and they show what there is."
)

CLOSING_S_MAX: Final = 10.0
"""For the last messages to leave."""

_TRANSIENT: Final = (Overloaded, Conflict, OutOfRetention, SnapshotTooOld, FunctionTimeout)


class Session:
    """
    Args:
        backend: what functions run on.
        verifier: who a token names.
        home: tasks that may outlive the connection run here: actions, and the sending.
        fanout: told when the client is due to be told something.
        takes_parts: as in `Protocol`.
        shortcut: where messages go and come, if the host has one.
    """

    def __init__(
        self,
        backend: Backend,
        verifier: Verifier,
        spelling: Spelling,
        *,
        limits: Limits,
        runtime: Runtime,
        home: trio.Nursery,
        fanout: Fanout,
        takes_parts: bool = False,
        shortcut: Shortcut | None = None,
    ) -> None:
        self._backend = backend
        self._verifier = verifier
        self._limits = limits
        self._runtime = runtime
        self._home = home
        self._fanout = fanout
        self._shortcut = shortcut
        self._answered = trio.lowlevel.ParkingLot()
        self._lane = trio.lowlevel.ParkingLot()
        self._protocol = Protocol(limits, spelling, self._wake, takes_parts=takes_parts)
        self._scope = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._outbox = Outbox(
            limits,
            home,
            on_room=self._wake_if_due,
            on_finished=self._scope.cancel,
            shortcut=shortcut,
        )
        self._is_mutating = False
        self._failures = 0
        self._is_closing = False
        self.is_client_gone = False
        """Whether the host has said so, after which it says nothing more."""

    async def run(self, receive: Receive, send: Send) -> None:
        """Serve the client until it leaves or is told to; raises nothing of its own."""
        self._outbox.open(send)
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await self._part(self._read, receive, nursery)
        finally:
            self._protocol.close()
            self._lane.unpark_all()
            self._answered.unpark_all()
            self._fanout.forget(self)
        with trio.move_on_after(CLOSING_S_MAX):
            await self._outbox.finished.wait()

    def close(self) -> None:
        """Read nothing more, answer what runs, and go."""
        self._is_closing = True
        self._reading.cancel()
        if not self._protocol.is_running:
            self._end(None, 1001, "ServerShutdown")

    # How it ends.

    async def _part(self, part: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run one of the tasks; what it raises ends the session, and nothing else."""
        try:
            await part(*args)
        except Exception as error:
            self._end_for(error)

    def _end_for(self, error: Exception) -> None:
        match error:
            case ProtocolViolation():
                trace.info("session.violated", error=str(error))
                self._end(self._protocol.fatal(error), 1000, "")
            case FunctionTimeout():
                self._end(None, 1013, f"SystemTimeoutError: {error}")
            case Overloaded():
                # By that name clients know to come back later than otherwise.
                trace.warning("session.refused", error=repr(error))
                self._end(None, 1013, f"TooManyConcurrentRequests: {error}")
            case LimitExceeded():
                trace.warning("session.refused", error=repr(error))
                self._end(None, 1013, f"TooMuchShown: {error}")
            case Conflict() | OutOfRetention() | SnapshotTooOld() | Unreachable():
                trace.warning("session.refused", error=repr(error))
                self._end(None, 1013, f"{error.code}: {error}")
            case Stopped():
                self._end(None, 1001, "ServerStopped")
            case _:
                trace.error("session.failed", error=repr(error), exception=traceback_of(error))
                self._end(None, 1011, "InternalServerError")

    def _end(self, farewell: bytes | None, code: int, reason: str) -> None:
        self._outbox.end(farewell, code, reason)
        self._scope.cancel()

    def _end_expired(self) -> None:
        """The token that the client acts by is no longer good: nothing is executed with it."""
        farewell = self._protocol.auth_error("The token has expired", update_attempted=False)
        self._end(farewell, 1000, "")

    def abandon(self) -> None:
        """Go at once, without another word."""
        self._outbox.abandon()

    def tick(self, now: float) -> None:
        """Look at the clock, every second or so."""
        self._outbox.tick(now)

    # Reading.

    async def _read(self, receive: Receive, mutating: trio.Nursery) -> None:
        """Take what arrives, from `receive` until there is a shortcut; the end comes from there."""

        async def take(text: str | None) -> None:
            if not (self._reading.cancel_called or self._scope.cancel_called):
                await self._part(self._hear, text, mutating)

        shortcut = self._shortcut
        with self._reading:
            while (event := await self._next(receive)) is not None:
                await self._hear(event.get("text"), mutating)
                if shortcut is not None and shortcut.listen(take):
                    shortcut = None
            self._outbox.abandon()

    async def _hear(self, text: str | None, mutating: trio.Nursery) -> None:
        """Take one message, and come back when another may be read."""
        if text is None:
            raise ProtocolViolation("a binary message; the protocol has text only")
        await self._take(text)
        if self._protocol.has_mutations and not (self._is_mutating or self._scope.cancel_called):
            self._is_mutating = True
            mutating.start_soon(self._part, self._mutate)
        while self._protocol.is_reading_paused() and not self._scope.cancel_called:
            await self._lane.park()

    async def _next(self, receive: Receive) -> Mapping[str, Any] | None:
        """The next message, or `None` when the client is gone."""
        if self._protocol.phase is not Phase.NEW:
            return await self._message(receive)
        with trio.move_on_after(self._limits.inactivity_s_max):
            return await self._message(receive)
        # No violation, after which a client would not come back: its line may be that slow.
        self._end(None, 1000, "InactiveClient")
        return await trio.sleep_forever()

    async def _message(self, receive: Receive) -> Mapping[str, Any] | None:
        while (event := await receive())["type"] != "websocket.receive":
            if event["type"] == "websocket.disconnect":
                self.is_client_gone = True
                return None
        return event

    async def _take(self, text: str) -> None:
        message = decode(text)
        arguments = {}
        if isinstance(message, ModifyQuerySet) and len(text) >= LARGE_BYTES_MIN:
            arguments = await self._read_ahead(message)
            if self._scope.cancel_called:  # the session has ended meanwhile
                return
        step = self._protocol.receive(message, arguments)
        match step:
            case Greeted():
                self._greet(step)
            case Verify():
                await self._authenticate(step.message)
            case Start():
                self._home.start_soon(self._act, step.call)
            case Answered():
                self._outbox.put(step.response)
            case Refuse():
                self._end(None, step.code, step.reason)
            case Nothing():
                self._lane.unpark_all()
            case _:
                assert_never(step)

    async def _read_ahead(self, edit: ModifyQuerySet) -> dict[int, Arguments]:
        """The large arguments of the queries that `edit` adds, by their place in it."""
        read: dict[int, Arguments] = {}
        for place, change in enumerate(edit.modifications):
            if isinstance(change, Add) and len(change.args) >= LARGE_BYTES_MIN:
                bytes_max = self._limits.args_bytes_max
                steps = read_arguments_in_steps(speakable(change.udf_path), change.args, bytes_max)
                try:
                    read[place] = await in_turns(steps)
                except InvalidValue as error:
                    read[place] = error
        return read

    def _greet(self, greeted: Greeted) -> None:
        published_ts = self._backend.published.value
        if greeted.max_observed_ts > published_ts:
            # A timestamp that no commit has had says nothing of the data, only of who sent it.
            is_likely = greeted.max_observed_ts < self._runtime.now_ns() + AHEAD_NS_MAX
            tell = trace.error if is_likely else trace.info
            tell(
                "session.from_the_future",
                observed_ts=greeted.max_observed_ts,
                published_ts=published_ts,
                todo=FROM_THE_FUTURE_TODO if is_likely else "Nothing: no commit has had it.",
            )
            reason = "InternalServerError: this client has seen a later state of the data"
            self._end(None, 1011, reason)
        self._protocol.saw_clock(self._runtime.now_ns() / 1e6)

    async def _authenticate(self, message: Authenticate) -> None:
        try:
            who = await self._who(message)
        except Unauthenticated as error:
            farewell = self._protocol.auth_error(str(error), update_attempted=True)
            self._end(farewell, 1000, "")
        else:
            self._protocol.authenticated(who)

    async def _who(self, message: Authenticate) -> Who:
        match message.token_type:
            case "None":
                return NOBODY
            case "User":
                return Who(identity=await self._verifier.verify(message.value or ""))
            case "Admin":
                who = self._verifier.check_admin_key(message.value or "")
                attributes = message.impersonating
                attributes = message.acting_as if attributes is None else attributes
                if attributes is None:
                    return who
                return Who(admin=True, identity=acted_identity(attributes))
        # Not what it is instead: a token that got into the wrong field is still one.
        raise ProtocolViolation("tokenType is User, Admin or None")

    # Mutations and actions.

    async def _mutate(self) -> None:
        while True:
            await self._outbox.wait_room()
            if self._is_closing:
                self._end(None, 1001, "ServerShutdown")
                return
            call = self._protocol.next_mutation()
            if call is None:
                await self._lane.park()
                continue
            if call.who.is_expired(self._runtime.now_ns()):
                self._end_expired()
                return
            await self._answer(call)

    async def _answer(self, call: Call) -> None:
        """Run a mutation and say what it came to, which nothing keeps after that."""
        result = await self._mutation(call)
        await self._runtime.pause("session.committed")
        ts = self._backend.published.value if result.ts is None else result.ts
        self._outbox.hold()
        self._outbox.put(self._protocol.mutation_answered(call, result, ts))
        self._tell_unchanged(ts, call.request_id)
        self._outbox.let_go()
        self._answered.unpark_all()
        self._lane.unpark_all()

    async def _mutation(self, call: Call) -> MutationResult:
        caller = _caller(call.who, call.request_id)
        try:
            args = await self._arguments(call)
        except UsageError as error:
            failure = refusal_of(error)
            self._backend.tell_refused("mutation", call.path, failure, caller, call.component)
            return MutationResult(ts=None, value=None, failure=failure, log_lines=())
        try:
            return await self._backend.mutation(
                call.path,
                args,
                caller=caller,
                request=SessionRequest(
                    session_id=self._protocol.session_id.bytes, request_id=call.number
                ),
                component=call.component,
            )
        except StoreFull as error:
            # A client that is sent away comes back and sends it again, and each time the batch
            # that it is in is refused, with everybody else's in it.
            return MutationResult(ts=None, value=None, failure=failure_of(error), log_lines=())

    async def _act(self, call: Call) -> None:
        if call.who.is_expired(self._runtime.now_ns()):
            self._end_expired()
            return
        try:
            result = await self._action(call)
            published_ts = self._backend.published.value
            self._outbox.put(self._protocol.action_answered(call, result, published_ts))
        except Exception as error:
            self._end_for(error)

    async def _action(self, call: Call) -> ActionResult:
        caller = _caller(call.who, call.request_id)
        try:
            args = await self._arguments(call)
        except UsageError as error:
            failure = refusal_of(error)
            self._backend.tell_refused("action", call.path, failure, caller, call.component)
            return ActionResult(value=None, failure=failure, log_lines=())
        try:
            return await self._backend.action(
                call.path, args, caller=caller, component=call.component
            )
        except Overloaded as error:
            # A mutation's client would be sent away, to send it again when it is back. It does
            # not send actions again, and would give up those that run.
            return ActionResult(value=None, failure=failure_of(error), log_lines=())

    async def _arguments(self, call: Call) -> dict[str, Value]:
        steps = arguments_in_steps(
            call.path,
            call.args,
            component=call.component,
            who=call.who,
            bytes_max=self._limits.args_bytes_max,
        )
        return await in_turns(steps)

    # Transitions, as the fan-out asks for them.

    def is_ahead_of(self, ts: int) -> bool:
        """Whether the client has been told of a later state."""
        return self._protocol.told_ts > ts

    def plan(self) -> Plan | None:
        """What has to be told now, if anything; an expired token ends the session instead."""
        if not self._protocol.is_due or not self._outbox.has_room_for_transition:
            return None
        if self._protocol.who.is_expired(self._runtime.now_ns()):
            self._end_expired()
            return None
        return self._protocol.begin()

    def tell(self, plan: Plan, ts: int, results: dict[Query, QueryResult], request_id: str) -> None:
        """Send the transition of `plan`, after the response of a mutation that it may show."""
        if self._protocol.is_behind(plan):
            self._home.start_soon(self._tell_later, plan, ts, results, request_id)
        else:
            self._tell(plan, ts, results, request_id)

    def _tell_unchanged(self, ts: int, request_id: str) -> None:
        """
        Send the transition that is owed to an answer of `ts` along with it, if there is no more
        to it: nothing that is shown has changed, and no other answer comes soon.  Else the
        fan-out does.
        """
        if self._protocol.has_mutations or not self._backend.compared(ts):
            return
        if self._protocol.queries.has_stale or not self._fanout.leave_out(self):
            return
        if (plan := self.plan()) is not None:
            self._tell(plan, self._backend.processed.value, {}, request_id)

    def give_up(self, error: Exception) -> None:
        """A query could not be run: try again a little later, some times, or end."""
        self._failures += 1
        if isinstance(error, _TRANSIENT) and self._failures <= RETRIES_MAX:
            trace.info("session.retried", failures=self._failures, error=repr(error))
            self._home.start_soon(self._retry)
        else:
            self._end_for(error)

    async def _tell_later(
        self, plan: Plan, ts: int, results: dict[Query, QueryResult], request_id: str
    ) -> None:
        with trio.move_on_after(HOLD_S_MAX):
            while self._protocol.is_behind(plan):
                await self._answered.park()
        self._tell(plan, ts, results, request_id)

    def _tell(
        self, plan: Plan, ts: int, results: dict[Query, QueryResult], request_id: str
    ) -> None:
        self._fanout.release(self)
        if self._protocol.phase is not Phase.OPEN:
            for result in results.values():
                result.live.release()
            return
        for query, refusal in plan.refused:
            caller = _caller(plan.who, request_id)
            self._backend.tell_refused("query", query.path, refusal, caller, query.component)
        now_ns = self._runtime.now_ns()
        try:
            parts = self._protocol.finish(plan, ts, results, request_id=request_id, now_ns=now_ns)
            if parts:
                self._outbox.put_transition(parts)
        except Exception as error:
            self._end_for(error)
        self._failures = 0
        self._wake_if_due()

    async def _retry(self) -> None:
        longest_s = RETRY_S * float(2**self._failures)
        await self._runtime.sleep(longest_s * self._runtime.random.random())
        self._fanout.release(self)
        self._wake_if_due()

    def _wake(self) -> None:
        self._fanout.due(self)

    def _wake_if_due(self) -> None:
        if self._protocol.is_due:
            self._fanout.due(self)


def _caller(who: Who, request_id: str) -> Caller:
    return Caller(identity=who.identity, admin=who.admin, request_id=request_id, origin="session")
