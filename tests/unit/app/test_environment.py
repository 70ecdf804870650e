"""`env` shows an application its variables, and a component none."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.app.environment import NO_VARIABLES, env, read_environment, using
from engine.errors import DeclarationError, VariableMissing

FILE = """
# how we sign in
export ISSUER=https://auth.example.com
QUOTED="two\\nlines"  \nSINGLE='as # it is'
BARE = plain # a comment
EMPTY=
"""


def test_variables_come_from_the_process_and_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env.local").write_text(FILE)
    monkeypatch.setenv("BARE", "of the process")
    monkeypatch.setenv("ONLY", "here")

    with using(read_environment(tmp_path)):
        found = {name: env.get(name) for name in ("ISSUER", "QUOTED", "SINGLE", "EMPTY", "X")}

        assert found == {
            "ISSUER": "https://auth.example.com",
            "QUOTED": "two\nlines",
            "SINGLE": "as # it is",
            "EMPTY": "",
            "X": None,
        }
        assert (env["BARE"], env["ONLY"]) == ("of the process", "here")
        assert "ISSUER" in env
        assert {"ISSUER", "ONLY"} <= set(env)
    assert "ISSUER" not in env


def test_a_comment_ends_a_value_without_quotes(tmp_path: Path) -> None:
    (tmp_path / ".env.local").write_text(FILE)

    assert read_environment(tmp_path)["BARE"] == "plain"


def test_a_missing_variable_is_named_with_the_file_to_write_it_into(tmp_path: Path) -> None:
    with using(read_environment(tmp_path)), pytest.raises(VariableMissing) as caught:
        env["ISSUER"]

    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == (
        f"ISSUER is not set: add a line ISSUER=... to {tmp_path / '.env.local'}, "
        "or set it in the environment of the process"
    )


def test_a_component_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISSUER", "x")

    with using(NO_VARIABLES):
        assert dict(env) == {}
        with pytest.raises(VariableMissing, match=r"env=\{'ISSUER': ...\}"):
            env["ISSUER"]
    assert env["ISSUER"] == "x"


def test_a_line_that_is_no_assignment_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / ".env.local").write_text("A=1\nwhat is this\n")

    with pytest.raises(DeclarationError, match=r"\.env\.local:2: 'what is this' is no line"):
        read_environment(tmp_path)
