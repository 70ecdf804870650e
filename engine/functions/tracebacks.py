"""
Tracebacks as an application's developer wants them: the application's own frames.

Frames of the engine say nothing to whoever reads about an error of their
function, unless the engine itself is at fault; then they are all there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from importlib.util import find_spec
from types import TracebackType
from typing import Final, TypeVar

from engine.errors import EngineError

E = TypeVar("E", bound=BaseException)

ENGINE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def _folder(package: str) -> str:
    found = find_spec(package)
    assert found is not None, package
    assert found.origin is not None, package
    return os.path.dirname(found.origin) + os.sep


_CARRIERS: Final = (*map(_folder, ("asyncio", "outcome", "trio")), contextlib.__file__)
"""What stands between the engine and a function that it calls."""
_IMPORTER: Final = os.path.join(ENGINE, "functions", "modules.py")
"""What `import` is in an application's modules: an error of it is theirs."""


def trimmed(error: E) -> E:
    """
    `error`, its traceback cut down to the frames of the application and of what that calls.

    It is left as it is where an error that the engine did not raise on purpose comes from
    inside the engine.
    """
    frames = list(_frames(error.__traceback__))
    if frames and _is_at_fault(frames[-1]) and not isinstance(error, EngineError):
        return error
    first = next((at for at, frame in enumerate(frames) if not _is_carrier(frame)), len(frames))
    kept = [frame for frame in frames[first:] if not _is_engine(frame)]
    return error.with_traceback(_chained(kept))


def _frames(trace: TracebackType | None) -> Iterable[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _file(trace: TracebackType) -> str:
    return trace.tb_frame.f_code.co_filename


def _is_engine(trace: TracebackType) -> bool:
    return _file(trace).startswith(ENGINE)


def _is_at_fault(innermost: TracebackType) -> bool:
    return _is_engine(innermost) and _file(innermost) != _IMPORTER


def _is_carrier(trace: TracebackType) -> bool:
    return _file(trace).startswith((ENGINE, *_CARRIERS))


def _chained(frames: list[TracebackType]) -> TracebackType | None:
    chain: TracebackType | None = None
    for one in reversed(frames):
        chain = TracebackType(chain, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return chain
