"""Each test is given `t`: this application on an engine of its own, with nothing in it yet."""

from datetime import timedelta

import pytest
from headrace import ConvexError, PaginationOptions
from headrace.testing import Harness

from backend.dev_issuer import sign_in
from backend.messages import list_messages, send
from backend.people import here, online

FIRST_PAGE: PaginationOptions = {"numItems": 10, "cursor": None}


async def test_a_message_is_listed_with_who_wrote_it(t: Harness) -> None:
    await t.with_identity(subject="ada", name="Ada").mutation(send, body=" hello ")

    page = await t.query(list_messages, opts=FIRST_PAGE)
    assert [("Ada", "hello")] == [(each["author"], each["body"]) for each in page["page"]]


async def test_nobody_writes_who_is_not_signed_in(t: Harness) -> None:
    with pytest.raises(ConvexError, match="Sign in"):
        await t.mutation(send, body="hello")


async def test_a_window_that_falls_silent_is_forgotten(t: Harness) -> None:
    await t.mutation(here, key="a")
    assert {"names": [], "guests": 1} == await t.query(online)

    await t.advance(timedelta(minutes=1))
    assert {"names": [], "guests": 0} == await t.query(online)


async def test_the_issuer_for_development_signs_nothing_elsewhere(t: Harness) -> None:
    with pytest.raises(ConvexError, match="for development"):
        await t.action(sign_in, name="Ada")
