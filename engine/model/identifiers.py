"""What may be the name of a table, an index, a function and the like."""

from __future__ import annotations

from engine.model.limits import IDENTIFIER_LENGTH_MAX
from engine.model.text import brief


def is_identifier(name: str) -> bool:
    """Whether `name` is letters, digits and underscores, not only the last, and not too long."""
    return (
        len(name) <= IDENTIFIER_LENGTH_MAX
        and name.isascii()
        and name.isidentifier()
        and bool(name.strip("_"))
    )


def why_no_identifier(name: str, what: str) -> str:
    """The message for a name that is none; `what` is "a table", "an index" and so on."""
    return (
        f"{brief(name)!r} cannot be the name of {what}: use letters, digits and underscores, "
        f"at most {IDENTIFIER_LENGTH_MAX}, the first no digit"
    )
