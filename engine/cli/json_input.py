"""JSON as people give it to a verb: in an argument, or in a file."""

from __future__ import annotations

import json
from math import isinf
from typing import Any

from engine.errors import UsageError


def read_json(what: str, text: str) -> Any:
    """
    The document in `text`.

    Raises:
        UsageError: it is no JSON that can be sent; the message begins with `what`.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except ValueError as error:
        raise UsageError(f"{what} no JSON: {error}") from None
    except RecursionError:
        raise UsageError(f"{what} no JSON that can be read: nested too deep") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is Python's")


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError(f"{text} is beyond every float64")
    return number
