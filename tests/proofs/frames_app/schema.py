"""What there is: a note has an owner."""

from __future__ import annotations

from engine import Document, Schema, Table


class Note(Document):
    owner: str
    n: float


schema = Schema(notes=Table(Note).index("by_owner", ["owner", "n"]))
