"""
Function handles: callbacks as plain strings, which whoever has one may keep and call.

    function://limits;functions:refill;pX3k…

A handle says which function it is for, and proves that somebody who may call that function has
made it: the proof is by a secret of the database, so none can be guessed, or turned into that of
another function.  The same function always has the same handle.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from engine.errors import FunctionNotFound, NotAllowed
from engine.model.codec import encode

PREFIX: Final = "function://"
HANDLES: Final = "handles"
"""Field of the deployment's row: the secret."""
SECRET_BYTES: Final = 32
_PROOF_BYTES: Final = 18
_BETWEEN: Final = ";"
"""In no path of a component and in no path of a function."""


class Handles:
    """
    Args:
        secret: of the database; empty if it has none yet.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, component: str, path: str) -> str:
        """
        The handle of a function.

        Raises:
            NotAllowed: this database was last pushed to by a version that knew of no handles.
        """
        if not self._secret:
            raise NotAllowed("there are no function handles here yet; `headrace push` makes them")
        proof = self._proof(component, path)
        return f"{PREFIX}{component}{_BETWEEN}{path}{_BETWEEN}{proof}"

    def read(self, handle: str) -> tuple[str, str]:
        """
        Component and path of the function that `handle` was made for.

        Raises:
            FunctionNotFound: nobody has made it here.
        """
        parts = handle.removeprefix(PREFIX).split(_BETWEEN)
        if self._secret and len(parts) == 3:
            component, path, proof = parts
            if compare_digest(proof.encode(), self._proof(component, path).encode()):
                return component, path
        raise FunctionNotFound(
            "this function handle was not made here; ctx.create_function_handle makes one"
        )

    def _proof(self, component: str, path: str) -> str:
        text = encode([component, path])
        digest = blake2b(text, key=self._secret, digest_size=_PROOF_BYTES).digest()
        return urlsafe_b64encode(digest).decode()


def is_handle(fn: object) -> bool:
    """Whether `fn` is spelled as a handle is; no path of a function begins like that."""
    return isinstance(fn, str) and fn.startswith(PREFIX)
