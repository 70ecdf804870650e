"""The vocabulary of the write path: row writes, where they came from, what became of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgspec import Struct

from engine.model.codec import decode


class RowWrite(Struct, gc=False, eq=False):
    """
    One row as it was and as it is.

    Both images are encoded documents; `None` is absent.  They are decoded when
    somebody asks, and then once until they are forgotten.  Nothing in them leads back to
    this, so the garbage collector need not look at what thousands of commits have written.
    """

    key: bytes
    before: bytes | None
    after: bytes | None
    _before_doc: dict[str, Any] | None = None
    _after_doc: dict[str, Any] | None = None
    _is_forgetful: bool = False

    def since(self, before: bytes | None) -> RowWrite:
        """The same write, of a row that was as in `before`."""
        return RowWrite(self.key, before, self.after, None, self._after_doc)

    def forget_docs(self) -> None:
        """Keep the images alone: who asks for a document after this has it decoded for himself."""
        self._before_doc = self._after_doc = None
        self._is_forgetful = True

    @property
    def table_number(self) -> int:
        return int.from_bytes(self.key[:4], "big")

    @property
    def before_doc(self) -> dict[str, Any] | None:
        """The document before, shared: nobody may change it."""
        doc = self._before_doc
        if doc is None and self.before is not None:
            doc = decode(self.before)
            self._before_doc = None if self._is_forgetful else doc
        return doc

    @property
    def after_doc(self) -> dict[str, Any] | None:
        """The document after, shared: nobody may change it."""
        doc = self._after_doc
        if doc is None and self.after is not None:
            doc = decode(self.after)
            self._after_doc = None if self._is_forgetful else doc
        return doc


class Kind(enum.IntEnum):
    """What a log record does to the state."""

    WRITES = 0
    BACKFILL = 1
    """Entries of one index for the rows after one id, up to another, as those rows are now."""
    DROP = 2
    """Entries of a dropped index, up to a key."""
    TRIM = 3
    """Forget the log below a timestamp; the record is the new anchor."""


class Source(NamedTuple):
    """
    Who wrote: enough to run it again.

    `args` is the argument object, or `None` where recording is off; `identity` is who called, as
    the function was told, or `None` if it did not ask; `seed` and `now_ns` are the dice and the
    clock that it saw.
    """

    path: str
    component: str = ""
    request_id: str = ""
    code: str = ""
    args: Mapping[str, Any] | None = None
    identity: Mapping[str, Any] | None = None
    seed: int = 0
    now_ns: int = 0


SYSTEM = Source(path="_system")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """
    A client's own number for a mutation: the same pair is the same mutation.

    `call` is a digest of what is called, where a client might use a number for two calls: of a
    request with a key.
    """

    session_id: bytes
    request_id: int
    call: bytes = b""
