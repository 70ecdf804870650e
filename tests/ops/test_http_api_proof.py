"""How the proof of the HTTP API knows that something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.proofs.http_api import Story, _failures, _look_at_arguments, tell

DOCUMENT = {
    "paths": {
        f"/api/run/{name}": {
            "post": {
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {
                                "properties": {
                                    "args": {
                                        "type": "object",
                                        "properties": {"n": {"type": "integer"}},
                                        "required": ["n"],
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        for name in ("m/f", "m/may_f")
    },
    "components": {},
}


def entry(sent: Any, status: str, path: str = "m/f") -> Any:
    return {
        "request": {
            "method": "POST",
            "url": f"http://h/api/run/{path}",
            "postData": {"text": json.dumps(sent)},
        },
        "response": {"status": 200, "content": {"text": json.dumps({"status": status})}},
    }


@pytest.mark.parametrize(
    ("sent", "status", "is_problem"),
    [
        ({"args": {"n": 1}}, "success", False),
        ({"args": [{"n": 1}]}, "success", False),
        ({"args": {"n": 1}}, "error", True),
        ({"args": {"n": "1"}}, "error", False),
        ({"args": {"n": "1"}}, "success", True),
        ({}, "error", False),
        ({}, "success", True),
    ],
)
def test_a_function_takes_what_fits_and_nothing_else(
    sent: Any, status: str, is_problem: bool
) -> None:
    story, lenient = Story(), Story()
    _look_at_arguments(story, DOCUMENT, entry(sent, status))
    _look_at_arguments(lenient, DOCUMENT, entry(sent, status, "m/may_f"))

    assert (bool(story.problems), lenient.problems) == (is_problem, [])


def test_what_was_found_is_told_by_its_operation() -> None:
    said = (
        "= FAILURES ===\n____ GET /api/a ____\n1. Test Case\n\n- ST103 Undocumented status code\n"
        "____ POST /api/b ____\n- ST108\n\n=== SUMMARY ===\nmore\n"
    )

    assert _failures(said) == [
        "GET /api/a\n1. Test Case\n\n- ST103 Undocumented status code",
        "POST /api/b\n- ST108",
    ]


def test_a_planted_status_that_nobody_described_is_caught(tmp_path: Path) -> None:
    story = tell(tmp_path, "undescribed-status", rounds=1, seed=1)

    assert ["GET /api/planted"] == [problem.splitlines()[0] for problem in story.problems]
    assert "Undocumented status code" in story.problems[0]
