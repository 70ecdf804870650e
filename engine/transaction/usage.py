"""
How much of each limit one execution has used.

What is added up is counted here.  Bytes are those of `values.measure`, except
that what is read counts as it is stored: to measure it would cost a third of
reading it.  What is a size or a time of one thing is
noted by whoever measures it anyway, and only where it comes near its limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from engine.errors import LimitExceeded
from engine.model.limits import WARNING_RATIO, Limits

_ADVICE_READ = "Read through an index, or paginate."
_ADVICE_WRITE = "Split the work over several mutations."
_ADVICE_CALL: Final = "That is what its caller gave it, by transaction_limits."

COUNTED: Final = (
    "documents_read",
    "bytes_read",
    "ranges_read",
    "documents_written",
    "bytes_written",
    "functions_scheduled",
    "scheduled_args_bytes",
)
"""What is added up; the limit on each is called so too, with `_max` behind it."""


@dataclass(slots=True)
class Usage:
    """Counters of one execution, nested calls included."""

    limits: Limits
    documents_read: int = 0
    bytes_read: int = 0
    ranges_read: int = 0
    documents_written: int = 0
    bytes_written: int = 0
    functions_scheduled: int = 0
    scheduled_args_bytes: int = 0
    args_bytes: int = 0
    result_bytes: int = 0
    noted: dict[str, tuple[float, float]] | None = None
    """The largest use of a limit that was noted, and what is allowed, by the limit's name."""
    began_at: Mapping[str, int] | None = None
    """Of a call with limits of its own: what was used before it, by the name of each of them."""

    def tighten(self, budget: Mapping[str, int]) -> tuple[Limits, Mapping[str, int] | None]:
        """
        From here on allow no more than `budget` of what is counted, nor more than is left.

        Returns what `loosen` takes, when the call that it is for has ended.
        """
        saved = self.limits, self.began_at
        used = {name: getattr(self, name) for name in budget}
        tighter = {
            f"{name}_max": used[name] + count
            for name, count in budget.items()
            if used[name] + count < getattr(self.limits, f"{name}_max")
        }
        self.limits = replace(self.limits, **tighter)
        began = {limit: used[limit.removesuffix("_max")] for limit in tighter}
        self.began_at = {**(self.began_at or {}), **began}
        return saved

    def loosen(self, saved: tuple[Limits, Mapping[str, int] | None]) -> None:
        self.limits, self.began_at = saved

    def left(self, name: str) -> int:
        """How much more may be used of what is counted under `name`."""
        allowed: int = getattr(self.limits, f"{name}_max")
        used: int = getattr(self, name)
        return max(0, allowed - used)

    def note(self, limit: str, used: float, allowed: float) -> None:
        """Warn of `used` in the end, if it is near or over what is allowed."""
        if used >= allowed * WARNING_RATIO:
            noted = self.noted = self.noted or {}
            noted[limit] = (max(used, noted.get(limit, (0, 0))[0]), allowed)

    def note_log_lines(self, lines: int) -> None:
        """Warn of so many log lines, if there is room for the warning."""
        if lines < self.limits.log_lines_max - 1:
            self.note("log_lines_max", lines, self.limits.log_lines_max)

    def count_read(self, size: int, advice: str = _ADVICE_READ) -> None:
        """Count one document, or a walked index entry, of `size` bytes as read."""
        self.documents_read += 1
        self.bytes_read += size
        limits = self.limits
        if self.documents_read > limits.documents_read_max:
            raise self._over("documents_read_max", self.documents_read, advice)
        if self.bytes_read > limits.bytes_read_max:
            raise self._over("bytes_read_max", self.bytes_read, advice)

    def uncount_read(self, size: int) -> None:
        """Take back what `count_read` has counted, or refused: it was not read after all."""
        self.documents_read -= 1
        self.bytes_read -= size

    def count_range(self) -> None:
        """Count one index range."""
        self.ranges_read += 1
        if self.ranges_read > self.limits.ranges_read_max:
            raise self._over("ranges_read_max", self.ranges_read, _ADVICE_READ)

    def count_write(self, size: int) -> None:
        """Count one write call of `size` bytes."""
        self.documents_written += 1
        self.bytes_written += size
        limits = self.limits
        if self.documents_written > limits.documents_written_max:
            raise self._over("documents_written_max", self.documents_written, _ADVICE_WRITE)
        if self.bytes_written > limits.bytes_written_max:
            raise self._over("bytes_written_max", self.bytes_written, _ADVICE_WRITE)

    def count_scheduled(self, args_bytes: int) -> None:
        """Count one scheduled call with arguments of `args_bytes`."""
        self.functions_scheduled += 1
        self.scheduled_args_bytes += args_bytes
        limits, used = self.limits, self.functions_scheduled
        if used > limits.functions_scheduled_max:
            raise self._over("functions_scheduled_max", used, _ADVICE_WRITE)
        if self.scheduled_args_bytes > limits.scheduled_args_bytes_max:
            used = self.scheduled_args_bytes
            raise self._over("scheduled_args_bytes_max", used, _ADVICE_WRITE)

    def written(self) -> tuple[int, int, int, int]:
        """What a rolled back sub-transaction gives back."""
        return (
            self.documents_written,
            self.bytes_written,
            self.functions_scheduled,
            self.scheduled_args_bytes,
        )

    def restore_written(self, saved: tuple[int, int, int, int]) -> None:
        (
            self.documents_written,
            self.bytes_written,
            self.functions_scheduled,
            self.scheduled_args_bytes,
        ) = saved

    def warnings(self) -> Iterable[str]:
        """A sentence for every limit of which more than the warning ratio was used."""
        limits, ratio = self.limits, WARNING_RATIO
        is_modest = (
            self.documents_read < limits.documents_read_max * ratio
            and self.bytes_read < limits.bytes_read_max * ratio
            and self.ranges_read < limits.ranges_read_max * ratio
            and self.documents_written < limits.documents_written_max * ratio
            and self.bytes_written < limits.bytes_written_max * ratio
            and self.functions_scheduled < limits.functions_scheduled_max * ratio
            and self.scheduled_args_bytes < limits.scheduled_args_bytes_max * ratio
            and self.noted is None
        )
        return () if is_modest else self._warnings()

    def _over(self, limit: str, used: int, advice: str) -> LimitExceeded:
        what = limit.removesuffix("_max").replace("_", " ")
        allowed: int = getattr(self.limits, limit)
        if self.began_at is None or limit not in self.began_at:
            return LimitExceeded(limit, used, allowed, what, advice)
        before = self.began_at[limit]
        within = f"{what} within a call"
        error = LimitExceeded(limit, used - before, allowed - before, within, _ADVICE_CALL)
        error.is_callers = True
        return error

    def _warnings(self) -> Iterator[str]:
        for name in COUNTED:
            used, allowed = getattr(self, name), getattr(self.limits, f"{name}_max")
            if used >= allowed * WARNING_RATIO:
                yield _warning(f"{name}_max", used, allowed)
        for limit, (used, allowed) in (self.noted or {}).items():
            yield _warning(limit, used, allowed)


def _warning(limit: str, used: float, allowed: float) -> str:
    what = limit.lower().removesuffix("_max").removesuffix("_s").replace("_", " ")
    unit = " s" if limit.endswith("_s_max") else ""
    shown = f"{used:.2f}" if isinstance(used, float) else f"{used}"
    return f"{what}: {shown}{unit} of at most {allowed:.10g}{unit} ({limit})"
