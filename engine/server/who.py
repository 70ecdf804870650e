"""On whose behalf a connection or a request acts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from engine.model.identity import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """A user, an administrator, an administrator acting as a user, or nobody."""

    identity: Identity | None = None
    admin: bool = False
    key: str | None = field(init=False, compare=False, default=None)
    """Equal for those who look the same to a function; `None` is nobody."""

    def __post_init__(self) -> None:
        if self.identity is not None:
            object.__setattr__(self, "key", self.identity.cache_key())

    def is_expired(self, now_ns: int) -> bool:
        """Whether the token that said so is no longer good."""
        expires_s = self.identity.expires_s if self.identity else None
        return expires_s is not None and now_ns >= expires_s * 1e9


NOBODY: Final = Who()
