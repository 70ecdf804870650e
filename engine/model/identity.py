"""Who is asking."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A user whose token was verified, or as whom an administrator acts."""

    issuer: str
    subject: str
    token_identifier: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    expires_s: float | None = None
    """Unix time after which the token is no longer good; `None` is never."""

    def as_value(self) -> dict[str, Any]:
        """
        The dictionary that `ctx.auth.get_user_identity()` gives.

        Each is the caller's own, all the way down: what one function does to it, no other sees.
        """
        return {name: _copy_of(value) for name, value in self._fields().items()}

    @staticmethod
    def of_value(value: Mapping[str, Any]) -> Identity:
        """The identity that gives `value` as its dictionary."""
        claims = dict(value)
        return Identity(
            issuer=claims.pop("issuer"),
            subject=claims.pop("subject"),
            token_identifier=claims.pop("tokenIdentifier"),
            claims=claims,
        )

    def cache_key(self) -> str:
        """Equal for tokens that give a query the same identity."""
        return json.dumps(self._fields(), sort_keys=True, default=str)

    def _fields(self) -> dict[str, Any]:
        return {
            **self.claims,
            "issuer": self.issuer,
            "subject": self.subject,
            "tokenIdentifier": self.token_identifier,
        }


def _copy_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy_of(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_copy_of(each) for each in value]
    return value
