"""
How much of each limit one execution has used.

What is added up is counted here.  Bytes are those of `values.measure`, except
that what is read counts as it is stored: to measure it would cost a third of
reading it.  What is a size or a time of one thing is
noted by whoever measures it anyway, and only where it comes near its limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.errors import LimitExceeded
from engine.model.limits import WARNING_RATIO, Limits

_ADVICE_READ = "Read through an index, or paginate."
_ADVICE_WRITE = "Split the work over several mutations."


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
    noted: dict[str, tuple[float, float]] | None = None
    """The largest use of a limit that was noted, and what is allowed, by the limit's name."""

    def note(self, limit: str, used: float, allowed: float) -> None:
        """Warn of `used` in the end, if it is near or over what is allowed."""
        if used >= allowed * WARNING_RATIO:
            noted = self.noted = self.noted or {}
            noted[limit] = (max(used, noted.get(limit, (0, 0))[0]), allowed)

    def count_read(self, size: int, advice: str = _ADVICE_READ) -> None:
        """Count one document, or a walked index entry, of `size` bytes as read."""
        self.documents_read += 1
        self.bytes_read += size
        limits = self.limits
        if self.documents_read > limits.documents_read_max:
            raise _over("documents_read_max", self.documents_read, limits, advice)
        if self.bytes_read > limits.bytes_read_max:
            raise _over("bytes_read_max", self.bytes_read, limits, advice)

    def uncount_read(self, size: int) -> None:
        """Take back what `count_read` has counted, or refused: it was not read after all."""
        self.documents_read -= 1
        self.bytes_read -= size

    def count_range(self) -> None:
        """Count one index range."""
        self.ranges_read += 1
        if self.ranges_read > self.limits.ranges_read_max:
            raise _over("ranges_read_max", self.ranges_read, self.limits, _ADVICE_READ)

    def count_write(self, size: int) -> None:
        """Count one write call of `size` bytes."""
        self.documents_written += 1
        self.bytes_written += size
        limits = self.limits
        if self.documents_written > limits.documents_written_max:
            raise _over("documents_written_max", self.documents_written, limits, _ADVICE_WRITE)
        if self.bytes_written > limits.bytes_written_max:
            raise _over("bytes_written_max", self.bytes_written, limits, _ADVICE_WRITE)

    def count_scheduled(self, args_bytes: int) -> None:
        """Count one scheduled call with arguments of `args_bytes`."""
        self.functions_scheduled += 1
        self.scheduled_args_bytes += args_bytes
        limits, used = self.limits, self.functions_scheduled
        if used > limits.functions_scheduled_max:
            raise _over("functions_scheduled_max", used, limits, _ADVICE_WRITE)
        if self.scheduled_args_bytes > limits.scheduled_args_bytes_max:
            used = self.scheduled_args_bytes
            raise _over("scheduled_args_bytes_max", used, limits, _ADVICE_WRITE)

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

    def _warnings(self) -> Iterator[str]:
        for name in (
            "documents_read",
            "bytes_read",
            "ranges_read",
            "documents_written",
            "bytes_written",
            "functions_scheduled",
            "scheduled_args_bytes",
        ):
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


def _over(limit: str, used: int, limits: Limits, advice: str) -> LimitExceeded:
    what = limit.removesuffix("_max").replace("_", " ")
    return LimitExceeded(limit, used, getattr(limits, limit), what, advice)
