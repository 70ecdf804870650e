"""What stands on the shelf."""

from __future__ import annotations

from engine import Document, Schema, Table


class Jar(Document):
    label: float


schema = Schema(jars=Table(Jar).index("by_label", ["label"]))
