"""Each test is given `t`: the application in `backend` on an engine of its own."""

import pytest
from headrace import ConvexError
from headrace.testing import Harness

from backend.main import add, add_and_fail, counts


async def test_each_mount_counts_for_itself(t: Harness) -> None:
    assert 2 == await t.mutation(add, "few", by=2)
    assert 1 == await t.mutation(add, "many")

    assert [2, 1] == await t.query(counts)


async def test_it_is_a_part_of_the_mutation_that_calls_it(t: Harness) -> None:
    with pytest.raises(LookupError):
        await t.mutation(add_and_fail)

    assert [0, 0] == await t.query(counts)


async def test_there_are_no_more_than_it_is_told(t: Harness) -> None:
    await t.mutation(add, "few", by=2)

    with pytest.raises(ConvexError, match="TooMany"):
        await t.mutation(add, "few")
