"""Which headers are read, and which are refused."""

from __future__ import annotations

import pytest

from engine.errors import StoreDamaged
from engine.model.codec import encode
from engine.model.values import Value
from engine.store.format import FORMAT_VERSION, FORMAT_VERSION_MIN, check_header, new_header


def test_a_header_of_today_is_read() -> None:
    check_header(new_header("headrace 1"), where="data", reader="headrace 2")


def test_a_format_that_is_not_read_any_more_is_refused_by_name() -> None:
    header = encode({"version": FORMAT_VERSION_MIN - 1, "created_by": "headrace 0"})

    with pytest.raises(StoreDamaged) as refused:
        check_header(header, where="data", reader="headrace 2")

    expected = (
        f"data is in format {FORMAT_VERSION_MIN - 1}, created by headrace 0; headrace 2 reads none"
        f" before {FORMAT_VERSION_MIN}. Nothing was changed: with the code that made it (its"
        " commit, where the version is the same) write each table to a file by `headrace data TABLE"
        " --json`, and `headrace import` them into a new directory; or begin with a new one"
    )
    assert expected == str(refused.value)


def test_a_newer_format_is_refused_by_name() -> None:
    header = encode({"version": FORMAT_VERSION + 1, "created_by": "headrace 9"})

    with pytest.raises(StoreDamaged) as refused:
        check_header(header, where="data", reader="headrace 2")

    expected = (
        f"data is in format {FORMAT_VERSION + 1}, created by headrace 9; headrace 2 reads formats"
        f" up to {FORMAT_VERSION}. Nothing was changed: open it with the newer version"
    )
    assert expected == str(refused.value)


@pytest.mark.parametrize("header", [{}, {"version": "1", "created_by": ""}, [], None, 1])
def test_what_is_no_header_is_refused(header: Value) -> None:
    with pytest.raises(StoreDamaged, match="unreadable"):
        check_header(encode(header), where="data", reader="headrace 2")


def test_a_missing_header_is_refused() -> None:
    with pytest.raises(StoreDamaged, match="without a format header"):
        check_header(None, where="data", reader="headrace 2")
