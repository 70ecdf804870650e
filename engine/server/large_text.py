"""
A large JSON text as a value, read in steps, so that others have their turns between them.

Parsed at once 36 MB of numbers held everybody up for half a second, and for seconds more while
they became values, only to be refused as too many.  Here what is too large is refused where it
becomes that.  It takes some times as long in all as a parser in C, and is for what few send.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final, NoReturn, TypeAlias

from engine.errors import InvalidValue
from engine.model.json_values import read_object, read_scalar
from engine.model.limits import ARRAY_ITEMS_MAX, OBJECT_FIELDS_MAX, VALUE_NESTING_MAX
from engine.model.values import Refusal, Value, check_room, size_of
from engine.server.json_text import parse

LARGE_BYTES_MIN: Final = 1 << 16
"""A text of fewer is parsed in less than some five milliseconds."""

STEP_COST_MAX: Final = 4_000
"""Of tokens and scalars: two milliseconds."""

RUN_BYTES_MAX: Final = 1 << 14
"""Of scalars that are parsed together."""

SPELLED_BYTES_MAX: Final = 8
"""Of JSON for one byte of a value: six for a letter that is escaped, a third more in base64."""

_NAME_SLACK: Final = 16
"""A name like `$integer` is part of no value, and may stand where there is room for no more."""

_QUOTE, _ARRAY, _OBJECT = b'"[{'
_CLOSING: Final = b"]}"
_RUN: Final = re.compile(rb'[^\[\]{}"]{1,%d}' % RUN_BYTES_MAX)
_LONG_RUN: Final = re.compile(rb'[^\[\]{}",]+')
_BETWEEN: Final = b" \t\r\n,:"
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)

Steps: TypeAlias = Generator[None, None, Value]


def read_in_steps(text: bytes, *, path: str, bytes_max: int) -> Steps:
    """
    Read what `parse` and `from_wire` make of `text`, some milliseconds of work at a time.

    Args:
        text: one JSON document, of which another parser has said that it is well-formed.
        path: how an error calls it.
        bytes_max: of the value, as `values.measure` counts them.

    Raises:
        InvalidValue: it spells no value, or one that is too large; says where and why.
    """
    reader = _Reader(text, bytes_max)
    cost = 0
    try:
        while reader.at < len(text):
            cost += reader.take()
            if cost > STEP_COST_MAX:
                yield
                cost = 0
    except Refusal as refusal:
        refusal.steps += reader.steps()
        raise InvalidValue(refusal.told(path)) from None
    except ValueError as error:
        raise InvalidValue(str(error)) from None
    [value] = reader.whole
    return value


class _Reader:
    """Takes one token after another, and puts what it stands for where it belongs."""

    def __init__(self, text: bytes, bytes_max: int) -> None:
        self.at = 0
        self.whole: list[Value] = []
        self._text = text
        self._bytes_max = bytes_max
        self._bytes = 0
        self._open: list[list[Value] | dict[str, Value]] = []
        self._names: list[str | None] = []
        """Of the field that is being read of each, or `None`."""
        self._before: list[int] = []
        """Bytes of what stands before each."""

    def take(self) -> int:
        """Take what comes next; about what that has cost."""
        first = self._text[self.at]
        if first == _QUOTE:
            return self._string()
        if first in (_ARRAY, _OBJECT):
            self.at += 1
            self._begin([] if first == _ARRAY else {})
            return 1
        if first in _CLOSING:
            self.at += 1
            self._end()
            return 1
        return self._run()

    def _begin(self, container: list[Value] | dict[str, Value]) -> None:
        before = self._bytes
        self._count(2)
        # An object may stand for a number or bytes, which its end tells.
        check_room(VALUE_NESTING_MAX - len(self._open) + isinstance(container, dict))
        self._open.append(container)
        self._names.append(None)
        self._before.append(before)

    def _end(self) -> None:
        container, before = self._close()
        value = container
        if isinstance(container, dict):
            value = read_object(container)
            if isinstance(value, dict):
                check_room(VALUE_NESTING_MAX - len(self._open))
            else:
                self._bytes = before
                self._count(size_of(value))
        self._put(value)

    def _close(self) -> tuple[list[Value] | dict[str, Value], int]:
        """The innermost container, which is open no more, and the bytes before it."""
        self._names.pop()
        return self._open.pop(), self._before.pop()

    def _string(self) -> int:
        text = self._next_string()
        name = self._names[-1] if self._open else None
        if self._open and isinstance(self._open[-1], dict) and name is None:
            if text.startswith("$") and not self._open[-1]:
                self._bytes = self._before[-1]  # its end counts what it stands for
            else:
                self._count(1 + len(text))
            self._names[-1] = text
        else:
            in_base64 = name is not None and name.startswith("$")
            self._count(len(text) * 3 // 4 if in_base64 else 2 + len(text))
            self._put(read_scalar(text))
        return 1 + len(text) // 1_000

    def _next_string(self) -> str:
        """One that is longer than any that fits is refused before it is parsed."""
        room = self._bytes_max - self._bytes + _NAME_SLACK
        found = _STRING.match(self._text, self.at, self.at + SPELLED_BYTES_MAX * room)
        if found is None:
            raise self._too_large()
        spelled = found[0]
        # An escape is one letter, and has two or, beginning with `\u`, six.
        least = len(spelled) - spelled.count(b"\\") - 4 * spelled.count(b"\\u")
        if 3 * least > 4 * room:  # of base64 three quarters count
            raise self._too_large()
        text: str = parse(spelled)
        self.at = found.end()
        return text

    def _run(self) -> int:
        """Scalars that are no strings, and what stands between them."""
        run = self._next_run()
        self.at += len(run)
        if not (spelled := run.strip(_BETWEEN)):
            return 1
        scalars = parse(b"[%b]" % spelled)
        # Of null, true and false each has one of these letters, and no number has.
        self._count(9 * len(scalars) - 8 * (run.count(b"u") + run.count(b"f")))
        for scalar in scalars:
            self._put(read_scalar(scalar))
        return 1 + len(scalars) + len(run) // 1_000

    def _next_run(self) -> bytes:
        """As much as is parsed together, cut at a comma; more if it has none."""
        found = _RUN.match(self._text, self.at)
        assert found is not None, "what begins no string and no container"
        run = found[0]
        if len(run) == RUN_BYTES_MAX:
            run = run[: run.rfind(b",") + 1]
            if not run:
                longer = _LONG_RUN.match(self._text, self.at)
                assert longer is not None
                run = longer[0]
        return run

    def _put(self, value: Value) -> None:
        if not self._open:
            self.whole.append(value)
            return
        container = self._open[-1]
        if isinstance(container, list):
            container.append(value)
            if len(container) > ARRAY_ITEMS_MAX:
                self._refuse_inside(f"an array of over {ARRAY_ITEMS_MAX} items")
        else:
            name = self._names[-1]
            assert name is not None, "a field has a name"
            container[name] = value
            self._names[-1] = None
            if len(container) > OBJECT_FIELDS_MAX:
                self._refuse_inside(f"an object of over {OBJECT_FIELDS_MAX} fields")

    def _refuse_inside(self, why: str) -> NoReturn:
        self._close()
        raise Refusal(why)

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._bytes_max:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(f"over {self._bytes_max:,} bytes; split it over several calls")

    def steps(self) -> list[object]:
        """Where the reader is, innermost first."""
        steps: list[object] = []
        for container, name in zip(self._open, self._names, strict=True):
            steps.append(len(container) if isinstance(container, list) else name or "")
        return steps[::-1]
