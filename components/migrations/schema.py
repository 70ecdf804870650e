"""What is kept of migrations: where each stands, which parts it has, and what comes after it."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from engine import Document, Id, Schema, Table


class Member(TypedDict):
    """A migration by its name, which is the path of its function, and the handle of that."""

    name: str
    fn: str


class Migration(Document):
    """
    A migration that was started, and how it ended; times in milliseconds since 1970.

    That it is in progress is true as long as jobs of its parts are there: see `status`.
    """

    name: str
    fn: str
    state: Literal["inProgress", "success", "failed", "canceled"]
    skip_errors: bool
    skipped: float
    latest_start: float
    batch_size: NotRequired[float]
    total: NotRequired[float]
    error: NotRequired[str]
    latest_end: NotRequired[float]


class Part(Document):
    """
    A range of documents that a migration goes through by itself.

    `cursor` is where its next batch begins, and `job` is what runs that; `custom` is how many
    ranges of the application's own there were when it was made, if it is one of those.
    """

    migration: Id[Migration]
    number: float
    cursor: str | None
    is_done: bool
    processed: float
    lower: NotRequired[float]
    upper: NotRequired[float]
    custom: NotRequired[float]
    job: NotRequired[str]


class Failure(Document):
    """A document that was skipped, and why."""

    migration: Id[Migration]
    document: str
    error: str


class Series(Document):
    """Migrations that are still to be run, once `waits_for` has succeeded."""

    waits_for: str
    left: list[Member]
    reset: bool
    skip_errors: bool


schema = Schema(
    migrations=Table(Migration)
    .index("by_name", ["name"], unique=True)
    .index("by_state", ["state"]),
    parts=Table(Part).index("by_migration", ["migration", "number"]),
    failures=Table(Failure).index("by_migration", ["migration"]),
    series=Table(Series).index("by_waits_for", ["waits_for"]),
)
