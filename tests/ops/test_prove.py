"""`ops/prove`: what it prints last, and what it exits with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.proofs import serializability, simulation
from tests.proofs.__main__ import main
from tests.proofs.proof import Plan, Proof, proofs
from tests.simulation import lives, whole


@pytest.fixture(autouse=True)
def _traces_as_before() -> Iterator[None]:
    """A proof silences the traces of its process, and this one has other tests."""
    yield
    structlog.reset_defaults()


HOLDING = """
from tests.proofs.proof import Plan, Verdict
PROMISE = "What is acknowledged is kept."
ROUNDS = 7
def prove(plan: Plan) -> Verdict:
    (plan.directory / "seen").write_text(f"{plan.rounds} {plan.seed} {plan.planted}")
    return Verdict(held=True, figure=f"{plan.rounds} rounds with seed {plan.seed}, none lost")
"""
BREAKING = """
from tests.proofs.proof import Plan, Verdict
PROMISE: str = "Nothing is lost."
ROUNDS: int = 1
def prove(plan: Plan) -> Verdict:
    (plan.directory / "evidence").write_text("the write that went missing")
    return Verdict(held=False, figure="1 of 1 lost")
"""
CRASHING = """
from tests.proofs.proof import Plan, Verdict
PROMISE = "It always ends."
ROUNDS = 1
def prove(plan: Plan) -> Verdict:
    raise OSError("no disk")
"""


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Proof]:
    """Three proofs in a package that is named after the test, so that none is imported twice."""
    package = f"planted_{tmp_path.name}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "kept_writes.py").write_text(HOLDING)
    (folder / "losing.py").write_text(BREAKING)
    (folder / "crashing.py").write_text(CRASHING)
    (folder / "frame.py").write_text("ROUNDS = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    return proofs(folder, package)


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_a_promise_that_held_ends_with_its_figure_and_leaves_nothing(
    known: dict[str, Proof], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"

    status = main(["kept-writes", "--seed", "42"], known, scratch)

    assert status == 0
    assert last_line(capsys) == "held: 7 rounds with seed 42, none lost"
    assert [] == list(scratch.iterdir())


def test_rounds_and_seed_of_the_command_line_reach_the_proof(
    known: dict[str, Proof], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["kept-writes", "--seed", "0", "--rounds", "2"], known, tmp_path)

    assert last_line(capsys) == "held: 2 rounds with seed 0, none lost"


def test_a_run_without_a_seed_says_which_one_it_took(
    known: dict[str, Proof], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["kept-writes"], known, tmp_path)

    lines = capsys.readouterr().out.splitlines()
    seed = lines[1].removeprefix("7 rounds, seed ")
    assert lines[-1] == f"held: 7 rounds with seed {int(seed)}, none lost"


def test_a_broken_promise_fails_and_keeps_the_evidence(
    known: dict[str, Proof], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"

    status = main(["losing"], known, scratch)

    assert status == 1
    assert last_line(capsys) == "DID NOT HOLD: 1 of 1 lost"
    assert ["evidence"] == [path.name for path in scratch.glob("losing-*/*")]


def test_a_proof_that_breaks_has_proved_nothing(
    known: dict[str, Proof], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["crashing"], known, tmp_path)

    assert status == 1
    assert last_line(capsys) == "DID NOT HOLD: the proof itself failed with OSError"


def test_an_unknown_promise_is_answered_with_the_nearest(
    known: dict[str, Proof], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["kept-write"], known, tmp_path)

    assert status == 2
    assert "Did you mean kept-writes?" in capsys.readouterr().err


def test_the_list_has_every_promise_as_a_sentence_with_its_command(
    known: dict[str, Proof], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["--list"], known, tmp_path)

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert lines == [
        "crashing: It always ends.",
        "    ops/prove crashing --rounds 1",
        "kept-writes: What is acknowledged is kept.",
        "    ops/prove kept-writes --rounds 7",
        "losing: Nothing is lost.",
        "    ops/prove losing --rounds 1",
        "3 promises",
    ]


def test_a_promise_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "vague.py").write_text('PROMISE = "durability"\nROUNDS = 1\n')

    with pytest.raises(ValueError, match="full stop"):
        proofs(tmp_path)


def test_the_real_proofs_can_be_read_and_imported() -> None:
    for proof in proofs().values():
        assert callable(proof.load())


def test_a_simulation_in_which_nothing_happened_has_proved_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(rounds=1, seed=1, planted=False, directory=tmp_path)
    tale = whole.simulated(1)
    monkeypatch.setattr(simulation, "simulated", lambda _seed: tale)
    full = simulation.prove(plan)
    tale.counts = Counter()
    empty = simulation.prove(plan)

    assert full.held
    assert not empty.held
    assert "only 0 lives, of at least 2" in capsys.readouterr().out


def test_a_history_without_transactions_is_no_proof_of_an_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def empty(seed: int, *, interleaves: bool) -> Any:
        tale = lives.simulated(seed, interleaves=interleaves)
        tale.history.operations.clear()
        return tale

    monkeypatch.setattr(serializability, "simulated", empty)
    monkeypatch.setattr(serializability, "_run_rounds", lambda *_: None)
    verdict = serializability.prove(Plan(rounds=1, seed=1, planted=False, directory=tmp_path))

    said = capsys.readouterr().out
    assert not verdict.held
    assert "in the lane: only 0 operations, of at least 450" in said
    assert "beside each other: only 0 operations, of at least 450" in said
    assert "through sockets: only 0 answered, of at least 2,000" in said
