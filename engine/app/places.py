"""Where in an application something was declared, in the form that editors turn into a link."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Final

ENGINE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def place_of_caller() -> str:
    """File and line of the innermost code under way that is not the engine's."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(ENGINE) and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def place_in(module: str) -> str | None:
    """File and line of the innermost code under way of a module, if any of it is."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != module:
        frame = frame.f_back
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
