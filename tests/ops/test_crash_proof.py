"""How the crash proof knows that batches are flushed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import flushes
from tests.proofs.crash import KERNEL, Witness, flushes_told
from tests.proofs.flushes import Flushes, flushes_seen

OPENED = """\
openat(AT_FDCWD</>, "/d/store/data.mdb", O_RDONLY) = 3</d/store/data.mdb>
openat(AT_FDCWD</>, "/d/store/data.mdb", O_RDWR|O_CREAT, 0600) = 4</d/store/data.mdb>
openat(AT_FDCWD</>, "/d/store/data.mdb", O_WRONLY|O_DSYNC|O_CLOEXEC) = 5</d/store/data.mdb>
fdatasync(4</d/store/data.mdb>) = 0
"""
PAGES = "fdatasync(4</d/store/data.mdb>) = 0\n"
META = 'pwrite64(5</d/store/data.mdb>, ""..., 120, 32) = 120\n'
META_UNFLUSHED = 'pwrite64(4</d/store/data.mdb>, ""..., 120, 32) = 120\n'
ANSWER = 'sendto(12<socket:[5]>, ""..., 6, 0, NULL, 0) = 6\n'


@pytest.mark.parametrize(
    ("batch", "counted"),
    [
        (PAGES + META, Flushes(pages=1, meta=1)),
        ("", Flushes(pages=0, meta=0)),
        (PAGES + META_UNFLUSHED, Flushes(pages=1, meta=0)),
        (META, Flushes(pages=0, meta=0)),
        (META + PAGES, Flushes(pages=1, meta=0)),
        (PAGES.replace("= 0", "= -1 EIO (Input/output error)") + META, Flushes(pages=0, meta=0)),
    ],
    ids=["both", "neither", "meta not synchronous", "meta alone", "meta first", "failed"],
)
def test_flushes_are_counted_between_two_answers(
    batch: str, counted: Flushes, tmp_path: Path
) -> None:
    killed_in_the_middle = 'pwrite64(4</d/store/data.mdb>, ""...'
    lines = OPENED + ANSWER + batch + ANSWER + PAGES + META + ANSWER + killed_in_the_middle
    (tmp_path / "trace.77").write_text(lines)

    assert [counted, Flushes(pages=1, meta=1)] == flushes_seen(tmp_path, 77)


def test_a_batch_that_was_answered_too_early_is_a_problem() -> None:
    witness = Witness()

    witness.count([Flushes(1, 1)] * 9 + [Flushes(1, 0)] + [Flushes(0, 0)])

    assert [(KERNEL, "batch 9 was answered after Flushes(pages=1, meta=0)")] == witness.problems


def test_a_trace_of_next_to_nothing_shows_nothing() -> None:
    witness = Witness()

    witness.count([Flushes(1, 1)])

    assert [(KERNEL, "only 1 batches were traced")] == witness.problems


def test_a_figure_that_could_not_be_counted_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flushes, "STRACE", None)

    figure = flushes_told(Witness())

    assert "flushes NOT COUNTED but taken from the flags (strace is missing)" == figure
