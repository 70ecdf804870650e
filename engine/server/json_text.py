"""JSON text as plain Python objects, also where a stricter parser gives up."""

from __future__ import annotations

import json

import msgspec

from engine.model.json_values import Json

_decode = msgspec.json.Decoder().decode


def parse(text: str | bytes) -> Json:
    """
    The JSON document in `text`.

    Half a surrogate pair and numbers beyond float64 are let through (as such a
    string, and as an infinity), so that whoever looks at the value can say which
    one is wrong instead of refusing the whole message.

    Raises:
        ValueError: it is no JSON, or nested beyond reason.
    """
    try:
        return _decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except msgspec.DecodeError as strict:
        try:
            return json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise ValueError(str(strict)) from None


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is not JSON")
