"""
The header that says which format a store is in, so that no version misreads another's.

It is the value of `HEADER_KEY` in the meta tree, written together with the trees.
"""

from __future__ import annotations

from typing import Final

from engine.errors import StoreDamaged
from engine.model.codec import decode, encode

FORMAT_VERSION: Final = 4
"""Rises whenever an older version would misread what a newer one has written."""
FORMAT_VERSION_MIN: Final = 4
"""The oldest that is read: what came before it was never released."""

HEADER_KEY: Final = b"format"


def this_version() -> str:
    """The name and version of the software, as it signs what it creates."""
    # Here, because the writer process reads headers too, and starts in half the time without it.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"headrace {version('headrace')}"
    except PackageNotFoundError:
        return "headrace from source"


def new_header(created_by: str) -> bytes:
    """The header of a store created now."""
    return encode({"version": FORMAT_VERSION, "created_by": created_by})


def check_header(header: bytes | None, *, where: str, reader: str) -> None:
    """
    Refuse a store that this version cannot read.

    Args:
        header: what is at `HEADER_KEY`. where: the directory. reader: this software's name.

    Raises:
        StoreDamaged: there is no header, it cannot be read, or its format is another.
    """
    if header is None:
        raise StoreDamaged(f"{where} holds trees without a format header; restore a backup")
    match decode(header):
        case {"version": int(found), "created_by": str(creator)} if found >= 0:
            pass
        case other:
            raise StoreDamaged(f"{where} has an unreadable format header: {other!r}")
    if found > FORMAT_VERSION:
        raise StoreDamaged(
            f"{where} is in format {found}, created by {creator}; {reader} reads formats up to"
            f" {FORMAT_VERSION}. Nothing was changed: open it with the newer version"
        )
    if found < FORMAT_VERSION_MIN:
        raise StoreDamaged(
            f"{where} is in format {found}, created by {creator}; {reader} reads none before"
            f" {FORMAT_VERSION_MIN}. Nothing was changed: with the code that made it (its commit,"
            " where the version is the same) write each table to a file by `headrace data TABLE"
            " --json`, and `headrace import` them into a new directory; or begin with a new one"
        )
