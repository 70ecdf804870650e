"""A moment is nanoseconds or a datetime, and both mean the same timestamp."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidValue
from engine.model.timestamps import ts_of

aware = st.datetimes(
    min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)
)


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_nanoseconds_are_themselves(ts: int) -> None:
    assert ts_of(ts) == ts


@given(aware, st.integers(min_value=-14, max_value=14))
def test_a_datetime_is_exact_wherever_its_clock_hangs(moment: datetime, hours: int) -> None:
    elsewhere = moment.astimezone(timezone(timedelta(hours=hours)))

    assert ts_of(elsewhere) == ts_of(moment)
    assert (
        datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts_of(moment) // 1000) == moment
    )


@pytest.mark.parametrize(
    "moment", [datetime(2026, 1, 1), -1, 2**63, True, 1.5, None, "now"], ids=repr
)
def test_what_is_no_moment_is_refused(moment: Any) -> None:
    with pytest.raises(InvalidValue):
        ts_of(moment)
