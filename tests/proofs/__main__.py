"""The command line of the proofs; `ops/prove` calls it in the right environment."""

from __future__ import annotations

import argparse
import difflib
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.proofs.proof import Plan, Proof, Verdict, proofs

ROOT = Path(__file__).parents[2]
HELD, BROKEN, MISUSED = 0, 1, 2


def main(arguments: Sequence[str], known: Mapping[str, Proof], scratch: Path) -> int:
    """
    List the promises or try one, its figure printed last.

    Args:
        arguments: as on the command line, without the program's name.
        known: the proofs by name.
        scratch: where the proof gets a directory of its own; made if missing.

    Returns:
        0 if the promise held, 1 if it did not or the proof itself failed, 2 for a wrong call.
    """
    options = _parser().parse_args(arguments)
    if options.list:
        return _list(known)
    if options.name is None:
        print("Name a promise, or ask for all of them with --list.", file=sys.stderr)
        return MISUSED
    if options.name not in known:
        return _unknown(options.name, known)
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    proof = known[options.name]
    return _run(proof, options.rounds or proof.rounds, seed, options.planted, scratch)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ops/prove", description="Puts a promise to the proof.", allow_abbrev=False
    )
    parser.add_argument("name", nargs="?", help="which promise")
    parser.add_argument("--list", action="store_true", help="every promise, with its proof")
    parser.add_argument("--rounds", type=_positive, help="how many attempts to break it")
    parser.add_argument("--seed", type=int, help="repeat the choices of an earlier run")
    parser.add_argument("--planted", action="store_true", help="against bugs it should catch")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _list(known: Mapping[str, Proof]) -> int:
    for name, proof in known.items():
        print(f"{name}: {proof.promise}\n    ops/prove {name} --rounds {proof.rounds}")
    print(f"{len(known)} promises")
    return HELD


def _unknown(name: str, known: Mapping[str, Proof]) -> int:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    print(f"There is no promise called {name}.{hint} See ops/prove --list.", file=sys.stderr)
    return MISUSED


def _run(proof: Proof, rounds: int, seed: int, planted: bool, scratch: Path) -> int:
    scratch.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{proof.name}-", dir=scratch))
    print(f"{proof.promise}\n{rounds} rounds, seed {seed}{', bugs planted' if planted else ''}")
    verdict = _verdict(proof, Plan(rounds=rounds, seed=seed, planted=planted, directory=directory))
    if verdict.held:
        shutil.rmtree(directory)
    else:
        print(f"What it was working on is kept in {directory}", flush=True)
    print(f"{'held' if verdict.held else 'DID NOT HOLD'}: {verdict.figure}")
    return HELD if verdict.held else BROKEN


def _verdict(proof: Proof, plan: Plan) -> Verdict:
    """A proof that breaks has proved nothing."""
    try:
        return proof.load()(plan)
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        return Verdict(held=False, figure=f"the proof itself failed with {type(error).__name__}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], proofs(), ROOT / ".headrace" / "proofs"))
