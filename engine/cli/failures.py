"""Errors as people read them, and the exit codes that scripts read."""

from __future__ import annotations

import enum
import errno
import sys
import traceback
from typing import Final

from engine.errors import (
    DeclarationError,
    EngineError,
    LimitExceeded,
    Overloaded,
    PushRefused,
    RequestRefused,
    StoreFull,
    StoreLocked,
    Unauthenticated,
    Unreachable,
    UsageError,
)


class Exit(enum.IntEnum):
    """What the process ends with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    INTERRUPTED = 130


_REFUSALS: Final = (
    StoreLocked,
    StoreFull,
    DeclarationError,
    PushRefused,
    LimitExceeded,
    Overloaded,
)
_REFUSAL_CODES: Final = frozenset({*(each.__name__ for each in _REFUSALS), "ShellRefused"})


def explain(error: Exception) -> Exit:
    """Say on stderr what went wrong; return the exit code for it."""
    single = only(error)
    for line in told(single):
        print(line, file=sys.stderr)
    return exit_code(single)


def exit_code(error: Exception) -> Exit:
    # The same application is refused alike, whoever pushes it: this process or a server.
    if isinstance(error, _REFUSALS):
        return Exit.REFUSED
    match error:
        case RequestRefused() if error.code in _REFUSAL_CODES:
            return Exit.REFUSED
        case RequestRefused() if error.status >= 500:
            return Exit.UNREACHABLE if error.status == 503 else Exit.FAILED
        case Unreachable():
            return Exit.UNREACHABLE
        case UsageError() | RequestRefused() | Unauthenticated():
            return Exit.USAGE
        case OSError():
            return Exit.USAGE
    return Exit.FAILED


def told(error: BaseException) -> list[str]:
    """An error in lines: what it says, and for one of the application its frames with source."""
    match error:
        case DeclarationError(__cause__=SyntaxError() as syntax):
            return _syntax(syntax)
        case DeclarationError(__cause__=Exception() as cause):
            return [f"error: {error}", *_frames(cause)]
        case OSError(errno=errno.EADDRINUSE):
            return [f"error: {error}: something listens there; choose another one with --port"]
        case EngineError() | OSError():
            return [f"error: {error}"]
    return "".join(traceback.format_exception(error)).rstrip().splitlines()


def only(error: Exception) -> Exception:
    """The one error in groups of groups; a group of several as it is."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _syntax(error: SyntaxError) -> list[str]:
    lines = [f"error: {error.filename}:{error.lineno}: {error.msg}"]
    source = (error.text or "").rstrip()
    if source:
        shown = source.lstrip()
        column = max(0, (error.offset or 1) - 1 - (len(source) - len(shown)))
        lines += [f"    {shown}", f"    {' ' * column}^"]
    return lines


def _frames(error: Exception) -> list[str]:
    from engine.functions.tracebacks import trimmed  # only whoever fails waits for trio

    frames = traceback.extract_tb(trimmed(error).__traceback__)
    return "".join(traceback.format_list(frames)).rstrip().splitlines()
