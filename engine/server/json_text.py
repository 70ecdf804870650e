"""JSON text as plain Python objects, also where a stricter parser gives up."""

from __future__ import annotations

import gc
import json
from typing import Final

import msgspec

from engine.model.json_values import Json

_decode = msgspec.json.Decoder().decode

UNCOLLECTED_BYTES_MIN: Final = 1 << 20
"""
Of a text this long the garbage collector looks at nothing until it is parsed.

Of 36 MB it would look again and again at millions of lists, none of which is garbage, and hold
everybody up for 1.4 s where parsing takes 0.6.
"""

LENIENT_BYTES_MAX: Final = 1 << 20
"""Some twenty milliseconds to parse; a document has no more."""

TOO_DEEP: Final = "nested too deep"
"""For Python, which has some thousand levels: what is wrong with such a text."""


def parse(text: str | bytes) -> Json:
    """
    The JSON document in `text`.

    Half a surrogate pair and numbers beyond float64 are let through (as such a
    string, and as an infinity), so that whoever looks at the value can say which
    one is wrong instead of refusing the whole message.

    Raises:
        ValueError: it is no JSON, or nested beyond reason.
    """
    if len(text) < UNCOLLECTED_BYTES_MIN or not gc.isenabled():
        return _parse(text)
    gc.disable()
    try:
        return _parse(text)
    finally:
        gc.enable()


def parse_leniently(text: str | bytes) -> Json:
    """
    The same of a text that a strict parser has refused, if it is not large.

    Half a character in a large one would have all of it parsed, which holds everybody up.

    Raises:
        ValueError: it is no JSON, or nested beyond reason, or large.
    """
    if len(text) > LENIENT_BYTES_MAX:
        raise ValueError(
            f"it is no JSON, or has half a character and over {LENIENT_BYTES_MAX:,} bytes"
        )
    return parse(text)


def _parse(text: str | bytes) -> Json:
    try:
        return _decode(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except msgspec.DecodeError as strict:
        try:
            return json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise ValueError(str(strict)) from None


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is not JSON")
