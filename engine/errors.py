"""
Every error the engine raises on purpose.

    EngineError
    ├── UsageError                 the caller asked for something that cannot be; change the call
    │   ├── InvalidValue           a value that no document can hold
    │   ├── InvalidId              a string that is no document id, or of another table
    │   ├── InvalidCursor          a cursor of another query
    │   ├── DocumentNotFound       patch, replace or delete of what is not there
    │   ├── IndexNotFound          a query named an index that its table does not have
    │   ├── InvalidRange           bounds that are no prefix of the index
    │   ├── FilterError            a filter expression that cannot be evaluated
    │   ├── SchemaViolation        a document that its table's schema forbids
    │   ├── ArgumentValidationError  arguments that the function does not take
    │   ├── ReturnsValidationError   a result that the function promised not to return
    │   ├── FunctionNotFound       no such function, or none that the caller may see
    │   ├── WrongFunctionKind      a query called as a mutation, and the like
    │   ├── UnmountedComponent     a call of, or a write to, a component that is not mounted
    │   ├── NotAllowed             something a query or mutation may not do; use an action
    │   ├── NotAwaited             a call on ctx whose result nobody awaited
    │   ├── LimitExceeded          a function used more than it may; names limit and number
    │   ├── VariableMissing        an environment variable that is not set
    │   └── DeclarationError       a schema, function or component that cannot be loaded
    ├── PushRefused                a push that changed nothing, and why
    ├── FunctionTimeout            a function ran longer than it may
    ├── FunctionAborted            a function raised SystemExit or the like, which ends only itself
    ├── FunctionFailed             a function of an engine elsewhere raised an error of its own
    ├── Overloaded                 no room within the caller's patience; nothing was done
    ├── Paused                     the deployment is paused; nothing was done
    ├── Conflict                   a commit changed what this transaction read; run it again
    ├── SnapshotTooOld             a snapshot outlived its lease; run it again
    ├── OutOfRetention             a timestamp older than what is kept, or not yet reached
    ├── Stopped                    the engine had stopped; nothing was done
    ├── OutcomeUnknown             the engine failed while writing; it may or may not be done
    ├── Unreachable                no server answered
    ├── ProtocolViolation          a client sent what the sync protocol does not have
    ├── RequestRefused             an HTTP request that cannot be served as it is
    ├── Unauthenticated            a token or key that proves nothing
    │   ├── InvalidAuthHeader      an Authorization header that cannot be read
    │   └── NoAuthProvider         a token of an issuer that the application does not trust
    └── StoreError
        ├── StoreFull              the disk or the size limit; the batch was not written
        ├── StoreFailed            the disk failed; what became of the batch is not known
        ├── StoreLocked            another process has this directory open
        └── StoreDamaged           what is on disk is not what was written

    ConvexError                    raised by applications; its data reaches the client

An error earns a class of its own when some caller can do something about it; what,
is in the README's table of errors.
Broken invariants are not in this tree: they are asserts, and they stop the node.
"""

from __future__ import annotations

from typing import Any, Final


class EngineError(Exception):
    """Base of all errors the engine raises on purpose; `code` is stable over releases."""

    @property
    def code(self) -> str:
        return type(self).__name__


class UsageError(EngineError):
    """The caller asked for something that cannot be; the message says what to change."""


class InvalidValue(UsageError):
    """A value that cannot be where it was given, and `unique()` where there are several."""


class InvalidId(UsageError):
    """A string that is no document id, or is one of another table."""


class InvalidCursor(UsageError):
    """
    A pagination cursor that belongs to another query.

    Clients see `data`, as they see that of a `ConvexError`, and begin at the first page.
    """

    data: Final = {"isConvexSystemError": True, "paginationError": "InvalidCursor"}


class DocumentNotFound(UsageError):
    """`patch`, `replace` or `delete` of a document that does not exist."""


class IndexNotFound(UsageError):
    """A query named an index that its table does not have, or that is not ready yet."""


class InvalidRange(UsageError):
    """Index bounds that are not a prefix of the index's fields."""


class FilterError(UsageError):
    """A filter expression that cannot be evaluated on a document."""


class SchemaViolation(UsageError):
    """A document that the schema of its table forbids."""


class ArgumentValidationError(UsageError):
    """Arguments that the function's validator refuses."""


class ReturnsValidationError(UsageError):
    """A result that the function's return validator refuses."""


class FunctionNotFound(UsageError):
    """No such function, or none that this caller may know of."""


class WrongFunctionKind(UsageError):
    """A query called as a mutation, and the like."""


class UnmountedComponent(UsageError):
    """A call of a function, or a write to a table, of a component that is not mounted."""

    def __init__(self, component: str) -> None:
        super().__init__(
            f"no component is mounted as {component!r}. If one was, its data is kept: operators "
            "can read it, and mounted again it goes on"
        )


class NotAllowed(UsageError):
    """Something that a query or mutation may not do; an action may."""


class NotAwaited(UsageError):
    """A call on `ctx` whose result nobody awaited; names the line."""


