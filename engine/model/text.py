"""Text of others, as it can be sent and shown: encodable, and no longer than people read."""

from __future__ import annotations

from engine.model.limits import SHOWN_LENGTH_MAX


def speakable(text: str) -> str:
    """`text` as UTF-8 can carry it: lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def number_text(value: float) -> str:
    """A number as a message shows it, in at most some twenty characters."""
    try:
        return f"{value:,.15g}"
    except OverflowError:
        return "a number of more than 300 digits"


def brief(text: str) -> str:
    """`text` as a message shows it: its first `SHOWN_LENGTH_MAX` characters."""
    return text if len(text) <= SHOWN_LENGTH_MAX else f"{text[:SHOWN_LENGTH_MAX]}…"
