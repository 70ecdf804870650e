"""What a proof is given and what it gives back, and how proofs are found by name."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    How a promise is to be tried.

    rounds: how many attempts to break it.
    seed: what all of the proof's choices derive from; the same seed makes the same choices.
    planted: run against each bug that the proof knows how to plant, instead of the engine as it
        is. The verdict holds if every one of them was caught.
    directory: empty, on a disk; kept if the promise did not hold, removed otherwise.
    """

    rounds: int
    seed: int
    planted: bool
    directory: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    What came of it.

    held: whether every attempt was withstood; with `planted`, whether every bug was caught.
    figure: one line for whoever ran it, with the numbers that carry the verdict.
    """

    held: bool
    figure: str


def too_few(done: Mapping[str, int], least: Mapping[str, int]) -> list[str]:
    """What was done less often than it has to be: where nothing happened, nothing was withstood."""
    return [
        f"only {done.get(name, 0):,} {name}, of at least {count:,}"
        for name, count in least.items()
        if done.get(name, 0) < count
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One module of this package, read but not yet imported."""

    name: str
    promise: str
    rounds: int
    module: str

    def load(self) -> Callable[[Plan], Verdict]:
        """Import the module; its dependencies are only needed from here on."""
        prove: Callable[[Plan], Verdict] = import_module(self.module).prove
        return prove


def proofs(folder: Path = HERE, package: str = "tests.proofs") -> dict[str, Proof]:
    """Every promise by its name on the command line: the module's, with dashes."""
    return {proof.name: proof for proof in _read(folder, package)}


def _read(folder: Path, package: str) -> Iterator[Proof]:
    for path in sorted(folder.glob("*.py")):
        constants = _constants(ast.parse(path.read_text()))
        if "PROMISE" not in constants:
            continue  # the frame, not a proof
        promise, rounds = constants["PROMISE"], constants.get("ROUNDS")
        if not isinstance(promise, str) or not promise.endswith("."):
            raise ValueError(f"{path}: PROMISE is one sentence, a string that ends in a full stop")
        if not isinstance(rounds, int) or rounds < 1:
            raise ValueError(f"{path}: ROUNDS is a whole number of at least 1")
        name, module = path.stem.replace("_", "-"), f"{package}.{path.stem}"
        yield Proof(name=name, promise=promise, rounds=rounds, module=module)


def _constants(module: ast.Module) -> dict[str, object]:
    """The names a module gives a literal at its top level, annotated or not."""
    found: dict[str, object] = {}
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        try:
            found[name] = ast.literal_eval(value)
        except ValueError:  # computed, so not one of ours
            continue
    return found
