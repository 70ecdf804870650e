"""The newest commits: which are kept, and what is said of those that are not."""

from __future__ import annotations

from dataclasses import dataclass

from engine.log.recent import Recent


@dataclass(frozen=True, slots=True)
class Commit:
    ts: int


def kept(recent: Recent[Commit]) -> list[int]:
    return [commit.ts for commit in recent.between(0, 1_000)]


def test_the_oldest_go_a_few_at_a_time_when_there_are_too_many() -> None:
    recent: Recent[Commit] = Recent(0, count_max=128)

    for ts in range(1, 130):
        recent.append(Commit(ts))

    assert list(range(3, 130)) == kept(recent)
    assert (False, True) == (recent.covers(1), recent.covers(2))


def test_the_oldest_go_when_they_are_too_large() -> None:
    recent: Recent[Commit] = Recent(0, count_max=1_000, bytes_max=100)

    for ts in range(1, 11):
        recent.append(Commit(ts), size_bytes=30)

    assert 2 <= len(kept(recent)) <= 3
    assert 10 == kept(recent)[-1]
    assert not recent.covers(kept(recent)[0] - 2)


def test_one_that_is_too_large_is_kept_for_who_follows_and_goes_with_the_next() -> None:
    recent: Recent[Commit] = Recent(0, count_max=1_000, bytes_max=100)

    recent.append(Commit(1), size_bytes=30)
    recent.append(Commit(2), size_bytes=5_000)
    with_large = kept(recent)
    recent.append(Commit(3), size_bytes=30)

    assert [2] == with_large
    assert [3] == kept(recent)
