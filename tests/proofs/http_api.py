"""
schemathesis reads the OpenAPI description of a served application and tries it out.

A round is a request of its fuzzing to each operation, beside those that it makes of
every edge of every schema.  It looks at statuses, bodies, headers and methods; what
it recorded is then looked at once more here: a function has to take the arguments
that fit its schema, and refuse all others.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import urlopen

from tests.proofs.proof import Plan, Verdict, too_few

PROMISE = "The HTTP API does what its OpenAPI description says, whatever it is sent."
ROUNDS = 200

ROOT: Final = Path(__file__).parents[2]
CONFIG: Final = Path(__file__).with_suffix(".toml")
RUN_PREFIX: Final = "/api/run/"
MAY_FAIL: Final = "/may_"
"""What functions are called that may refuse arguments that fit."""
NEEDS_KEY: Final = ("/api/function", "/api/openapi.json")
PLANTED: Final = (
    "fails",
    "undescribed-status",
    "body-that-does-not-fit",
    "says-nothing-of-arguments",
)
PLANTED_ROUNDS: Final = 5
LEAST: Final = {"requests": 100, "arguments that fit": 10, "arguments that do not": 10}


@dataclass(kw_only=True)
class Story:
    """What was tried, and what contradicts the promise."""

    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    @property
    def figure(self) -> str:
        done = ", ".join(f"{self.counts.get(what, 0):,} {what}" for what in LEAST)
        return f"{done}; {len(self.problems)} problems"


def prove(plan: Plan) -> Verdict:
    """Try every operation as often as there are rounds, or look whether each bug is caught."""
    if not plan.planted:
        story = tell(plan.directory, "none", plan.rounds, plan.seed)
        story.problems += too_few(story.counts, LEAST)
        for problem in story.problems:
            print(f"  {problem}")
        return Verdict(held=not story.problems, figure=story.figure)
    caught = []
    for bug in PLANTED:
        directory = plan.directory / bug
        directory.mkdir()
        story = tell(directory, bug, PLANTED_ROUNDS, plan.seed)
        first = " ".join(story.problems[0].split())[:200] if story.problems else "NOT CAUGHT"
        print(f"  {bug}: {first}")
        caught.append(bool(story.problems))
    return Verdict(held=all(caught), figure=f"{sum(caught)} of {len(caught)} planted bugs caught")


def tell(directory: Path, plant: str, rounds: int, seed: int) -> Story:
    """Serve with a bug, or none, and have it tried; what needs the key, with it too."""
    story = Story()
    with _served(directory, plant) as (url, key):
        with urlopen(f"{url}/api/openapi.json") as response:
            document = json.load(response)
        only: tuple[str, ...] = ()
        if plant != "none":
            only = ("--include-path-regex", "planted|/run/", "--phases", "fuzzing")
        _try(story, directory, url, document, rounds, seed, only)
        if plant == "none":
            with_key = ["--header", f"Authorization: Convex {key}"]
            for path in NEEDS_KEY:
                with_key += ["--include-path", path]
            _try(story, directory, url, document, rounds, seed, with_key)
    return story


def _try(
    story: Story,
    directory: Path,
    url: str,
    document: Any,
    rounds: int,
    seed: int,
    options: Any,
) -> None:
    record = directory / "requests.har"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"),
            f"{url}/api/openapi.json",
            *("--max-examples", str(rounds), "--seed", str(seed), "--no-color"),
            *("--generation-database", "none", "--warnings", "off"),
            *("--output-sanitize", "false", "--report", "har", "--report-har-path", str(record)),
            *options,
        ],
        cwd=directory,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        story.problems += _failures(done.stdout) or [f"it ended with {done.stdout + done.stderr}"]
    for entry in json.loads(record.read_text())["log"]["entries"]:
        story.count("requests")
        _look_at_arguments(story, document, entry)


def _failures(said: str) -> list[str]:
    """What schemathesis found: the sections of its report, each from its operation on."""
    _, _, report = said.partition("= FAILURES =")
    report = re.split(r"\n=+ (?:WARNINGS|SUMMARY) =", report)[0]
    sections = re.split(r"\n_{3,} (?=[A-Z]+ /)", report)[1:]
    return [re.sub(" _{3,}", "", section)[:2_000].strip() for section in sections]


# Arguments.


def _look_at_arguments(story: Story, document: Any, entry: Any) -> None:
    """A function takes what fits its schema, in whatever spelling, and nothing else."""
    path = urlsplit(entry["request"]["url"]).path
    if path not in document["paths"] or not path.startswith(RUN_PREFIX) or MAY_FAIL in path:
        return
    if entry["request"]["method"] != "POST" or entry["response"]["status"] != 200:
        return
    # Every JSON number is a float64: one just beyond 2**53 is 2**53, and fits as that.
    sent = json.loads(entry["request"]["postData"]["text"], parse_int=float)
    args = sent.get("args", {})
    if isinstance(args, list) and len(args) == 1:
        args = args[0]
    answered = json.loads(entry["response"]["content"]["text"])
    fits = _validator(document, path).is_valid(args)
    story.count("arguments that fit" if fits else "arguments that do not")
    if fits is not (answered["status"] == "success"):
        said = answered.get("errorMessage", "took them")
        story.problems.append(f"{path}: {json.dumps(args)[:500]} fits: {fits}, and it said {said}")


_validators: dict[str, Any] = {}


def _validator(document: Any, path: str) -> Any:
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    schema = {**body["schema"]["properties"]["args"], "components": document["components"]}
    key = json.dumps(schema)
    if key not in _validators:
        _validators[key] = import_module("jsonschema_rs").validator_for(schema)
    return _validators[key]


@contextmanager
def _served(directory: Path, plant: str) -> Iterator[tuple[str, str]]:
    subject = subprocess.Popen(
        [sys.executable, "-m", "tests.proofs.http_api_subject", str(directory), plant],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert subject.stdout is not None
        for line in subject.stdout:
            if line.startswith("url "):
                _, url, key = line.split()
                yield url, key
                return
        raise AssertionError("the subject did not serve")
    finally:
        subject.kill()
        subject.communicate()
