"""What is stored."""

from typing import Literal

from headrace import Document, Id, Schema, Table


class Message(Document):
    body: str
    author: str
    """The name to show."""
    user: str
    """Who wrote it: the identity's `tokenIdentifier`, which no two users share."""


class Tab(Document):
    """A window that has the page open."""

    key: str
    name: str | None
    """Of who is signed in there."""
    leaves: Id[Literal["_scheduled_functions"]]
    """The job that takes it away, unless it is heard of before."""


schema = Schema(
    messages=Table(Message),
    tabs=Table(Tab).index("by_key", ["key"], unique=True).index("by_name", ["name"]),
)