class LimitExceeded(UsageError):
    """A function used more of something than it may."""

    is_callers: bool = False
    """Whether it is the caller that allowed no more, by `transaction_limits`."""

    def __init__(
        self, limit: str, used: float, allowed: float, what: str, advice: str = ""
    ) -> None:
        message = f"{what}: {used:,} is over the limit of {allowed:,} ({limit}). {advice}"
        super().__init__(message.strip())
        self.limit = limit
        self.used = used
        self.allowed = allowed


class VariableMissing(UsageError, KeyError):
    """
    An environment variable that is not set; a `KeyError`, as mappings raise it.

    Args:
        name: of the variable.
        source: where to set it; `{name}` in it stands for the name.
    """

    def __init__(self, name: str, source: str) -> None:
        super().__init__(name)
        self.name = name
        self.source = source

    def __str__(self) -> str:
        return f"{self.name} is not set: {self.source.replace('{name}', self.name)}"


class DeclarationError(UsageError):
    """A schema, function or component that cannot be loaded; names file and line."""


class PushRefused(EngineError):
    """A push that changed nothing; the message names the document or rule in the way."""


class FunctionTimeout(EngineError):
    """A function ran longer than it may."""


class FunctionAborted(EngineError):
    """
    A function raised SystemExit, KeyboardInterrupt or another non-`Exception`.

    That is its `__cause__`; it ends the function, not the process.
    """

    def __init__(self, function: str, raised: BaseException) -> None:
        try:
            shown = repr(raised)
        except BaseException:
            shown = type(raised).__name__
        super().__init__(f"{function} raised {shown}")


class FunctionFailed(EngineError):
    """
    A function of an engine that runs elsewhere raised; the message is what its server tells.

    Where the engine runs in this process the error itself is raised instead.
    """


class Overloaded(EngineError):
    """There was no room within the caller's patience; nothing was done."""

    def __init__(self, what: str, patience_s: float) -> None:
        super().__init__(
            f"{what} had no room for {patience_s:g} s; nothing was done, try again later"
        )
        self.what = what
        self.patience_s = patience_s


class Paused(EngineError):
    """The deployment is paused, so no function is called; nothing was done."""


class Conflict(EngineError):
    """
    Something this transaction read was changed by a later commit.

    Args:
        table, document, index: what was read and then written; empty where that is not known.
        writer: the function whose commit it was.
        ts: of that commit.
    """

    def __init__(
        self,
        message: str,
        *,
        table: str = "",
        document: str = "",
        index: str = "",
        writer: str = "",
        ts: int = 0,
    ) -> None:
        super().__init__(message)
        self.table = table
        self.document = document
        self.index = index
        self.writer = writer
        self.ts = ts


class SnapshotTooOld(EngineError):
    """A snapshot was held longer than its lease; run the function again."""


class OutOfRetention(EngineError):
    """A timestamp further back than the past can be read, or one that is not reached yet."""


class Stopped(EngineError):
    """The engine had stopped before it took this request up; nothing was done."""


class OutcomeUnknown(EngineError):
    """
    The engine failed while this request was being written.

    Only the log, once the engine is back, knows whether it was.  Safe to
    repeat only if doing it twice is the same as doing it once.
    """


class Unreachable(EngineError):
    """No server answered at this address."""


class ProtocolViolation(EngineError):
    """A client sent what the sync protocol does not have; its connection ends."""


class RequestRefused(EngineError):
    """
    An HTTP request that cannot be served as it is; nothing was executed.

    Args:
        status: of the response.
        code: in its body, for programs.
        message: in its body, for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self._code = code

    @property
    def code(self) -> str:
        return self._code


class Unauthenticated(EngineError):
    """A token or administrator's key that proves nothing; nothing was executed."""


class InvalidAuthHeader(Unauthenticated):
    """An `Authorization` header that is neither ``Bearer TOKEN`` nor ``Convex KEY``."""


class NoAuthProvider(Unauthenticated):
    """A token whose issuer or audience no provider of the application has."""


class StoreError(EngineError):
    """Something about the files below the engine."""


class StoreFull(StoreError):
    """The disk or the size limit refused a batch; nothing of it was written."""


class StoreFailed(StoreError):
    """The disk failed while a batch was written; what became of it is not known."""


class StoreLocked(StoreError):
    """Another process has this directory open; the message names its pid and URL."""

    def __init__(self, directory: str, pid: int | None, url: str | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        where = f" at {url}; use Engine.connect({url!r})" if url else "; use Engine.connect(url)"
        super().__init__(f"{directory} is open in {holder}{where}")
        self.pid = pid
        self.url = url


class StoreDamaged(StoreError):
    """What is on disk is not what was written, or is of a newer format."""


class ConvexError(Exception):
    """
    An error of the application whose `data` reaches the client, also in production.

    Args:
        data: any value that a document could hold.
    """

    def __init__(self, data: Any, /) -> None:
        super().__init__(data if isinstance(data, str) else repr(data))
        self.data = data
