"""What a pool decides, without asking anybody: outcomes, waits, sizes and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from engine import Retry, Value

PARALLELISM_MAX: Final = 200
"""Works under way are rows of one table, and actions take one of the engine's places each."""
VALUE_BYTES_MAX: Final = 1_000_000
"""Of arguments, and of a context: each has to fit in a document."""
INLINE_BYTES_MAX: Final = 8_000
"""Of arguments and context in the row of a work, which a look at the queue reads."""
JITTER: Final = (0.5, 1.5)
"""Of each wait, within the longest: what failed together is not to come back together."""
WAIT_MS_MAX: Final = 7 * 86_400_000.0
"""As of actions that the scheduler tries again."""
ERROR_LENGTH_MAX: Final = 8_000
"""Characters of an error, which is kept and handed on."""
FAILURE_BYTES_MAX: Final = 100_000
"""Of arguments and context of a work that has failed for good, kept to enqueue it again."""

Level: TypeAlias = Literal["DEBUG", "TRACE", "INFO", "REPORT", "WARN", "ERROR"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)

Ended: TypeAlias = Literal["succeeded", "failed", "canceled", "retries"]
"""What has become of an attempt, by the name of its counter."""


class Outcome(NamedTuple):
    """How an attempt has ended; one that `is_final` is not tried again, whatever it was."""

    kind: Literal["success", "failed", "canceled"]
    value: Value = None
    error: str = ""
    is_final: bool = False


def verdict(outcome: Outcome, *, attempts: int, max_attempts: int, is_canceled: bool) -> Ended:
    """
    What becomes of a work whose attempt has ended.

    Args:
        attempts: of it, this one included.
        is_canceled: somebody has canceled it meanwhile; a success is one all the same.
    """
    if outcome.kind == "success":
        return "succeeded"
    if is_canceled or outcome.kind == "canceled":
        return "canceled"
    return "failed" if outcome.is_final or attempts >= max_attempts else "retries"


def wait_ms(retry: Mapping[str, float], attempts: int, fraction: float) -> float:
    """
    How long to wait after so many attempts.

    Args:
        fraction: from 0 to 1, by dice.
    """
    least, most = JITTER
    spread = least + (most - least) * fraction
    return min(retry_of(retry).backoff_ms(attempts) * spread, WAIT_MS_MAX)


def retry_of(fields: Mapping[str, float]) -> Retry:
    return Retry(
        initial_backoff=fields["initial_backoff"],
        base=fields["base"],
        max_attempts=int(fields["max_attempts"]),
    )


def size_of(value: Value) -> int:
    """About how many bytes a document takes for a value."""
    if isinstance(value, str):
        return 2 + len(value.encode())
    if isinstance(value, bytes):
        return 2 + len(value)
    if isinstance(value, Mapping):
        return 2 + sum(1 + len(name) + size_of(item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return 2 + sum(map(size_of, value))
    return 9


def check_parallelism(number: float) -> None:
    """
    Raises:
        ValueError: a pool cannot have so many works under way.
    """
    is_whole = not isinstance(number, bool) and number == int(number)
    if not is_whole or not 0 <= number <= PARALLELISM_MAX:
        raise ValueError(
            f"max_parallelism is {number}; it is a whole number from 0, which pauses, to "
            f"{PARALLELISM_MAX}; several pools run beside each other"
        )


def report_of(pool: Mapping[str, Any], *, running: int, waiting: int) -> dict[str, float]:
    """
    What has ended since the last report, and the rates of it.

    `failureRate` counts every attempt that failed, `permanentFailureRate` works.
    """
    counts = {name: int(pool[name]) for name in ("succeeded", "failed", "retries", "canceled")}
    completed = sum(counts.values())
    final = completed - counts["retries"]
    failed = counts["failed"]
    return {
        "completed": completed,
        **counts,
        "running": running,
        "backlog": waiting,
        "failureRate": _rate(failed + counts["retries"], completed),
        "permanentFailureRate": _rate(failed, final),
    }


def _rate(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0


def told(error: str) -> str:
    return error if len(error) <= ERROR_LENGTH_MAX else error[:ERROR_LENGTH_MAX] + "…"
