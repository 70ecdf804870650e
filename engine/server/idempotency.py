"""
The `Idempotency-Key` header: a mutation that is sent again with its key runs once.

A key is remembered as a session of its own with one request, apart from those of
clients, and what keeps their records keeps these: in the mutation's own transaction, over restarts,
until the session has been silent for `session_silence_s_max`.  Two callers may have
the same key without ever meeting, and a key is of one call: what was called is in
its record, as a digest that tells nothing to who does not know the key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Final

from engine.app.references import canonical_path
from engine.errors import RequestRefused
from engine.functions.results import Caller
from engine.model.commits import SessionRequest
from engine.model.json_values import to_wire
from engine.model.limits import IDEMPOTENCY_KEY_CHARS_MAX
from engine.model.values import Value
from engine.server.requests import Request

HEADER: Final = "Idempotency-Key"
_ID_BYTES: Final = 16


def key_of(request: Request) -> str | None:
    """
    The key that a request was given; `None` is none.

    Raises:
        RequestRefused: it is empty, too long, or not printable ASCII.
    """
    key = request.headers.get(HEADER.lower())
    if key is None:
        return None
    if 0 < len(key) <= IDEMPOTENCY_KEY_CHARS_MAX and key.isascii() and key.isprintable():
        return key
    raise RequestRefused(
        400,
        "BadIdempotencyKey",
        f"{HEADER} has to be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters "
        "(IDEMPOTENCY_KEY_CHARS_MAX), best a new UUID for each mutation",
    )


def session_request(
    key: str, path: str, args: Mapping[str, Value], component: str, caller: Caller
) -> SessionRequest:
    """What a mutation with this key, of this caller, is remembered by."""
    identity = caller.identity
    who = [caller.admin, None if identity is None else identity.token_identifier]
    call = [canonical_path(path), component, to_wire(dict(args))]
    return SessionRequest(
        session_id=_digest(key, who)[:_ID_BYTES], request_id=0, call=_digest(key, call)
    )


def _digest(key: str, document: object) -> bytes:
    """Of a JSON document; the order of its fields says nothing."""
    text = json.dumps(document, sort_keys=True)
    return hmac.digest(key.encode(), text.encode(), hashlib.sha256)
