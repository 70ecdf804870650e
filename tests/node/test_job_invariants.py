"""
What has to hold of a job wherever it is cut off or something fails: the matrix of `ops/prove jobs`.

The proof holds it up at each place as well, sets its clock, and kills real processes.
"""

from __future__ import annotations

import pytest

from engine.functions import crons, jobs, mutations, scheduling
from tests.architecture.source_tree import ROOT
from tests.proofs.jobs_matrix import cells, is_possible, simulated
from tests.proofs.jobs_planted import plant

FATES = ("cut off", "cut off, and written", "failed")


def problems_of(*kinds: str) -> list[str]:
    return [
        text
        for cell in cells()
        if cell.kind in kinds
        for fate in FATES
        if is_possible(cell, fate)
        for text in simulated(cell, fate)
    ]


def test_the_readme_says_how_many_places_there_are() -> None:
    text = (ROOT / "tests/README.md").read_text()

    assert f"There are {len(cells())} places" in text


def test_the_effect_of_a_mutation_and_the_end_of_its_job_are_one() -> None:
    assert [] == problems_of("mutation")


@pytest.mark.parametrize("kind", ["action", "retry"])
def test_an_action_begins_once_and_has_failed_if_it_was_cut_off(kind: str) -> None:
    assert [] == problems_of(kind)


@pytest.mark.parametrize("kind", ["cancel", "cancel of an action", "cancel of a running action"])
def test_what_is_canceled_does_not_begin_and_what_has_begun_has_no_children(kind: str) -> None:
    assert [] == problems_of(kind)


@pytest.mark.parametrize("kind", ["cron", "cron of an action"])
def test_a_cron_has_one_tick_that_is_to_come_and_counts_what_it_skips(kind: str) -> None:
    assert [] == problems_of(kind)


CHANGED_BY_BUGS = (
    (crons, "next_time"),
    (jobs, "is_pending"),
    (mutations, "is_pending"),
    (scheduling, "tell"),
    (scheduling, "_is_canceled"),
    (jobs.Jobs, "_end"),
)


@pytest.mark.parametrize(
    ("bug", "kind"),
    [
        ("runs-the-backlog", "cron"),
        ("forgets-the-canceled-state", "cancel"),
        ("tells-in-a-transaction-of-its-own", "retry"),
        ("lets-children-of-the-canceled-run", "cancel of a running action"),
    ],
)
def test_a_planted_bug_is_seen(bug: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in CHANGED_BY_BUGS:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # so that it is so again after this

    plant(bug)

    assert problems_of(kind)
