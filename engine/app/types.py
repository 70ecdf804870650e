"""
The types that applications write in signatures and schemas.

Documents, pages and identities travel, so they are plain dictionaries under
the names they have on the wire; these `TypedDict`s say which.
"""

from __future__ import annotations

from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
)

from engine.model.ids import Id
from engine.model.values import UNDEFINED, Int64, Undefined, Value

T = TypeVar("T")


class Document(TypedDict):
    """
    What every document has; derive the class of a table's documents from it.

    `_creationTime` is in milliseconds since 1970, with a fraction that orders
    the documents of one millisecond.
    """

    _id: Id[Any]
    _creationTime: float


class PaginationOptions(TypedDict):
    """
    What a client asks of a paginated query; `paginationOpts` on the wire.

    `numItems` is the page size wished for, `cursor` where to go on (`None` is
    the beginning), `endCursor` where to stop instead of after `numItems`.
    `id` only makes argument sets distinct.
    """

    numItems: int
    cursor: str | None
    endCursor: NotRequired[str | None]
    id: NotRequired[float]
    maximumRowsRead: NotRequired[int]
    maximumBytesRead: NotRequired[int]


class Page(TypedDict, Generic[T]):
    """One page of a paginated query and the cursor that the next one begins at."""

    page: list[T]
    isDone: bool
    continueCursor: str
    splitCursor: NotRequired[str | None]
    pageStatus: NotRequired[Literal["SplitRecommended", "SplitRequired"] | None]


class VectorHit(TypedDict, Generic[T]):
    """A document that a vector search found, by its id, and the cosine of its vector: -1 to 1."""

    _id: Id[T]
    _score: float


class UserIdentity(TypedDict, total=False):
    """
    Who is calling, as the token says; other claims are there under their own names.

    `tokenIdentifier` is unique over all issuers: keep users by it.
    """

    tokenIdentifier: Required[str]
    subject: Required[str]
    issuer: Required[str]
    name: str
    givenName: str
    familyName: str
    nickname: str
    preferredUsername: str
    profileUrl: str
    pictureUrl: str
    websiteUrl: str
    email: str
    emailVerified: bool
    gender: str
    birthday: str
    timezone: str
    language: str
    phoneNumber: str
    phoneNumberVerified: bool
    address: str
    updatedAt: str


class TransactionLimits(TypedDict, total=False):
    """What a call within a function may use; what is not said is bounded as for its caller."""

    bytes_read: int
    bytes_written: int
    database_queries: int
    """Index ranges and counts; a `get` is none."""
    documents_read: int
    documents_written: int
    functions_scheduled: int
    scheduled_function_args_bytes: int


class TransactionMetric(TypedDict):
    """One of the limits of a transaction: what is used of it, and what is left."""

    used: int
    remaining: int


class TransactionMetrics(TypedDict):
    """How far a transaction has gone, calls within it included."""

    bytes_read: TransactionMetric
    bytes_written: TransactionMetric
    database_queries: TransactionMetric
    documents_read: TransactionMetric
    documents_written: TransactionMetric
    functions_scheduled: TransactionMetric
    scheduled_function_args_bytes: TransactionMetric


class FunctionMetadata(TypedDict):
    """Which function it is: `name` as in "messages:list", in the component at `component_path`."""

    name: str
    component_path: str
    """"" is the application itself."""
    kind: Literal["query", "mutation", "action"]
    visibility: Literal["public", "internal"]


class CronRun(TypedDict):
    """One run of a cron; times in milliseconds since 1970."""

    scheduledTime: float
    startedTime: NotRequired[float]
    """Not known of runs that an earlier version has noted."""
    completedTime: float
    skipped: int
    """How often it was due until this run had ended, or in a pause after it, and did not run."""
    state: dict[str, str]
    """`kind` is "success", "failed" (with an `error`) or "canceled"."""


class Cron(TypedDict):
    """A cron, as `ctx.crons` tells it; times in milliseconds since 1970."""

    name: str
    function: str
    args: dict[str, Value]
    schedule: dict[str, Value]
    """`type`, and what there is to say of it."""
    registered: bool
    """By `ctx.crons.register`, and not in the code."""
    nextTime: float | None
    skipped: int
    runs: list[CronRun]
    """The last ones, newest last."""


class SecretMark:
    """Says of an annotation that what it describes is never recorded."""

    def __repr__(self) -> str:
        return "SECRET"


SECRET: Final = SecretMark()
Secret = Annotated[T, SECRET]
"""
`Secret[str]`: an argument that is left out of recorded calls, logs and traces.

Anywhere in an argument, as in `list[Secret[str]]` or in a field of a class, it makes all of that
argument secret; `**more: Secret[str]` all that have no name of their own.  Where a function has a
secret, errors do not show what came under an unknown name either: it may be one misspelt.

Not where it is scheduled: the arguments of a call for later are a row, as what a function stores
is, and rows are in the log.  Schedule an id, and read the secret from where it is kept.
"""

__all__ = [
    "SECRET",
    "UNDEFINED",
    "Document",
    "FunctionMetadata",
    "Id",
    "Int64",
    "Page",
    "PaginationOptions",
    "Secret",
    "SecretMark",
    "TransactionLimits",
    "TransactionMetric",
    "TransactionMetrics",
    "Undefined",
    "UserIdentity",
    "Value",
    "VectorHit",
]
