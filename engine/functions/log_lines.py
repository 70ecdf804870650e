"""
Values as the lines of a function's log, as the clients show them.

    [LOG] 'posting' 'hello'
    [WARN] 'late' { by: 2 }

A line begins with its level in brackets; values are spelled as in JavaScript's
console.  A function has so many lines, and a line so many bytes; what is more
is left out, and a line or a suffix says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Final, Literal, TypeAlias

from engine.model.limits import Limits
from engine.model.values import Int64

Level: TypeAlias = Literal["DEBUG", "INFO", "LOG", "WARN", "ERROR"]

OVERFLOW: Final = "[ERROR] 'Log overflow (maximum {}). Remaining log lines omitted.'"
TRUNCATED: Final = " (truncated due to length)"
DEPTH_MAX: Final = 5
"""Lists and dictionaries further inside are shown as `[Array]` and `[Object]`."""


def add_line(lines: list[str], limits: Limits, level: Level, parts: Iterable[Any]) -> None:
    """Append what `parts` look like, within the limits."""
    room = limits.log_lines_max - len(lines)
    if room > 1:
        lines.append(line_of(level, parts, bytes_max=limits.log_line_bytes_max))
    elif room == 1:
        lines.append(OVERFLOW.format(limits.log_lines_max))


def line_of(level: Level, parts: Iterable[Any], *, bytes_max: int) -> str:
    """One line: the level and every part, cut at `bytes_max` of UTF-8."""
    text = f"[{level}] " + " ".join(_shown(part) for part in parts)
    if text.isascii() and len(text) <= bytes_max:
        return text
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= bytes_max:
        return data.decode()
    return data[: bytes_max - len(TRUNCATED)].decode("utf-8", "ignore") + TRUNCATED


def _shown(part: object) -> str:
    try:
        return shown(part)
    except Exception as broken:
        return f"[{type(part).__name__} that cannot be shown: {type(broken).__name__}]"


# How a value looks.

_ESCAPES: Final = {
    **{code: f"\\x{code:02X}" for code in (*range(0x20), 0x7F)},
    ord("\b"): "\\b",
    ord("\t"): "\\t",
    ord("\n"): "\\n",
    ord("\f"): "\\f",
    ord("\r"): "\\r",
    ord("'"): "\\'",
    ord("\\"): "\\\\",
}


def shown(value: Any, depth: int = 0) -> str:
    """`value` as JavaScript's console shows it, or its `repr` if JavaScript has nothing like it."""
    if isinstance(value, str):
        return f"'{value.translate(_ESCAPES)}'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Int64):
        return f"{int(value)}n"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return _wrapped("{ {} }", "{}", "[Object]", _fields(value, depth), depth)
    if isinstance(value, list | tuple):
        return _wrapped("[ {} ]", "[]", "[Array]", _items(value, depth), depth)
    if isinstance(value, Set):
        return "Set " + _wrapped("{ {} }", "{}", "[Object]", _items(value, depth), depth)
    return _represented(value)


def _wrapped(frame: str, empty: str, deep: str, inner: Iterable[str], depth: int) -> str:
    if depth >= DEPTH_MAX:
        return deep
    text = ", ".join(inner)
    return frame.replace("{}", text) if text else empty


def _items(values: Sequence[Any] | Set[Any], depth: int) -> Iterable[str]:
    return (shown(value, depth + 1) for value in values)


def _fields(value: Mapping[Any, Any], depth: int) -> Iterable[str]:
    return (
        f"{key if isinstance(key, str) and key.isidentifier() else shown(key)}: "
        f"{shown(inner, depth + 1)}"
        for key, inner in value.items()
    )


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == int(value) and abs(value) < 1e21:
        return "-0" if value == 0 and math.copysign(1, value) < 0 else str(int(value))
    return repr(value)


def _represented(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__qualname__} whose repr raises {type(error).__name__}>"
