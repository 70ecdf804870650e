"""
`random`, `uuid`, `secrets` and `os.urandom` as application modules see them.

Inside a query or mutation they all draw from the dice of the execution, which
are seeded, so that a run can be had again; elsewhere they are the ordinary ones.
"""

from __future__ import annotations

import base64
import functools
import os
import random
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from engine.functions.clocks import frozen_ns
from engine.functions.slots import active

T = TypeVar("T")

UUID_EPOCH_100NS: Final = 0x01B21DD213814000
"""From the beginning of the Gregorian calendar, where version 1 counts from, to 1970."""
TOKEN_BYTES: Final = 32


def dice() -> random.Random | None:
    """The dice of the query or mutation that runs here, if any."""
    execution = active()
    return None if execution is None else execution.random


def _draw(original: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def draw(*args: Any, **kwargs: Any) -> Any:
        return getattr(dice() or random, name)(*args, **kwargs)

    return draw


class _RandomClass(type):
    """Of the classes below: unseeded inside a query or mutation means seeded by its dice."""

    original: type[random.Random]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if "original" not in cls.__dict__:
            return super().__call__(*args, **kwargs)
        if cls.original is random.SystemRandom:
            source = dice()
            return random.SystemRandom() if source is None else random.Random(_seed(source))
        return random.Random(_seeded(*args, **kwargs))

    def __instancecheck__(cls, instance: object) -> bool:
        if "original" in cls.__dict__:
            return isinstance(instance, cls.original)
        return super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        if "original" in cls.__dict__:
            return issubclass(subclass, cls.original)
        return super().__subclasscheck__(subclass)


def _seed(source: random.Random) -> int:
    return source.getrandbits(128)


def _seeded(x: Any = None) -> Any:
    """`x`, or a seed of the execution's dice if it is None and there are any."""
    source = dice() if x is None else None
    return x if source is None else _seed(source)


class Random(random.Random, metaclass=_RandomClass):
    """`random.Random`; classes derived from it are seeded like it."""

    original = random.Random

    def __init__(self, x: Any = None) -> None:
        super().__init__(_seeded(x))


class SystemRandom(random.SystemRandom, metaclass=_RandomClass):
    """`random.SystemRandom`."""

    original = random.SystemRandom


for _class in (Random, SystemRandom):
    _class.__module__ = "random"


def urandom(size: int, /) -> bytes:
    source = dice()
    return os.urandom(size) if source is None else source.randbytes(size)


def getrandom(size: int, flags: int = 0) -> bytes:
    source = dice()
    return os.getrandom(size, flags) if source is None else source.randbytes(size)


def uuid4() -> uuid.UUID:
    source = dice()
    return uuid.uuid4() if source is None else uuid.UUID(bytes=source.randbytes(16), version=4)


def uuid1(node: int | None = None, clock_seq: int | None = None) -> uuid.UUID:
    source, now_ns = dice(), frozen_ns()
    if source is None or now_ns is None:
        return uuid.uuid1(node, clock_seq)
    # Many may be made in one execution, where the clock stands still.
    ticks = now_ns // 100 + UUID_EPOCH_100NS
    low, middle, high = ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF
    sequence = source.getrandbits(14) if clock_seq is None else clock_seq & 0x3FFF
    place = source.getrandbits(48) | 1 << 40 if node is None else node
    return uuid.UUID(fields=(low, middle, high, sequence >> 8, sequence & 0xFF, place), version=1)


def getnode() -> int:
    source = dice()
    return uuid.getnode() if source is None else source.getrandbits(48) | 1 << 40


def token_bytes(nbytes: int | None = None) -> bytes:
    return urandom(TOKEN_BYTES if nbytes is None else nbytes)


def token_hex(nbytes: int | None = None) -> str:
    return token_bytes(nbytes).hex()


def token_urlsafe(nbytes: int | None = None) -> str:
    return base64.urlsafe_b64encode(token_bytes(nbytes)).rstrip(b"=").decode("ascii")


def choice(sequence: Sequence[T]) -> T:
    source = dice()
    return secrets.choice(sequence) if source is None else source.choice(sequence)


def randbelow(exclusive_upper_bound: int) -> int:
    source = dice()
    if source is None:
        return secrets.randbelow(exclusive_upper_bound)
    if exclusive_upper_bound <= 0:
        raise ValueError("Upper bound must be positive.")
    return source.randrange(exclusive_upper_bound)


def randbits(k: int) -> int:
    source = dice()
    return secrets.randbits(k) if source is None else source.getrandbits(k)


RANDOM: Final[Mapping[str, Any]] = {
    **{
        name: _draw(value, name)
        for name, value in vars(random).items()
        if getattr(value, "__self__", None) is random._inst
    },
    "Random": Random,
    "SystemRandom": SystemRandom,
}
"""What replaces names of the module `random`; likewise the following."""

UUID: Final[Mapping[str, Any]] = {"uuid1": uuid1, "uuid4": uuid4, "getnode": getnode}

SECRETS: Final[Mapping[str, Any]] = {
    "SystemRandom": SystemRandom,
    "choice": choice,
    "randbelow": randbelow,
    "randbits": randbits,
    "token_bytes": token_bytes,
    "token_hex": token_hex,
    "token_urlsafe": token_urlsafe,
}

OS: Final[Mapping[str, Any]] = {
    "urandom": urandom,
    **({"getrandom": getrandom} if hasattr(os, "getrandom") else {}),
}
