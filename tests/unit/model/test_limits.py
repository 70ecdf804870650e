"""Limits as they are set: by name, and none that bounds nothing."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from engine.cli.project import find_project
from engine.errors import UsageError
from engine.model.limits import Limits, limits_of


def test_the_defaults_can_be() -> None:
    assert Limits() == limits_of({})


def test_what_is_set_is_set_and_the_rest_stays() -> None:
    limits = limits_of({"documents_read_max": 64_000, "user_time_s_max": 2, "ping_s": 1.5})

    assert (64_000, 2, 1.5) == (limits.documents_read_max, limits.user_time_s_max, limits.ping_s)
    assert Limits().bytes_read_max == limits.bytes_read_max


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"document_read_max": 1},
            "no limit 'document_read_max'; did you mean documents_read_max",
        ),
        ({"colour": 1}, "there is no limit 'colour'; they are in engine/model/limits.py"),
        (
            {"DOCUMENT_BYTES_MAX": 3},
            "DOCUMENT_BYTES_MAX is fixed: formats",
        ),
        ({"document_nesting_max": 3}, "DOCUMENT_NESTING_MAX is fixed"),
        ({"DOCUMENTS_READ_MAX": 3}, "did you mean documents_read_max"),
        ({"documents_read_max": 0}, "documents_read_max .* of at least 1, not 0"),
        ({"documents_read_max": -5}, "documents_read_max .* of at least 1, not -5"),
        ({"index_unfolded_bytes_max": 1_000}, "of at least 131,072, not 1000"),
        ({"documents_read_max": 1.5}, "documents_read_max has to be a whole number .* not 1.5"),
        ({"documents_read_max": "many"}, "documents_read_max .* not 'many'"),
        ({"documents_read_max": True}, "documents_read_max .* not True"),
        ({"user_time_s_max": -1.0}, "user_time_s_max has to be seconds, not negative, not -1.0"),
        ({"system_time_s_max": 0}, "system_time_s_max has to be more than 0 seconds"),
        ({"ping_s": 0.0}, "ping_s has to be more than 0 seconds"),
        ({"drain_s": 1e308}, r"drain_s has to be at most 1,000,000,000 seconds, not 1e\+308"),
        ({"drain_s": math.inf}, "drain_s has to be at most 1,000,000,000 seconds, not inf"),
        ({"user_time_s_max": math.nan}, "user_time_s_max .* not nan"),
        ({"user_time_s_max": None}, "user_time_s_max .* not None"),
        (
            {"retry_backoff_s": 3},
            "retry_backoff_s is 3 and cannot be over retry_backoff_s_max, which is 2.0",
        ),
        ({"call_depth_max": 400}, "call_depth_max is 400 and cannot be over 64"),
    ],
    ids=str,
)
def test_what_bounds_nothing_is_refused_by_name(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        limits_of(settings)


@pytest.mark.parametrize("name", [one.name for one in fields(Limits)])
def test_each_of_them_is_checked(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} has to be"):
        limits_of({name: -1})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pyproject.toml"


def test_a_project_says_which_limits_are_not_to_be_the_defaults(project: Path) -> None:
    project.write_text(
        '[tool.headrace]\napp = "app.py"\n[tool.headrace.limits]\ndocuments_read_max = 64000\n'
    )

    named, found = find_project("other.py"), find_project()

    assert Limits(documents_read_max=64_000) == found.limits == named.limits


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ("[tool.headrace.limits]\ndocument_read_max = 5", "did you mean documents_read_max"),
        ("limits = 5", "is a table of names and numbers"),
    ],
    ids=["name", "no table"],
)
def test_a_project_with_limits_that_cannot_be_is_refused_with_its_file(
    limits: str, complaint: str, project: Path
) -> None:
    project.write_text(f'[tool.headrace]\napp = "app.py"\n{limits}\n')

    with pytest.raises(UsageError, match=rf"pyproject\.toml: .tool\.headrace\.limits.*{complaint}"):
        find_project()
