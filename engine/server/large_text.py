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
from engine.model.values import Refusal, Value, check_room
from engine.server.json_text import parse

LARGE_BYTES_MIN: Final = 1 << 16
"""A text of fewer is parsed in less than some five milliseconds."""

STEP_COST_MAX: Final = 4_000
"""Of tokens and scalars: two milliseconds."""

RUN_BYTES_MAX: Final = 1 << 14
"""Of scalars that are parsed together."""

_QUOTE, _BACKSLASH, _ARRAY, _OBJECT = b'"\\[{'
_CLOSING: Final = b"]}"
_RUN: Final = re.compile(rb'[^\[\]{}"]{1,%d}' % RUN_BYTES_MAX)
_LONG_RUN: Final = re.compile(rb'[^\[\]{}",]+')
_BETWEEN: Final = b" \t\r\n,:"

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
        self._count(2)
        check_room(VALUE_NESTING_MAX - len(self._open))
        self._open.append(container)
        self._names.append(None)

    def _end(self) -> None:
        container = self._open.pop()
        self._names.pop()
        self._put(read_object(container) if isinstance(container, dict) else container)

    def _string(self) -> int:
        end = _end_of_string(self._text, self.at)
        text = parse(self._text[self.at : end])
        self.at = end
        if self._open and isinstance(self._open[-1], dict) and self._names[-1] is None:
            self._count(1 + len(text))
            self._names[-1] = text
        else:
            self._count(2 + len(text))
            self._put(read_scalar(text))
        return 1 + len(text) // 1_000

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
        self._open.pop()
        self._names.pop()
        raise Refusal(why)

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._bytes_max:
            raise Refusal(f"over {self._bytes_max:,} bytes; split it over several calls")

    def steps(self) -> list[object]:
        """Where the reader is, innermost first."""
        steps: list[object] = []
        for container, name in zip(self._open, self._names, strict=True):
            steps.append(len(container) if isinstance(container, list) else name or "")
        return steps[::-1]


def _end_of_string(text: bytes, at: int) -> int:
    """Where the string ends whose first quote is at `at`."""
    while True:
        at = text.index(b'"', at + 1)
        before = at
        while text[before - 1] == _BACKSLASH:
            before -= 1
        if (at - before) % 2 == 0:
            return at + 1
