"""Reciprocal rank fusion, against its formula."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from engine.transaction.fusion import fused

orders = st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), min_size=1, max_size=3)


@given(orders, st.integers(1, 8))
def test_the_best_of_all_orders_are_those_with_the_largest_sums(
    given: list[list[str]], count: int
) -> None:
    exact = {
        one: sum(Fraction(1, 60 + order.index(one) + 1) for order in given if one in order)
        for one in {one for order in given for one in order}
    }

    found = fused(given, count)

    assert sorted(exact, key=lambda one: (exact[one], one), reverse=True)[:count] == [
        one for one, _ in found
    ]
    assert found == fused(given[::-1], count), "whichever comes first"


def test_what_both_orders_have_comes_before_the_first_of_one() -> None:
    (best, score), (second, _) = fused([["a", "b"], ["c", "b"]], 2)

    assert ("b", "c") == (best, second)
    assert abs(score - 2 / 62) < 1e-12
