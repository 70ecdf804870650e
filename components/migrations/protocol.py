"""What the component asks of an application's migration, and what the application is told."""

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias, TypedDict


class PlanAsked(TypedDict):
    """Into which parts the table is to be divided now."""

    kind: Literal["plan"]


class Bounds(TypedDict):
    """
    From `lower` to before `upper`, in milliseconds since 1970; or one of `custom` ranges that the
    application has of its own.
    """

    lower: NotRequired[float]
    upper: NotRequired[float]
    custom: NotRequired[float]


class Plan(TypedDict):
    """
    Bounds of each part, and how many documents there are, if that can be told without reading
    them.
    """

    parts: list[Bounds]
    total: int | None


class BatchAsked(TypedDict):
    """
    Go through some documents of a part.

    With `one_by_one` each in a sub-transaction of its own, of which those that fail are skipped.
    """

    kind: Literal["batch"]
    part: int
    bounds: Bounds
    cursor: str | None
    size: NotRequired[float]
    one_by_one: bool


class Skipped(TypedDict):
    """A document that failed, and how."""

    document: str
    error: str


class Batch(TypedDict):
    """What was done: `processed` documents were looked at, those that were skipped too."""

    continueCursor: str | None
    isDone: bool
    processed: int
    skipped: list[Skipped]


class DocumentAsked(TypedDict):
    """Go through one document."""

    kind: Literal["document"]
    document: str


class DryAsked(TypedDict):
    """Say what the next batch of the first part would change, and undo it."""

    kind: Literal["dry"]
    cursor: str | None
    size: NotRequired[float]


Asked: TypeAlias = PlanAsked | BatchAsked | DocumentAsked | DryAsked


class PartStatus(TypedDict):
    """How far one of several ranges has come."""

    cursor: str | None
    processed: int
    isDone: bool


class MigrationStatus(TypedDict):
    """
    How a migration stands; times in milliseconds since 1970.

    `processed` documents were looked at, of `total` that there were when it began, if that is
    known; `skipped` of them failed, and `failures` has some of these.  `next` are those that
    begin after it.  The state is "unknown" if nothing is known of it, or if it is in progress and
    nobody is at it: starting it goes on where it was.
    """

    name: str
    state: Literal["inProgress", "success", "failed", "canceled", "unknown"]
    isDone: bool
    cursor: str | None
    processed: int
    skipped: int
    failures: list[Skipped]
    parts: list[PartStatus]
    next: list[str]
    total: NotRequired[int]
    error: NotRequired[str]
    latestStart: NotRequired[float]
    latestEnd: NotRequired[float]
    batchSize: NotRequired[int]


class Change(TypedDict):
    """A document before and after."""

    before: dict[str, object]
    after: dict[str, object] | None


class DryRun(TypedDict):
    """What a batch would have done; nothing was written."""

    dryRun: Literal[True]
    name: str
    processed: int
    isDone: bool
    continueCursor: str | None
    changes: list[Change]
